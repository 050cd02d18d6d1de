"""What a step's checkpoint holds beside weights and optimiser state: state-STEP.json."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import typing
from pathlib import Path

from gpt2cli import json_reader, reading
from gpt2cli.chat_template import CHAT_TEMPLATE
from gpt2cli.errors import BadDataError, shortened
from gpt2cli.files import paths
from gpt2cli.json_reader import Json

FORMAT = 1
AVERAGE_DECAY = 0.99
MOST_NUMBER = 2**63 - 1


class UnfitError(BadDataError):
    """The run is whole, but not for this gpt2cli or not with these files; no older step is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class State:
    """What a step's checkpoint holds beside weights and optimiser state.

    Attributes:
        step: optimiser steps since the run began.
        seed: of the run's windows, samples and dropout.
        model_name: the base model that the run began with.
        corpus: hash of the token file that the run trains on.
        windows: windows already drawn from that corpus.
        loss_sum: sum of all losses, each times 0.99 for every step since.
        loss_weight: sum of those weights.
        optimizer: the optimiser whose state was saved.
        held_out: which windows the best validation loss is of.
        best_step: the step with the lowest loss of the validations that were due.
        best_loss: that loss (nats per token), or None if nothing was validated.
        since_best: validations that were due since then.
        val_step: the step that was validated last, or None.
        val_loss: its loss (nats per token), if it is known.
        end_step: a step at which training ended, and which was validated only for that reason,
            if its loss is lower than that of best_step; else 0.
        end_loss: that loss (nats per token).
        lora_rank: of the adapters that are trained; 0 if the weights themselves are.
        lora_alpha: adapters count alpha / rank.
        chat_template: how conversations are written that it was trained on, in Jinja; or empty.
    """

    step: int
    seed: int
    model_name: str
    corpus: str = ""
    windows: int = 0
    loss_sum: float = 0.0
    loss_weight: float = 0.0
    optimizer: str = "adam"
    held_out: str = ""
    best_step: int = 0
    best_loss: float | None = None
    since_best: int = 0
    val_step: int | None = None
    val_loss: float | None = None
    end_step: int = 0
    end_loss: float | None = None
    lora_rank: int = 0
    lora_alpha: float = 0.0
    chat_template: str = ""

    @property
    def average(self) -> float:
        """The moving average of the loss over all steps (nats per token)."""
        return self.loss_sum / self.loss_weight

    def after(self, loss: float, windows: int) -> State:
        """Returns the state one step later, which had this loss and drew `windows` windows."""
        return dataclasses.replace(
            self,
            step=self.step + 1,
            windows=self.windows + windows,
            loss_sum=self.loss_sum * AVERAGE_DECAY + loss,
            loss_weight=self.loss_weight * AVERAGE_DECAY + 1,
        )

    @property
    def lowest(self) -> tuple[int, float | None]:
        """The step with the lowest validation loss of all, and that loss (nats per token)."""
        if self.end_loss is not None:
            return self.end_step, self.end_loss
        return self.best_step, self.best_loss

    @property
    def own_loss(self) -> float | None:
        """The validation loss of this very step (nats per token), if it is known."""
        return self.val_loss if self.val_step == self.step else None

    def validated(self, loss: float, held_out: str, *, due: bool) -> State:
        """Returns the state after a validation; only losses of the same windows are compared.

        It is due if a run that never stopped would validate here. Only then it counts for
        patience: a run that ended and was continued must go on as if it never had.
        """
        judged = dataclasses.replace(self, held_out=held_out, val_step=self.step, val_loss=loss)
        known, end = (self.best_loss, self.end_loss) if self.held_out == held_out else (None, None)
        if not due and known is not None:
            if loss < min(known, known if end is None else end):
                return dataclasses.replace(judged, end_step=self.step, end_loss=loss)
            return judged
        if end is None or loss <= end:
            judged = dataclasses.replace(judged, end_step=0, end_loss=None)
        if known is None or loss < known:
            return dataclasses.replace(judged, best_step=self.step, best_loss=loss, since_best=0)
        return dataclasses.replace(judged, since_best=self.since_best + 1)


# What each field of a state may hold.
KINDS: dict[str, tuple[type, ...]] = {
    name: getattr(hint, "__args__", (hint,)) for name, hint in typing.get_type_hints(State).items()
}


def digest(record: dict[str, Json]) -> str:
    """Returns the SHA-256 of a state file's content, its own hash left out."""
    rest = {key: value for key, value in record.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_record(folder: Path, step: int) -> dict[str, Json]:
    """Returns all that a step's state file says; raises as `read_state` does."""
    path = paths.state(folder, step)
    where = shortened(path)
    try:
        record: dict[str, Json] = json_reader.parse(reading.content(path, reading.MOST_BYTES), "it")
    except BadDataError as error:
        raise BadDataError(f"{where} is damaged: {error}") from error
    if record.get("sha256") not in (None, digest(record)):
        raise BadDataError(f"{where} is damaged: its hash is not the one it holds.")
    check_kind(path, "format", record.get("format"), int)
    if record["format"] > FORMAT:
        raise UnfitError(
            f"{where} has format {record['format']}; this gpt2cli knows up to {FORMAT}. "
            "Upgrade gpt2cli, or give another --run-name."
        )
    check_kind(path, "step", record.get("step"), int)
    if record["step"] != step:
        raise BadDataError(f"{where} is damaged: it is the state of step {record['step']}.")
    for group in ("files", "static"):
        check_files(path, group, record.get(group, {} if group == "static" else None))
    return record


def check_files(path: Path, group: str, files: Json) -> None:
    """Raises BadDataError unless these are the sizes and hashes of files by their names."""
    check_kind(path, group, files, dict)
    for name, facts in files.items():
        check_kind(path, name, facts, dict)
        check_kind(path, name, facts.get("size"), int)
        check_kind(path, name, facts.get("sha256"), str)
        if Path(name).name != name or "\0" in name:
            raise BadDataError(
                f"{shortened(path)} is damaged: {shortened(repr(name))} is not beside it."
            )


def check_kind(path: Path, name: str, value: Json, *kinds: type) -> None:
    """Raises BadDataError unless a field's value is of one of the kinds, and no number too large.

    A whole number must not be negative, and one with a fraction must be finite.
    """
    fits = {
        int: type(value) is int and 0 <= value <= MOST_NUMBER,
        float: type(value) in (int, float) and abs(value) <= MOST_NUMBER**2,
    }
    if not any(fits.get(kind, type(value) is kind) for kind in kinds):
        what = f"{shortened(name)} is {shortened(repr(value))}"
        raise BadDataError(f"{shortened(path)} is damaged: {what}.")


def read_state(folder: Path, step: int) -> State:
    """Returns a step's state; raises UnfitError if its format is newer, BadDataError if damaged."""
    record, path = read_record(folder, step), paths.state(folder, step)
    # Before it was noted, a step was validated before it was saved.
    record.setdefault("val_step", step)
    fields = {}
    for field in dataclasses.fields(State):
        if field.name in record:
            check_kind(path, field.name, record[field.name], *KINDS[field.name])
            fields[field.name] = record[field.name]
        elif field.default is dataclasses.MISSING:
            raise BadDataError(f"{shortened(path)} is damaged: it lacks {field.name}.")
    if fields.get("chat_template", "") not in ("", CHAT_TEMPLATE):
        shown = shortened(fields["chat_template"], 60)
        raise UnfitError(
            f"{shortened(path)} has a chat template that this gpt2cli does not know: {shown}. "
            "Upgrade gpt2cli, or give another --run-name."
        )
    return State(**fields)
