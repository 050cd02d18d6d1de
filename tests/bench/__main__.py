"""Measures gpt2cli and its peers in turn, and prints one table.

    python -m tests.bench [--quick] [--rounds N] [--only WORD]... [--folder FOLDER]
        [--text FILE]... [--json FILE] [--markdown FILE]
    python -m tests.bench --gpu …    on an NVIDIA GPU, see tests/bench/gpu.py

Every program runs in an environment of its own, made on the first run in FOLDER (several GB), on
the same random weights of 124M's shape and the same text, one after the other, round after round.
Medians are told with the lowest and the highest round, and with their ratio to the first program's.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import hashlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from tests import models
from tests.bench import english, environments, gpu, limits, table
from tests.bench.environments import FailedError
from tests.bench.processes import MODEL, Bench, Run, Values, Work
from tests.bench.table import Result
from tests.bench.works.encoding import Encoding
from tests.bench.works.generation import Generation
from tests.bench.works.saving import Saving
from tests.bench.works.scaling import Scaling
from tests.bench.works.starting import Command, Import
from tests.bench.works.tiny import Tiny
from tests.bench.works.training import Training

WORKS: tuple[Work, ...] = (
    Training(1, 1024, 1),
    Training(4, 256, 1),
    Training(1, 1024, 5),
    Tiny(),
    Generation(1, 200),
    Generation(20, 200),
    Generation(1, 1, prompt=900),
    Command(),
    Import(),
    Encoding(),
    Encoding(corpus=True),
    Saving(),
    Scaling(),
)
QUICK: tuple[Work, ...] = (Training(1, 1024, 1), Generation(1, 200), Command(), Encoding())
# What a program's failing looks like, whatever it failed to tell.
FAILURES = (FailedError, OSError, ValueError, LookupError, subprocess.SubprocessError)
# Sentences to train on; characters to encode.
SENTENCES, ENGLISH, CORPUS = 27_000, 8_000_000, 100_000_000


def prepared(settings: argparse.Namespace) -> Bench:
    """Returns a bench whose texts and models, in each program's format, lie in its folder."""
    folder = settings.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(folder, folder / "text.txt", *texts(folder, settings.text), settings.quick)
    sentence = "Number {} is a truth universally acknowledged, and must be in want of a wife. "
    bench.text.write_text("".join(sentence.format(n) for n in range(SENTENCES)))
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


def texts(folder: Path, given: list[Path]) -> tuple[Path, Path]:
    """Returns where a text to encode and a corpus lie, which begin with the files given."""
    begin = "\n\n".join(path.read_text(encoding="utf-8") for path in given)
    name = hashlib.sha256(begin.encode()).hexdigest()[:8]
    made = folder / f"english-{name}.txt", folder / f"corpus-{name}.txt"
    for path, size in zip(made, (len(begin) or ENGLISH, CORPUS), strict=True):
        if not path.exists():
            english.write(path, size, begin)
    return made


def chosen(work: Work, wanted: list[str]) -> dict[str, Run]:
    """Returns the programs of a work that are wanted: all, or those of a word in either's name."""
    programs = work.programs()
    if not wanted or any(word in str(work) for word in wanted):
        return programs
    return {n: run for n, run in programs.items() if any(word in n for word in wanted)}


def machine_limits(bench: Bench) -> Values:
    """Returns the machine's limits, found with PyTorch where that can be had, else without."""
    try:
        outcome = bench.run("huggingface", Path(limits.__file__))
    except FailedError:
        outcome = bench.measured([sys.executable, limits.__file__])
    told: Values = outcome.told()
    return told


def in_turn(bench: Bench, work: Work, programs: dict[str, Run], rounds: int) -> list[Result]:
    """Returns what each program gave, one after the other, round after round; and the machine."""
    measured: dict[str, list[Values]] = {name: [] for name in programs}
    machine = []
    for _ in range(rounds):
        machine.append(machine_limits(bench))
        for name, run in programs.items():
            try:
                measured[name].append(run(bench))
            except FAILURES as error:
                print(f"  {name}: {error!r}", flush=True)
    found = {name: values for name, values in measured.items() if values}
    limit = work.limit(table.medians(machine))
    return [Result(str(work), found, limit), Result("the machine", {"limits": machine}, {})]


def facts(bench: Bench) -> list[str]:
    """Returns when and where it was measured, and what."""
    names = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    cores = len(os.sched_getaffinity(0))
    processor = names[0].split(":")[1].strip() if names else platform.machine()
    place = bench.folder / "environments"
    versions = [
        f"{name}: {environments.versions(place, name)}"
        for name in environments.REQUIREMENTS
        if (place / name).exists()
    ]
    today = datetime.date.today()
    return [f"{today}, {cores} cores of {processor}, Python {platform.python_version()}", *versions]


def parsed() -> argparse.Namespace:
    """Returns what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer works and rounds")
    parser.add_argument("--rounds", type=int, help="rounds in turn [3; quick: 1]")
    parser.add_argument("--only", action="append", default=[], help="works or programs so named")
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache" / "gpt2cli-bench")
    parser.add_argument("--text", action="append", type=Path, default=[], help="English to encode")
    parser.add_argument("--json", type=Path, help="write all values there")
    parser.add_argument("--markdown", type=Path, help="write the table there")
    return parser.parse_args()


def main() -> None:
    """Measures what the command line asks for."""
    if "--gpu" in sys.argv[1:]:
        gpu.main([word for word in sys.argv[1:] if word != "--gpu"])
        return
    settings = parsed()
    # Of this process, which makes the models, and of all that it starts.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    bench = prepared(settings)
    rounds = settings.rounds or (1 if settings.quick else 3)
    results, machine = [], Result("the machine", {"limits": []}, {})
    for work in QUICK if settings.quick and not settings.only else WORKS:
        programs = chosen(work, settings.only)
        if not programs:
            continue
        result, limits_then = in_turn(bench, work, programs, rounds)
        machine.rounds["limits"].extend(limits_then.rounds["limits"])
        results.append(result)
        print(table.lines(result), flush=True)
        keep(settings, facts(bench), [*results, machine])
    if not results:
        raise SystemExit(f"nothing is called so: {', '.join(settings.only)}")
    print(table.lines(machine), *facts(bench), sep="\n")


def keep(settings: argparse.Namespace, told: list[str], results: list[Result]) -> None:
    """Writes what has been measured so far to the files that were asked for."""
    if settings.markdown:
        settings.markdown.write_text(table.markdown(told, results), encoding="utf-8")
    if settings.json:
        everything = [dataclasses.asdict(result) for result in results]
        settings.json.write_text(json.dumps({"facts": told, "results": everything}, indent=1))


if __name__ == "__main__":
    main()
