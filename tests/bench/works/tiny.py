"""The model that comes with gpt2cli."""

from __future__ import annotations

import dataclasses
import itertools
import json
import statistics

from tests.bench.processes import Bench, Run, Values, Work

RUN = "checkpoint/bench-tiny"
STEPS = 200


@dataclasses.dataclass(frozen=True)
class Tiny(Work):
    """`tiny` fine-tuned by a whole command, with the samples and validations that it makes."""

    def __str__(self) -> str:
        return f"finetune tiny, {STEPS} steps"

    def command(self, bench: Bench, steps: int, batch: int, *more: object) -> Values:
        """Trains windows of 256 tokens by the command line; nothing is left of it.

        The seconds are told of steps without more options alone.
        """
        bench.remove(RUN)
        outcome = bench.run(
            *("gpt2cli", "-m", "gpt2cli", "finetune", bench.text, "--model-name", "tiny"),
            *("--run-name", RUN.split("/")[1], "--steps", steps, "--batch-size", batch),
            *("--accumulate-gradients", 1, "--window", 256, "--seed", 1, *more),
        )
        lines = map(json.loads, (bench.folder / RUN / "log.jsonl").read_text().splitlines())
        ends = [line["time"] for line in lines if line["event"] == "step"]
        bench.remove(RUN)
        seconds = [after - before for before, after in itertools.pairwise(ends)]
        speed = batch * 256 / statistics.median(seconds)
        return {"tokens/s": speed} | ({} if more else {"whole command, s": outcome.seconds})

    def programs(self) -> dict[str, Run]:
        """Returns both shapes of step."""
        return {
            "gpt2cli, 1 x 256": lambda bench: self.command(bench, STEPS, 1),
            "gpt2cli, 16 x 256": lambda bench: self.command(
                bench, 30, 16, "--sample-every", 0, "--val-every", 0
            ),
        }
