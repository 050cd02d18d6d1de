"""What a run tells about itself: log.jsonl, config.json and the samples."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt2cli.errors import BadDataError, DiskError, OutputError
from gpt2cli.records import Notice, Record
from gpt2cli.storage import atomic

LOG = "log.jsonl"
BEST = "best.json"
CONFIG = "config.json"
# Far more than what a run writes between two steps.
TAIL_BYTES = 1 << 16


class Log:
    """A run's log.jsonl; where it cannot be written, training goes on and the log has a gap."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._told = False

    def note(self, record: Record) -> Iterator[Record]:
        """Appends a record: what it is, the time (seconds since 1970), its facts; yields it.

        The first time that this fails a notice is yielded too.
        """
        facts = {"event": record.event, "time": round(time.time(), 3), **dataclasses.asdict(record)}
        try:
            with atomic.disk_errors(self._folder):
                line = json.dumps(facts, ensure_ascii=False) + "\n"
                atomic.write(self._folder / LOG, line, "ab")
        except (DiskError, OutputError) as error:
            if not self._told:
                yield Notice(f"{error} The log has a gap; training goes on.")
            self._told = True
        yield record


def last_step(folder: Path) -> int:
    """Returns the last step that a run's log tells of; 0 where it tells of none.

    A line that a killed process did not finish is ended, so that the next one stands alone.
    """
    path = folder / LOG
    if not path.exists():
        return 0
    with atomic.disk_errors(folder):
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - TAIL_BYTES))
            tail = log.read()
        if tail and not tail.endswith(b"\n"):
            atomic.write(path, "\n", "ab")
    steps = re.findall(rb'^\{"event": "step".*"step": (\d+)', tail, re.MULTILINE)
    return int(steps[-1]) if steps else 0


@dataclasses.dataclass
class History:
    """A run's losses (nats per token) as its log tells them.

    Attributes:
        steps: the steps that were told, ascending.
        losses: their losses.
        averages: the moving averages at them.
        val_steps: the steps that were validated, ascending.
        val_losses: their validation losses.
    """

    steps: list[int] = dataclasses.field(default_factory=list)
    losses: list[float] = dataclasses.field(default_factory=list)
    averages: list[float] = dataclasses.field(default_factory=list)
    val_steps: list[int] = dataclasses.field(default_factory=list)
    val_losses: list[float] = dataclasses.field(default_factory=list)

    def add(self, record: dict[str, Any]) -> None:
        """Takes the next line of a log; steps that are trained again replace what they were."""
        step = record["step"]
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


def history(folder: Path) -> History:
    """Returns what a run's log tells of its losses; lines that are damaged are left out."""
    found = History()
    with contextlib.suppress(FileNotFoundError), (folder / LOG).open("rb") as log:
        for line in log:
            if line.startswith((b'{"event": "step"', b'{"event": "validation"')):
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    found.add(json.loads(line))
    return found


def write_config(folder: Path, settings: dict[str, Any]) -> None:
    """Writes the settings of this invocation as config.json."""
    with atomic.disk_errors(folder):
        atomic.write_whole(folder / CONFIG, json.dumps(settings, indent=1) + "\n")


def read_config(folder: Path) -> dict[str, Any]:
    """Returns the settings of a run's last invocation; none where they cannot be read."""
    try:
        settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}


def write_best(folder: Path, step: int, loss: float) -> None:
    """Writes which step had the lowest validation loss (nats per token) as best.json.

    Step 0 is what the run began with, and no checkpoint of it: then there is no such file.
    """
    with atomic.disk_errors(folder):
        if step == 0:
            atomic.remove(folder / BEST)
            return
        text = json.dumps({"step": step, "loss": loss}) + "\n"
        with contextlib.suppress(OSError, UnicodeError):
            if (folder / BEST).read_text(encoding="utf-8") == text:
                return
        atomic.write_whole(folder / BEST, text)


def best_step(folder: Path) -> int | None:
    """Returns the step with the lowest validation loss, or None where that is no trained step.

    Raises:
        BadDataError: best.json is damaged.
    """
    path = folder / BEST
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["step"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise BadDataError(f"{path} is damaged: {error!r}. Name a step by --checkpoint.") from error


def samples_file(folder: Path, step: int) -> Path:
    """Returns where a step's samples are."""
    return folder / "samples" / f"samples-{step}.txt"


def write_samples(folder: Path, step: int, text: str) -> None:
    """Writes a step's samples as `samples/samples-STEP.txt`."""
    path = samples_file(folder, step)
    with atomic.disk_errors(path):
        atomic.write_whole(path, text)
