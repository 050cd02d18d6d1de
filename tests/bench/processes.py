"""Whole processes, one after the other, and what each of them took."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench import environments
from tests.bench.environments import FailedError

PEERS = Path(__file__).parent / "peers"
MODEL = "124M"
Values = dict[str, float]


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
        english: a text to encode.
        corpus: a large one.
        quick: whether to measure less.
    """

    folder: Path
    text: Path
    english: Path
    corpus: Path
    quick: bool

    @property
    def steps(self) -> int:
        """Optimiser steps, or samples, in a process."""
        return 3 if self.quick else 6

    def python(self, program: str) -> Path:
        """Returns the interpreter of a program's environment."""
        return environments.python(self.folder / "environments", program)

    def run(self, program: str, *arguments: object, **variables: str) -> Outcome:
        """Runs one process of a program's environment to its end.

        Raises:
            FailedError: it ended with an error.
        """
        command = [str(self.python(program)), *map(str, arguments)]
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_USE_LEGACY_KERAS": "1"}
        if program == "keras-hub":
            quiet.pop("TF_USE_LEGACY_KERAS")
        return self.measured(command, quiet | variables)

    def measured(self, command: list[str], variables: dict[str, str] | None = None) -> Outcome:
        """Runs any command to its end.

        Raises:
            FailedError: it ended with an error.
        """
        output, errors = self.folder / "stdout.txt", self.folder / "stderr.txt"
        began = time.time()
        with output.open("w") as out, errors.open("w") as err:
            process = subprocess.Popen(
                command,
                stdout=out,
                stderr=err,
                cwd=self.folder,
                env=os.environ | (variables or {}),
            )
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.time() - began
        if status:
            raise FailedError(f"{command[:3]} failed: {errors.read_text()[-500:]}")
        return Outcome(output.read_text(), began, seconds, usage.ru_maxrss * 1024)

    def peer(self, script: str, program: str, *arguments: object, **variables: str) -> Outcome:
        """Runs a peer's script."""
        return self.run(program, PEERS / script, *arguments, **variables)

    def remove(self, *names: str) -> None:
        """Removes folders and files that a process left in the bench's folder."""
        subprocess.run(["rm", "-rf", *(str(self.folder / name) for name in names)], check=True)


Run = Callable[[Bench], Values]


class Work:
    """Something that several programs can do, and that is measured.

    Each work is a frozen dataclass; `str` names it.
    """

    def programs(self) -> dict[str, Run]:
        """Returns who can do it, by name; the others are compared with the first."""
        raise NotImplementedError

    def limit(self, machine: Values) -> Values:
        """Returns the best values that the machine would allow, as far as they can be told."""
        return {}
