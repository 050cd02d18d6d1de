"""What the verbs yield: small frozen records, each with the line that tells it to a person."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

Channel = Literal["text", "alert", "notice", "progress"]


@dataclasses.dataclass(frozen=True)
class Record:
    """Something that a command has done.

    Attributes:
        channel: `text` is what the user asked for and goes to stdout; `alert` is a line on
            stderr always; `notice` and `progress` are lines on stderr that `--quiet` leaves out.
        event: what a run's log.jsonl calls it.
    """

    channel: ClassVar[Channel] = "notice"
    event: ClassVar[str] = "notice"

    def __str__(self) -> str:
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Notice(Record):
    """A line about what happens, or about what was found."""

    message: str

    def __str__(self) -> str:
        return self.message


@dataclasses.dataclass(frozen=True)
class Alert(Notice):
    """A line about work that is lost, or about something that is not as it was asked for."""

    channel: ClassVar[Channel] = "alert"


@dataclasses.dataclass(frozen=True)
class Text(Record):
    """A piece of what the user asked for; nothing is added to it."""

    channel: ClassVar[Channel] = "text"
    text: str

    def __str__(self) -> str:
        return self.text


@dataclasses.dataclass(frozen=True)
class Progress(Record):
    """A line that only somebody who watches wants to read."""

    channel: ClassVar[Channel] = "progress"
    message: str

    def __str__(self) -> str:
        return self.message


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepReport(Record):
    """One optimiser step of a run.

    Attributes:
        seconds: since this command began to train.
        loss: mean over the step's tokens (nats per token).
        average: moving average of the loss over all steps of the run (nats per token).
        rate: the learning rate.
        norm: the global norm of the gradient, before it was clipped.
        speed: tokens trained on a second, in this step.
    """

    channel: ClassVar[Channel] = "progress"
    event: ClassVar[str] = "step"
    step: int
    seconds: float
    loss: float
    average: float
    rate: float = 0.0
    norm: float = 0.0
    speed: float = 0.0

    def __str__(self) -> str:
        return f"[{self.step} | {self.seconds:.2f}] loss={self.loss:.2f} avg={self.average:.2f}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Validation(Record):
    """The loss over the validation windows, after a step of a run.

    Attributes:
        seconds: since this command began to train.
        loss: mean over the validation tokens (nats per token).
        perplexity: e to the power of the loss.
        accuracy: the share of tokens that were the likeliest one (0 to 1).
    """

    channel: ClassVar[Channel] = "progress"
    event: ClassVar[str] = "validation"
    step: int
    seconds: float
    loss: float
    perplexity: float
    accuracy: float

    def __str__(self) -> str:
        others = f"perplexity={self.perplexity:.2f} accuracy={self.accuracy:.3f}"
        return f"[{self.step} | {self.seconds:.2f}] val_loss={self.loss:.4f} {others}"


@dataclasses.dataclass(frozen=True)
class Saved(Record):
    """A checkpoint that is complete on disk."""

    event: ClassVar[str] = "save"
    step: int
    path: str

    def __str__(self) -> str:
        return f"saved step {self.step}: {self.path}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stopped(Alert):
    """A signal ended the command in good order; it exits with 128 more than its number."""

    event: ClassVar[str] = "stop"
    signal: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample(Record):
    """What the model writes in the middle of training: a step's samples, numbered from 1."""

    channel: ClassVar[Channel] = "text"
    event: ClassVar[str] = "sample"
    step: int
    number: int
    text: str

    def __str__(self) -> str:
        return f"======== SAMPLE {self.number} ========\n{self.text}\n"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported(Record):
    """A model that is complete on disk in another program's format; its size is in bytes."""

    event: ClassVar[str] = "export"
    path: str
    kind: str
    precision: str
    size: int

    def __str__(self) -> str:
        return f"exported {self.path}: {self.kind}, {self.precision}, {self.size / 1e6:,.1f} MB"
