"""Texts of 124M, as fast as they come."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics

from tests.bench import bounds
from tests.bench.processes import MODEL, Bench, Outcome, Run, Values, Work
from tests.models import GPT2_124M


@dataclasses.dataclass(frozen=True)
class Generation(Work):
    """How many samples of how many tokens to write at once, after a prompt of so many."""

    batch: int
    length: int
    prompt: int = 1

    def __str__(self) -> str:
        if self.length == 1:
            return f"take in a prompt of {self.prompt} tokens"
        return f"generate {self.length} tokens, batch {self.batch}"

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
        for length in sorted({1, self.length}):
            outcome = bench.run(
                *("gpt2cli", "-m", "gpt2cli", "generate", "--model-name", MODEL, "--seed", 1),
                *("--prefix", " a" * self.prompt, "--length", length, "--ignore-eos"),
                *("--nsamples", self.batch * bench.steps, "--batch-size", self.batch),
                *("--format", "jsonl", "--temperature", 1.0, *more),
            )
            lines = [json.loads(line) for line in outcome.stdout.splitlines()]
            times.append([line["seconds"] for line in lines[:: self.batch]])
        # What the first token takes is taken off the whole, as it is with the others.
        return self.values(outcome, times[0], times[-1])

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

    def limit(self, machine: Values) -> Values:
        """Returns the speed of reading the weights in float32 once a token."""
        if self.batch > 1 or self.length == 1:
            return {}
        return {"tokens/s": 1 / bounds.token_seconds(GPT2_124M, machine)}

    def programs(self) -> dict[str, Run]:
        """Returns who can write so, by name."""
        found: dict[str, Run] = {
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
