"""Measures gpt2cli beside PyTorch on one NVIDIA GPU, one process after another.

    python -m tests.bench --gpu [--torch PYTHON] [--keras PYTHON] [--seconds N] [--only WORD]...

The most important works come first, each process has a time limit, and every line is printed (and
written, with --json) as soon as it is known: time on such machines is often short. Ours runs in
this environment; PYTHON is an interpreter that has torch and transformers, or keras-hub. Peaks are
the card's memory in use, as nvidia-smi shows it, less what was in use before.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from gpt2cli.hparams import HParams
from gpt2cli.runtime import hardware
from tests import models
from tests.bench.environments import FailedError
from tests.bench.processes import PEERS, Values

SHAPES = {
    "124M": models.GPT2_124M,
    "774M": HParams(n_vocab=50257, n_ctx=1024, n_embd=1280, n_head=20, n_layer=36),
    "1558M": HParams(n_vocab=50257, n_ctx=1024, n_embd=1600, n_head=25, n_layer=48),
}
STEPS, LENGTH, SAMPLES = 100, 200, 3
SENTENCES = 27_000
POLL_SECONDS = 0.2
# What a peer's interpreter must not get of ours: its own libraries would give way to TensorFlow's.
OURS_ALONE = ("PYTHONPATH", "LD_LIBRARY_PATH", "XLA_FLAGS")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a process: stdout, when it began (s since 1970), and the card's peak (bytes)."""

    stdout: str
    began: float
    peak: float


class Bench:
    """Where measuring happens, and with what."""

    def __init__(self, settings: argparse.Namespace) -> None:
        """Makes the folder, a text, and model folders to begin from scratch with."""
        self.folder: Path = settings.folder.absolute()
        self._seconds: float = settings.seconds
        self.peers = {"torch": settings.torch, "keras": settings.keras}
        self.folder.mkdir(parents=True, exist_ok=True)
        sentence = "Number {} is a truth universally acknowledged, and must be in want of a wife. "
        text = "".join(sentence.format(number) for number in range(SENTENCES))
        (self.folder / "text.txt").write_text(text)
        for name, hparams in SHAPES.items():
            models.write_description(self.folder / "models" / name, hparams)
        place = self.folder / "models" / "124M"
        if not (place / "checkpoint").exists():
            from gpt2cli.runtime import devices

            # Else TensorFlow would take all of the GPU's memory here, and keep it.
            devices.configure("cpu")
            models.write_model(place, deviation=0.02, hparams=SHAPES["124M"])

    def run(self, command: list[object], *, peer: bool = False, **variables: str) -> Outcome:
        """Runs a process to its end.

        Raises:
            FailedError: it failed, or took longer than is allowed.
        """
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | variables
        if peer:
            environment = {k: v for k, v in environment.items() if k not in OURS_ALONE}
        began = time.time()
        with peak_memory() as peak:
            try:
                done = subprocess.run(
                    list(map(str, command)),
                    cwd=self.folder,
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=self._seconds,
                )
            except subprocess.TimeoutExpired as error:
                raise FailedError(f"not done within {self._seconds:.0f} s") from error
        if done.returncode:
            raise FailedError(f"exit {done.returncode}: {done.stderr.strip()[-500:]}")
        return Outcome(done.stdout, began, peak[0])

    def peer(self, name: str, script: str, *options: object) -> Outcome:
        """Runs a peer's script.

        Raises:
            FailedError: there is no interpreter for it, or it failed.
        """
        if self.peers[name] is None:
            raise FailedError(f"no interpreter given (--{name})")
        return self.run([self.peers[name], PEERS / script, *options], peer=True)


@contextlib.contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Yields a list of one number, which becomes the card's memory in use at most (bytes)."""
    before, peak, done = used_memory(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(POLL_SECONDS):
            peak[0] = max(peak[0], used_memory() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def used_memory() -> float:
    """Returns the first GPU's memory in use (bytes); 0 where there is no GPU."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    with contextlib.suppress(OSError, ValueError, IndexError):
        told = subprocess.run(command, capture_output=True, text=True)
        return float(told.stdout.split()[0]) * 2**20
    return 0.0


def rate(marks: list[float], tokens: int) -> float:
    """Returns tokens/s over the later half of steps, of which each ended at a moment."""
    later = marks[len(marks) // 2 :]
    return tokens * (len(later) - 1) / (later[-1] - later[0])


def trained(
    bench: Bench, *options: object, batch: int = 8, accumulate: int = 1, size: str = "124M"
) -> Values:
    """Trains by the command line, from the model's weights, or from scratch where it has none."""
    run = bench.folder / "checkpoint" / "bench"
    shutil.rmtree(run, ignore_errors=True)
    scratch = () if size == "124M" else ("--restore-from", "scratch")
    outcome = bench.run(
        [
            *(sys.executable, "-m", "gpt2cli", "finetune", "text.txt", "--model-name", size),
            *("--run-name", run.name, "--steps", STEPS, "--batch-size", batch, "--device", "gpu"),
            *("--accumulate-gradients", accumulate, "--sample-every", 0, "--val-fraction", 0),
            *("--save-every", 0, "--seed", 1, "--offline", *scratch, *options),
        ]
    )
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    steps = [line for line in lines if line["event"] == "step"]
    shutil.rmtree(run)
    tokens = batch * accumulate * 1024
    # Steps are reported several at a time: only the first at the time it was done.
    return {
        "tokens/s": rate([step["seconds"] for step in steps], tokens),
        "first step, s": steps[0]["time"] - outcome.began,
        "peak, GB": outcome.peak / 1e9,
    }


def peer_trained(bench: Bench, *options: object, batch: int = 8, accumulate: int = 1) -> Values:
    """Trains by transformers."""
    outcome = bench.peer(
        *("torch", "pytorch.py", "train", "--device", "cuda", "--batch", batch),
        *("--accumulate", accumulate, "--steps", STEPS, *options),
    )
    told = json.loads(outcome.stdout.strip().splitlines()[-1])
    return {
        "tokens/s": rate(told["marks"][1:], batch * accumulate * 1024),
        "first step, s": told["marks"][1] - outcome.began,
        "peak, GB": outcome.peak / 1e9,
        "allocated, GB": told["allocated"] / 1e9,
    }


def keras_trained(bench: Bench, batch: int) -> Values:
    """Trains by KerasHub."""
    options = ("train", "--batch", batch, "--steps", STEPS // 4)
    outcome = bench.peer("keras", "hub.py", *options)
    marks = json.loads(outcome.stdout.strip().splitlines()[-1])["marks"]
    return {
        "tokens/s": rate(marks[1:], batch * 1024),
        "first step, s": marks[1] - outcome.began,
        "peak, GB": outcome.peak / 1e9,
    }


def written(bench: Bench, batch: int) -> Values:
    """Writes by the command line; each sample tells its seconds."""
    outcome = bench.run(
        [
            *(sys.executable, "-m", "gpt2cli", "generate", "--model-name", "124M", "--seed", 1),
            *("--length", LENGTH, "--ignore-eos", "--nsamples", batch * SAMPLES, "--device", "gpu"),
            *("--batch-size", batch, "--format", "jsonl", "--temperature", 0.7, "--offline"),
        ]
    )
    seconds = [json.loads(line)["seconds"] for line in outcome.stdout.splitlines()][::batch]
    return {"tokens/s": batch * LENGTH / min(seconds[1:]), "peak, GB": outcome.peak / 1e9}


def peer_written(bench: Bench, batch: int) -> Values:
    """Writes by transformers, in float16."""
    outcome = bench.peer(
        *("torch", "pytorch.py", "generate", "--device", "cuda", "--batch", batch),
        *("--length", LENGTH, "--steps", SAMPLES, "--prompt", 1),
    )
    whole = json.loads(outcome.stdout.strip().splitlines()[-1])["whole"]
    return {"tokens/s": batch * LENGTH / min(whole[1:]), "peak, GB": outcome.peak / 1e9}


def first_token(bench: Bench, *, cold: bool) -> Values:
    """Writes one token by the command line; what was compiled is forgotten first, or not."""
    cache = bench.folder / "cache"
    if cold:
        shutil.rmtree(cache, ignore_errors=True)
    began = time.time()
    command = [sys.executable, "-m", "gpt2cli", "generate", "--model-name", "124M", "--length", 1]
    bench.run([*command, "--device", "gpu", "--offline"], XDG_CACHE_HOME=str(cache))
    return {"whole command, s": time.time() - began}


def limits(bench: Bench) -> Values:
    """Measures the card itself by PyTorch: products of bfloat16, and copying its memory."""
    told: Values = json.loads(bench.peer("torch", "pytorch.py", "limits").stdout)
    return told


SAVING = ("--use-memory-saving-gradients",)
FRUGAL = (*SAVING, "--optimizer", "adafactor")
WORKS: dict[str, Callable[[Bench], Values]] = {
    "limits": limits,
    "train 8 x 1024 | gpt2cli": trained,
    "train 8 x 1024 | gpt2cli, second time": trained,
    "train 8 x 1024 | transformers, eager": peer_trained,
    "generate batch 1 | gpt2cli": lambda bench: written(bench, 1),
    "generate batch 1 | transformers": lambda bench: peer_written(bench, 1),
    "train 16 x 1024 | gpt2cli": lambda bench: trained(bench, batch=16),
    "train 16 x 1024 | transformers, eager": lambda bench: peer_trained(bench, batch=16),
    "train 1 x 1024 x 5 | gpt2cli": lambda bench: trained(bench, batch=1, accumulate=5),
    "train 1 x 1024 x 5 | transformers, eager": lambda bench: peer_trained(
        bench, batch=1, accumulate=5
    ),
    "train 8 x 1024 | gpt2cli, memory-saving": lambda bench: trained(bench, *SAVING),
    "generate batch 20 | gpt2cli": lambda bench: written(bench, 20),
    "generate batch 20 | transformers": lambda bench: peer_written(bench, 20),
    "first token, cold | gpt2cli": lambda bench: first_token(bench, cold=True),
    "first token, second time | gpt2cli": lambda bench: first_token(bench, cold=False),
    "train 8 x 1024 | transformers, torch.compile": lambda bench: peer_trained(bench, "--compile"),
    "train 774M, 1 x 1024 | gpt2cli, memory-saving, adafactor": lambda bench: trained(
        bench, *FRUGAL, batch=1, size="774M"
    ),
    "train 1558M, 1 x 1024 | gpt2cli, memory-saving, adafactor": lambda bench: trained(
        bench, *FRUGAL, batch=1, size="1558M"
    ),
    "train 8 x 1024 | KerasHub": lambda bench: keras_trained(bench, 8),
}


def main(arguments: list[str]) -> None:
    """Measures what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", help="interpreter with torch and transformers")
    parser.add_argument("--keras", help="interpreter with keras-hub")
    parser.add_argument("--seconds", type=float, default=90, help="limit of each process")
    parser.add_argument("--only", action="append", default=[], help="works so named")
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache" / "gpt2cli-bench")
    parser.add_argument("--json", type=Path, help="append each result there, as a line")
    settings = parser.parse_args(arguments)
    there = hardware.visible_gpus()
    if not there:
        raise SystemExit("There is no NVIDIA GPU here, or nvidia-smi does not say so.")
    print(f"{there[0].name}, driver {there[0].driver}", flush=True)
    bench = Bench(settings)
    for name, work in WORKS.items():
        if settings.only and not any(word in name for word in settings.only):
            continue
        try:
            found: Values | str = work(bench)
        except (FailedError, OSError, ValueError, LookupError) as error:
            found = f"failed: {error}"
        print(f"{name}: {told(found)}", flush=True)
        if settings.json:
            with settings.json.open("a") as file:
                file.write(json.dumps({"work": name, "found": found}) + "\n")


def told(found: Values | str) -> str:
    """Returns values for a person."""
    if isinstance(found, str):
        return found
    return ", ".join(f"{name} {value:.4g}" for name, value in found.items())
