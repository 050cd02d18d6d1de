"""What a step's checkpoint holds beside weights and optimiser state: state-STEP.json."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from gpt2cli.errors import BadDataError
from gpt2cli.storage import folders

FORMAT = 1
AVERAGE_DECAY = 0.99


class UnfitError(BadDataError):
    """The run is whole, but not for this gpt2cli or not with these files; no older step is."""


@dataclasses.dataclass(frozen=True)
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
        best_loss: that loss (nats per token), or None where nothing was validated.
        since_best: validations that were due since then.
        val_step: the step that was validated last, or None.
        val_loss: its loss (nats per token), where it is known.
        end_step: a step at which training ended, and which was validated for that reason alone,
            where its loss is lower than that of best_step; else 0.
        end_loss: that loss (nats per token).
        lora_rank: of the adapters that are trained; 0 where the weights themselves are.
        lora_alpha: adapters count alpha / rank.
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

    @property
    def average(self) -> float:
        """The moving average of the loss over all steps (nats per token)."""
        return self.loss_sum / self.loss_weight

    def after(self, loss: float, windows: int) -> State:
        """Returns the state one step later, which had this loss and drew so many windows."""
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
        """The validation loss of this very step (nats per token), where it is known."""
        return self.val_loss if self.val_step == self.step else None

    def validated(self, loss: float, held_out: str, *, due: bool) -> State:
        """Returns the state after a validation; losses are compared for the same windows alone.

        Args:
            loss: nats per token.
            held_out: which windows it is of.
            due: whether a run that never stopped would validate here. Only then it counts for
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


def digest(record: dict[str, Any]) -> str:
    """Returns the SHA-256 of a state file's content, its own hash left out."""
    rest = {key: value for key, value in record.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_record(folder: Path, step: int) -> dict[str, Any]:
    """Returns all that a step's state file says.

    Raises:
        UnfitError: it is of a newer format.
        BadDataError: it is damaged.
    """
    path = folders.state(folder, step)
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if record.get("sha256") not in (None, digest(record)):
            raise BadDataError(f"{path} is damaged: its hash is not the one it holds.")
        if record["format"] > FORMAT:
            raise UnfitError(
                f"{path} has format {record['format']}; this gpt2cli knows up to {FORMAT}. "
                "Upgrade gpt2cli, or give another --run-name."
            )
        if record["step"] != step:
            raise BadDataError(f"{path} is damaged: it is the state of step {record['step']}.")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadDataError(f"{path} is damaged: {error!r}.") from error
    return record


def read_state(folder: Path, step: int) -> State:
    """Returns a step's state.

    Raises:
        UnfitError: it is of a newer format.
        BadDataError: it is damaged.
    """
    record = read_record(folder, step)
    # Before it was noted, a step was validated before it was saved.
    record.setdefault("val_step", step)
    fields = {field.name for field in dataclasses.fields(State)}
    try:
        return State(**{name: value for name, value in record.items() if name in fields})
    except TypeError as error:
        raise BadDataError(f"{folders.state(folder, step)} is damaged: {error}.") from error
