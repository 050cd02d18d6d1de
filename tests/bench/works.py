"""What is measured, of whom, and how: each work runs one whole process and reads its own marks."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench import environments

PEERS = Path(__file__).parent / "peers"
MODEL = "124M"
VOCAB = 50257
Values = dict[str, float]


class FailedError(Exception):
    """A program that is measured ended with an error; the others are measured all the same."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a process.

    Attributes:
        stdout: what it printed.
        began: when it was started (seconds since 1970).
        seconds: how long it ran.
        peak: its resident memory at most (bytes).
    """

    stdout: str
    began: float
    seconds: float
    peak: float

    def told(self) -> Any:
        """Returns the line of JSON that a peer's script ends with."""
        return json.loads(self.stdout.strip().splitlines()[-1])


@dataclasses.dataclass(frozen=True)
class Bench:
    """Where measuring happens.

    Attributes:
        folder: holds environments, models and runs.
        text: what is trained on.
        quick: whether to measure less.
    """

    folder: Path
    text: Path
    quick: bool

    @property
    def steps(self) -> int:
        """Optimiser steps, or samples, in a process."""
        return 3 if self.quick else 6

    def run(self, program: str, *arguments: object, **variables: str) -> Outcome:
        """Runs one process of a program's environment to its end."""
        python = environments.python(self.folder / "environments", program)
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_USE_LEGACY_KERAS": "1"}
        if program == "keras-hub":
            quiet.pop("TF_USE_LEGACY_KERAS")
        output, errors = self.folder / "stdout.txt", self.folder / "stderr.txt"
        began = time.time()
        with output.open("w") as out, errors.open("w") as err:
            process = subprocess.Popen(
                [python, *map(str, arguments)],
                stdout=out,
                stderr=err,
                cwd=self.folder,
                env=os.environ | quiet | variables,
            )
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.time() - began
        if status:
            raise FailedError(f"{program} failed: {errors.read_text()[-500:]}")
        return Outcome(output.read_text(), began, seconds, usage.ru_maxrss * 1024)

    def peer(self, script: str, program: str, *arguments: object, **variables: str) -> Outcome:
        """Runs a peer's script."""
        return self.run(program, PEERS / script, *arguments, **variables)


@dataclasses.dataclass(frozen=True)
class Training:
    """A shape of step to train."""

    batch: int
    window: int
    accumulate: int

    def __str__(self) -> str:
        times = f" x {self.accumulate}" if self.accumulate > 1 else ""
        return f"{self.batch} x {self.window}{times}"

    @property
    def tokens(self) -> int:
        """Tokens in a step."""
        return self.batch * self.window * self.accumulate

    def options(self, bench: Bench) -> list[object]:
        """Returns the options of a peer's script."""
        names = {**dataclasses.asdict(self), "steps": bench.steps}
        return [part for name, value in names.items() for part in (f"--{name}", value)]

    def values(self, outcome: Outcome, marks: list[float]) -> Values:
        """Returns what the moments tell at which steps ended; the first one is the start."""
        seconds = [after - before for before, after in itertools.pairwise(marks[1:])]
        return {
            "tokens/s": self.tokens / statistics.median(seconds),
            "first step, s": marks[1] - outcome.began,
            "peak, GB": outcome.peak / 1e9,
        }

    def gpt2cli(self, bench: Bench, *more: str) -> Values:
        """Trains by the command line; its log holds when each step ended."""
        run = bench.folder / "checkpoint" / f"bench-{time.time_ns()}"
        outcome = bench.run(
            *("gpt2cli", "-m", "gpt2cli", "finetune", bench.text, "--model-name", MODEL),
            *("--run-name", run.name, "--steps", bench.steps, "--batch-size", self.batch),
            *("--accumulate-gradients", self.accumulate, "--window", self.window),
            *("--sample-every", 0, "--val-every", 0, "--seed", 1, *more),
        )
        lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
        ends = [line["time"] for line in lines if line["event"] == "step"]
        subprocess.run(["rm", "-r", str(run)], check=True)
        return self.values(outcome, [outcome.began, *ends])

    def huggingface(self, bench: Bench) -> Values:
        """Trains by PyTorch."""
        outcome = bench.peer(
            "pytorch.py", "huggingface", "train", "--model", "hf", *self.options(bench)
        )
        return self.values(outcome, outcome.told()["marks"])

    def gpt_2_simple(self, bench: Bench) -> Values:
        """Trains by gpt-2-simple, whose windows are always whole."""
        folder = bench.folder / "simple"
        outcome = bench.peer(
            *("simple.py", "gpt-2-simple"),
            *("train", "--model", f"models/{MODEL}", "--text", bench.text),
            *("--folder", folder, *self.options(bench)),
        )
        subprocess.run(["rm", "-rf", str(folder)], check=True)
        return self.values(outcome, outcome.told()["marks"])

    def keras_hub(self, bench: Bench, backend: str) -> Values:
        """Trains by KerasHub."""
        outcome = bench.peer(
            "hub.py", "keras-hub", "train", *self.options(bench), KERAS_BACKEND=backend
        )
        return self.values(outcome, outcome.told()["marks"])

    def programs(self) -> dict[str, Callable[[Bench], Values]]:
        """Returns who can train so, by name."""
        found: dict[str, Callable[[Bench], Values]] = {
            "gpt2cli": self.gpt2cli,
            "gpt2cli, memory-saving": lambda b: self.gpt2cli(b, "--use-memory-saving-gradients"),
            "Hugging Face": self.huggingface,
            "KerasHub, TensorFlow": lambda bench: self.keras_hub(bench, "tensorflow"),
            "KerasHub, JAX": lambda bench: self.keras_hub(bench, "jax"),
        }
        if self.window == 1024:
            found["gpt-2-simple"] = self.gpt_2_simple
        return found


@dataclasses.dataclass(frozen=True)
class Generation:
    """How many samples of how many tokens to write at once, after a prompt of so many."""

    batch: int
    length: int
    prompt: int = 1

    def __str__(self) -> str:
        return f"{self.length} tokens, batch {self.batch}, prompt {self.prompt}"

    def values(self, outcome: Outcome, first: list[float], whole: list[float]) -> Values:
        """Returns what calls for one token and for all tell; the first of each is left out."""
        once = statistics.median(first[1:])
        values = {"first token, s": once, "peak, GB": outcome.peak / 1e9}
        if self.length > 1:
            rest = statistics.median(whole[1:]) - once
            values["tokens/s"] = self.batch * (self.length - 1) / rest
        return values

    def gpt2cli(self, bench: Bench, *more: str) -> Values:
        """Writes by the command line; each sample tells its seconds."""
        times: list[list[float]] = []
        for length in (1, self.length):
            outcome = bench.run(
                *("gpt2cli", "-m", "gpt2cli", "generate", "--model-name", MODEL, "--seed", 1),
                *("--prefix", " a" * self.prompt, "--length", length, "--ignore-eos"),
                *("--nsamples", self.batch * bench.steps, "--batch-size", self.batch),
                *("--format", "jsonl", "--temperature", 1.0, *more),
            )
            lines = [json.loads(line) for line in outcome.stdout.splitlines()]
            times.append([line["seconds"] for line in lines[:: self.batch]])
        return self.values(outcome, *times)

    def huggingface(self, bench: Bench) -> Values:
        """Writes by PyTorch."""
        return self._script(bench, "pytorch.py", "huggingface", "hf")

    def gpt_2_simple(self, bench: Bench) -> Values:
        """Writes by gpt-2-simple."""
        return self._script(bench, "simple.py", "gpt-2-simple", f"models/{MODEL}")

    def _script(self, bench: Bench, script: str, program: str, model: str) -> Values:
        outcome = bench.peer(
            *(script, program),
            *("generate", "--model", model, "--batch", self.batch),
            *("--length", self.length, "--prompt", self.prompt, "--steps", bench.steps),
        )
        told = outcome.told()
        return self.values(outcome, told["first"], told["whole"])

    def llama_cpp(self, bench: Bench, precision: str) -> Values:
        """Writes by llama.cpp, which tells its speed itself."""
        outcome = bench.peer(
            *("llama.py", "llama.cpp"),
            *("generate", "--model", f"{precision}.gguf"),
            *("--length", self.length, "--steps", bench.steps),
            *("--threads", len(os.sched_getaffinity(0))),
        )
        rates = outcome.told()["rates"]
        return {"tokens/s": statistics.median(rates[1:]), "peak, GB": outcome.peak / 1e9}

    def programs(self) -> dict[str, Callable[[Bench], Values]]:
        """Returns who can write so, by name."""
        found: dict[str, Callable[[Bench], Values]] = {
            "gpt2cli": self.gpt2cli,
            "Hugging Face": self.huggingface,
            "gpt-2-simple": self.gpt_2_simple,
        }
        if self.batch == 1 and self.length > 1:
            for precision, option in (("float16", "float16"), ("q8_0", "int8")):
                found[f"gpt2cli, {option}"] = lambda b, o=option: self.gpt2cli(b, "--precision", o)  # type: ignore[misc]
                found[f"llama.cpp, {precision}"] = lambda b, p=precision: self.llama_cpp(b, p)  # type: ignore[misc]
            found["llama.cpp, float32"] = lambda bench: self.llama_cpp(bench, "float32")
        return found


@dataclasses.dataclass(frozen=True)
class Command:
    """A whole command, from its start to its end: 100 tokens written."""

    length: int = 100

    def __str__(self) -> str:
        return f"whole command, {self.length} tokens"

    def gpt2cli(self, bench: Bench, cache: Path) -> Values:
        """Writes by the command line."""
        outcome = bench.run(
            *("gpt2cli", "-m", "gpt2cli", "generate", "--model-name", MODEL),
            *("--length", self.length, "--ignore-eos", "--seed", 1),
            XDG_CACHE_HOME=str(cache),
        )
        return {"seconds": outcome.seconds}

    def cold(self, bench: Bench) -> Values:
        """Writes with nothing kept from a command before."""
        subprocess.run(["rm", "-rf", str(bench.folder / "cache")], check=True)
        return self.gpt2cli(bench, bench.folder / "cache")

    def peer(self, bench: Bench, script: str, program: str, model: str) -> Values:
        """Writes by a peer's script, called once."""
        outcome = bench.peer(
            *(script, program),
            *("generate", "--model", model, "--length", self.length),
            *("--steps", 0, "--once"),
        )
        return {"seconds": outcome.seconds}

    def programs(self) -> dict[str, Callable[[Bench], Values]]:
        """Returns who can write so, by name; the second call follows the first."""
        return {
            "gpt2cli": self.cold,
            "gpt2cli, second call": lambda b: self.gpt2cli(b, b.folder / "cache"),
            "Hugging Face": lambda b: self.peer(b, "pytorch.py", "huggingface", "hf"),
            "gpt-2-simple": lambda b: self.peer(b, "simple.py", "gpt-2-simple", f"models/{MODEL}"),
        }
