"""What a run tells about itself: log.jsonl, config.json and the samples."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt2cli import json_reader, reading
from gpt2cli.errors import BadDataError, DiskError, OutputError, shortened
from gpt2cli.files import atomic
from gpt2cli.records import Alert, Record

LOG = "log.jsonl"
BEST = "best.json"
CONFIG = "config.json"
# Far more than what a run writes between two steps.
TAIL_BYTES = 1 << 16
# No step or loss reaches it, and sums of what is below are exact.
LARGEST = 1e15


class Log:
    """A run's log.jsonl; if it cannot be written, training goes on and the log has a gap."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._told = False

    def note(self, record: Record) -> Iterator[Record]:
        """Appends a record and the time (seconds since 1970); yields it, and a first failure."""
        facts = {"event": record.event, "time": round(time.time(), 3), **dataclasses.asdict(record)}
        try:
            with atomic.disk_errors(self._folder):
                line = json.dumps(facts, ensure_ascii=False) + "\n"
                atomic.write(self._folder / LOG, line, "ab")
        except (DiskError, OutputError) as error:
            if not self._told:
                yield Alert(f"{error} The log has a gap; training goes on.")
            self._told = True
        yield record


def last_step(folder: Path) -> int:
    """Returns the last step in a run's log; 0 if it has none.

    A line that a killed process did not finish is ended, so that the next one has its own.
    """
    path = folder / LOG
    tail = b""
    # If the log cannot be written, its first record reports that.
    with contextlib.suppress(OSError, BadDataError, OutputError):
        with reading.opened(path) as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - TAIL_BYTES))
            tail = log.read(TAIL_BYTES)
        if tail and not tail.endswith(b"\n"):
            atomic.write(path, "\n", "ab")
    steps = re.findall(rb'^\{"event": "step".*"step": (\d{1,15})\b', tail, re.MULTILINE)
    return int(steps[-1]) if steps else 0


@dataclasses.dataclass(kw_only=True)
class History:
    """What a run's log tells of its losses (nats per token); steps ascend."""

    steps: list[int] = dataclasses.field(default_factory=list)
    losses: list[float] = dataclasses.field(default_factory=list)
    averages: list[float] = dataclasses.field(default_factory=list)
    val_steps: list[int] = dataclasses.field(default_factory=list)
    val_losses: list[float] = dataclasses.field(default_factory=list)

    def add(self, record: dict[str, Any]) -> None:
        """Takes the next line of a log; steps that are trained again replace what they were.

        Raises ValueError if no run writes such a line.
        """
        step = record["step"]
        told = [record["loss"], *([record["average"]] if record["event"] == "step" else [])]
        numbers = all(type(value) in (int, float) and abs(value) < LARGEST for value in told)
        if not numbers or type(step) is not int or not 0 <= step < LARGEST:
            raise ValueError(f"{step!r}: {told!r}")
        if record["event"] == "step":
            while self.steps and self.steps[-1] >= step:
                del self.steps[-1], self.losses[-1], self.averages[-1]
            self.steps.append(step)
            self.losses.append(record["loss"])
            self.averages.append(record["average"])
        while self.val_steps and self.val_steps[-1] >= step:
            del self.val_steps[-1], self.val_losses[-1]
        if record["event"] == "validation":
            self.val_steps.append(step)
            self.val_losses.append(record["loss"])


def log_lines(folder: Path) -> Iterator[bytes]:
    """Yields the lines of a run's log, as far as it can be read."""
    with contextlib.suppress(OSError, BadDataError), reading.opened(folder / LOG) as log:
        while line := log.readline(TAIL_BYTES):
            yield line


def history(folder: Path) -> History:
    """Returns what a run's log tells of its losses; lines that are damaged are left out."""
    found = History()
    for line in log_lines(folder):
        if line.startswith((b'{"event": "step"', b'{"event": "validation"')):
            with contextlib.suppress(BadDataError, ValueError, KeyError):
                found.add(json_reader.parse(line, LOG))
    return found


def write_config(folder: Path, settings: dict[str, Any]) -> None:
    """Writes the settings of this invocation as config.json."""
    with atomic.disk_errors(folder):
        atomic.write_whole(folder / CONFIG, json.dumps(settings, indent=1) + "\n")


def read_config(folder: Path) -> dict[str, Any]:
    """Returns the settings of a run's last invocation; none if they cannot be read."""
    try:
        return json_reader.read(folder / CONFIG)
    except (OSError, BadDataError):
        return {}


def write_best(folder: Path, step: int, loss: float | None) -> None:
    """Writes which step had the lowest validation loss (nats per token; None: none) as best.json.

    Step 0 is what the run began with, and no checkpoint of it: then there is no such file.
    """
    if loss is None:
        return
    with atomic.disk_errors(folder):
        if step == 0:
            atomic.remove(folder / BEST)
            return
        text = json.dumps({"step": step, "loss": loss}) + "\n"
        with contextlib.suppress(OSError, BadDataError):
            if reading.content(folder / BEST) == text.encode():
                return
        atomic.write_whole(folder / BEST, text)


def best_step(folder: Path) -> int | None:
    """Returns the step with the lowest validation loss; None if best.json is not there."""
    path = folder / BEST
    try:
        step: object = json_reader.read(path).get("step")
        if type(step) is not int:
            shown = shortened(repr(step), 40)
            raise BadDataError(f"{shortened(path)}: its step is {shown}, not a number.")
        return step
    except FileNotFoundError:
        return None
    except BadDataError as error:
        raise BadDataError(f"{error} Name a step by --checkpoint.") from error


def samples_file(folder: Path, step: int) -> Path:
    """Returns where a step's samples are."""
    return folder / "samples" / f"samples-{step}.txt"


def write_samples(folder: Path, step: int, text: str) -> None:
    """Writes a step's samples as `samples/samples-STEP.txt`; a linked folder is not followed."""
    path = samples_file(folder, step)
    if path.parent.is_symlink():
        raise OutputError(f"{shortened(path.parent)} is a link; no samples are written into it.")
    with atomic.disk_errors(path):
        atomic.write_whole(path, text)
