"""Two processes on two cores, beside one process that has both."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import statistics
import subprocess
from pathlib import Path

from gpt2cli.hparams import HParams
from tests import models
from tests.bench.environments import FailedError
from tests.bench.processes import Bench, Run, Values, Work
from tests.distributed.workers import free_ports

# About 42 million weights.
SHAPE = HParams(n_vocab=50257, n_ctx=1024, n_embd=448, n_head=7, n_layer=8)
NAME, RUN = "40M", "checkpoint/bench-scaling"
WORKERS = 2
SECONDS = 900


@dataclasses.dataclass(frozen=True)
class Scaling(Work):
    """The same steps of 2 x 1024 by one process, and by two workers on a core each."""

    window: int = 1024

    def __str__(self) -> str:
        return f"scale {SHAPE.count() / 1e6:.0f}M, {WORKERS} x {self.window}"

    def command(self, bench: Bench) -> list[str]:
        """Returns the command of every process."""
        steps = max(bench.steps, 4)
        words = [bench.python("gpt2cli"), "-m", "gpt2cli", "finetune", bench.text]
        words += ["--model-name", NAME, "--run-name", Path(RUN).name, "--multi-gpu"]
        words += ["--steps", steps, "--batch-size", WORKERS, "--window", self.window]
        words += ["--accumulate-gradients", 1, "--sample-every", 0, "--val-every", 0, "--seed", 1]
        return [str(word) for word in words]

    def values(self, bench: Bench) -> Values:
        """Returns what the log of the run tells, the first step left out; removes the run."""
        lines = map(json.loads, (bench.folder / RUN / "log.jsonl").read_text().splitlines())
        ends = [line["time"] for line in lines if line["event"] == "step"]
        bench.remove(RUN)
        seconds = [after - before for before, after in itertools.pairwise(ends)]
        return {"tokens/s": WORKERS * self.window / statistics.median(seconds)}

    def prepare(self, bench: Bench) -> None:
        """Makes the model, where it is not there."""
        folder = bench.folder / "models" / NAME
        if not (folder / "checkpoint").exists():
            models.write_model(folder, SHAPE, deviation=0.02)
        bench.remove(RUN)

    def alone(self, bench: Bench) -> Values:
        """Trains by one process that may use as many cores as there are workers."""
        self.prepare(bench)
        cores = ",".join(map(str, self.cores()))
        bench.measured(["taskset", "-c", cores, *self.command(bench)])
        return self.values(bench)

    def together(self, bench: Bench) -> Values:
        """Trains by workers on loopback, each on a core of its own."""
        self.prepare(bench)
        addresses = [f"127.0.0.1:{port}" for port in free_ports(WORKERS)]
        processes = []
        for number, core in enumerate(self.cores()):
            task = {"type": "worker", "index": number}
            facts = {"cluster": {"worker": addresses}, "task": task}
            with (bench.folder / f"worker{number}.txt").open("w") as log:
                process = subprocess.Popen(
                    ["taskset", "-c", str(core), *self.command(bench)],
                    cwd=bench.folder,
                    env=os.environ | {"TF_CONFIG": json.dumps(facts)},
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                )
            processes.append(process)
        try:
            codes = [process.wait(SECONDS) for process in processes]
        finally:
            for process in processes:
                process.kill()
        if any(codes):
            raise FailedError((bench.folder / "worker0.txt").read_text()[-500:])
        return self.values(bench)

    def cores(self) -> list[int]:
        """Returns a core for each worker.

        Raises:
            FailedError: there are too few.
        """
        found = sorted(os.sched_getaffinity(0))[:WORKERS]
        if len(found) < WORKERS:
            raise FailedError(f"{WORKERS} workers need as many cores")
        return found

    def programs(self) -> dict[str, Run]:
        """Returns one process, and several."""
        return {"one process": self.alone, f"{WORKERS} workers": self.together}
