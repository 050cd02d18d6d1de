"""Whole commands from their start to their end, and what it takes to begin at all."""

from __future__ import annotations

import dataclasses
import statistics
import subprocess
from pathlib import Path

from tests.bench.processes import MODEL, Bench, Run, Values, Work


@dataclasses.dataclass(frozen=True)
class Command(Work):
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

    def programs(self) -> dict[str, Run]:
        """Returns who can write so, by name; the second call follows the first."""
        return {
            "gpt2cli": self.cold,
            "gpt2cli, second call": lambda b: self.gpt2cli(b, b.folder / "cache"),
            "Hugging Face": lambda b: self.peer(b, "pytorch.py", "huggingface", "hf"),
            "gpt-2-simple": lambda b: self.peer(b, "simple.py", "gpt-2-simple", f"models/{MODEL}"),
        }


@dataclasses.dataclass(frozen=True)
class Import(Work):
    """The least that each program does at its start."""

    times: int = 3

    def __str__(self) -> str:
        return "start"

    def seconds(self, bench: Bench, program: str, *arguments: str) -> Values:
        """Runs Python several times, after once that does not count: it fills the disk's cache."""
        found = [bench.run(program, *arguments).seconds for _ in range(self.times + 1)]
        return {"seconds": statistics.median(found[1:])}

    def programs(self) -> dict[str, Run]:
        """Returns who can be started, by what is run."""
        return {
            "gpt2cli --help": lambda b: self.seconds(b, "gpt2cli", "-m", "gpt2cli", "--help"),
            "import tensorflow": lambda b: self.seconds(b, "gpt2cli", "-c", "import tensorflow"),
            "import torch, transformers": lambda b: self.seconds(
                b, "huggingface", "-c", "import torch, transformers"
            ),
            "import gpt_2_simple": lambda b: self.seconds(
                b, "gpt-2-simple", "-c", "import gpt_2_simple"
            ),
        }
