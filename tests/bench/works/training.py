"""Steps of training, of 124M's shape."""

from __future__ import annotations

import dataclasses
import itertools
import json
import statistics
import subprocess
import time

from tests.bench import bounds
from tests.bench.processes import MODEL, Bench, Outcome, Run, Values, Work
from tests.models import GPT2_124M


@dataclasses.dataclass(frozen=True)
class Training(Work):
    """A shape of step to train."""

    batch: int
    window: int
    accumulate: int

    def __str__(self) -> str:
        times = f" x {self.accumulate}" if self.accumulate > 1 else ""
        return f"train {self.batch} x {self.window}{times}"

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

    def limit(self, machine: Values) -> Values:
        """Returns the speed of the step's matrix products alone."""
        seconds = bounds.step_seconds(GPT2_124M, self.tokens, self.window, machine)
        return {"tokens/s": self.tokens / seconds}

    def programs(self) -> dict[str, Run]:
        """Returns who can train so, by name."""
        found: dict[str, Run] = {
            "gpt2cli": self.gpt2cli,
            "gpt2cli, memory-saving": lambda b: self.gpt2cli(b, "--use-memory-saving-gradients"),
            "Hugging Face": self.huggingface,
            "KerasHub, TensorFlow": lambda bench: self.keras_hub(bench, "tensorflow"),
            "KerasHub, JAX": lambda bench: self.keras_hub(bench, "jax"),
        }
        if self.window == 1024:
            found["gpt-2-simple"] = self.gpt_2_simple
        return found
