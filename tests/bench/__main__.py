"""Measures gpt2cli and its peers in turn, and prints one table.

    python -m tests.bench [--quick] [--rounds N] [--only WORD]... [--folder FOLDER] [--json FILE]

Every program runs in an environment of its own, made on the first run in FOLDER (several GB), on
the same random weights of 124M's shape and the same text, one after the other, round after round.
Medians are told with the lowest and the highest round.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from tests import models
from tests.bench import environments, limits
from tests.bench.works import MODEL, Bench, Command, FailedError, Generation, Training, Values

WORKS = (
    Training(1, 1024, 1),
    Training(4, 256, 1),
    Training(1, 1024, 5),
    Generation(1, 200),
    Generation(20, 200),
    Generation(1, 1, prompt=900),
    Command(),
)
QUICK = (Training(1, 1024, 1), Generation(1, 200), Command())
WORDS = 400_000
Run = Callable[[Bench], Values]


def prepared(folder: Path, *, quick: bool) -> Bench:
    """Returns a bench whose models, in each program's format, lie in its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(folder, folder / "text.txt", quick)
    if not bench.text.exists():
        sentence = "Number {} is a truth universally acknowledged, and must be in want of a wife. "
        bench.text.write_text("".join(sentence.format(n) for n in range(WORDS // 15)))
    if not (folder / "models" / MODEL / "checkpoint").exists():
        models.write_model(folder / "models" / MODEL, models.GPT2_124M, deviation=0.02)
    exports = {
        "hf": ("--format", "huggingface"),
        **{f"{p}.gguf": ("--precision", p) for p in ("float32", "float16", "q8_0")},
    }
    for name, options in exports.items():
        if not (folder / name).exists():
            bench.run("gpt2cli", "-m", "gpt2cli", "export", name, "--model-name", MODEL, *options)
    return bench


def told(name: str, rounds: list[Values], first: Values | None) -> str:
    """Returns a row of the table: each value's median, its range, and its ratio to the first's."""
    cells = []
    for value in rounds[0]:
        found = [each[value] for each in rounds]
        cell = f"{value} {statistics.median(found):.4g} ({min(found):.4g}-{max(found):.4g})"
        if first is not None and value in first:
            cell += f" = {statistics.median(found) / first[value]:.2f} x"
        cells.append(cell)
    return f"  {name:<24} " + " | ".join(cells)


def in_turn(
    bench: Bench, programs: dict[str, Run], rounds: int, machine: list[Values]
) -> dict[str, list[Values]]:
    """Returns what each program's runs tell, one after the other, round after round."""
    measured: dict[str, list[Values]] = {name: [] for name in programs}
    for _ in range(rounds if programs else 0):
        machine.append(limits.measured())
        for name, run in programs.items():
            try:
                measured[name].append(run(bench))
            except FailedError as error:
                print(f"  {name}: {error}", flush=True)
    return {name: values for name, values in measured.items() if values}


def main() -> None:
    """Measures what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer works, peers and rounds")
    parser.add_argument("--rounds", type=int, help="rounds in turn [3; quick: 1]")
    parser.add_argument("--only", action="append", default=[], help="works or programs so named")
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache" / "gpt2cli-bench")
    parser.add_argument("--json", type=Path, help="write all values there")
    settings = parser.parse_args()
    bench = prepared(settings.folder.absolute(), quick=settings.quick)
    rounds = settings.rounds or (1 if settings.quick else 3)
    print(f"{datetime.date.today()}, {platform.processor() or platform.machine()}, {sys.version}")
    every: dict[str, dict[str, list[Values]]] = {"limits": {"machine": []}}
    wanted = settings.only
    for work in QUICK if settings.quick else WORKS:
        programs = work.programs()
        if not any(word in str(work) for word in wanted):
            programs = {
                name: run
                for name, run in programs.items()
                if not wanted or any(word in name for word in wanted)
            }
        measured = in_turn(bench, programs, rounds, every["limits"]["machine"])
        every[str(work)] = measured
        print(f"\n{type(work).__name__}: {work}")
        first = next(iter(measured.values()), [])
        reference = {v: statistics.median(e[v] for e in first) for v in first[0]} if first else None
        for name, found in measured.items():
            print(told(name, found, reference if found is not first else None), flush=True)
    if every["limits"]["machine"]:
        print("\n" + told("the machine", every["limits"]["machine"], None))
    for name in environments.REQUIREMENTS:
        if (bench.folder / "environments" / name).exists():
            print(f"  {name}: {environments.versions(bench.folder / 'environments', name)}")
    if settings.json:
        settings.json.write_text(json.dumps(every, indent=1))


if __name__ == "__main__":
    main()
