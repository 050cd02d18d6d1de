"""A checkpoint of 124M and its optimiser's state, as it comes onto the disk."""

from __future__ import annotations

import dataclasses
import itertools
import json
import statistics
import time

from tests.bench.environments import FailedError
from tests.bench.processes import MODEL, Bench, Run, Values, Work

RUN = "checkpoint/bench-save"
SAVES = 3


@dataclasses.dataclass(frozen=True)
class Saving(Work):
    """Weights and Adam's state of 124M (1.5 GB), synced; and as many bytes by dd."""

    def __str__(self) -> str:
        return f"save {MODEL} with Adam"

    def gpt2cli(self, bench: Bench) -> Values:
        """Saves in training; the log tells when a step ended, and when it was saved."""
        bench.remove(RUN)
        bench.run(
            *("gpt2cli", "-m", "gpt2cli", "finetune", bench.text, "--model-name", MODEL),
            *("--run-name", RUN.split("/")[1], "--steps", SAVES, "--save-every", 1),
            *("--accumulate-gradients", 1, "--window", 8, "--no-xla", "--max-checkpoints", 1),
            *("--sample-every", 0, "--val-every", 0, "--seed", 1),
        )
        lines = (bench.folder / RUN / "log.jsonl").read_text().splitlines()
        events = [line for line in map(json.loads, lines) if line["event"] in ("step", "save")]
        seconds = [
            saved["time"] - stepped["time"]
            for stepped, saved in itertools.pairwise(events)
            if saved["event"] == "save"
        ]
        return self.values(bench, seconds)

    def dd(self, bench: Bench) -> Values:
        """Copies the same files and waits for the disk as often."""
        seconds = []
        for _ in range(SAVES):
            began = time.time()
            for name in self.files(bench):
                target = f"of={bench.folder / 'copied'}"
                bench.measured(["dd", f"if={name}", target, "bs=1M", "conv=fsync"])
            seconds.append(time.time() - began)
        values = self.values(bench, seconds)
        bench.remove("copied")
        return values

    def files(self, bench: Bench) -> list[str]:
        """Returns the files of the last save that hold weights and state.

        Raises:
            FailedError: there are none.
        """
        found = sorted(map(str, (bench.folder / RUN).glob(f"*-{SAVES}.data-*")))
        if not found:
            raise FailedError("gpt2cli has saved nothing that could be copied")
        return found

    def values(self, bench: Bench, seconds: list[float]) -> Values:
        """Returns the median of several saves."""
        size = sum((bench.folder / name).stat().st_size for name in self.files(bench))
        return {"seconds": statistics.median(seconds), "GB": size / 1e9}

    def programs(self) -> dict[str, Run]:
        """Returns who writes, by name; dd copies what gpt2cli has saved."""
        return {"gpt2cli": self.gpt2cli, "dd, fsync": self.dd}
