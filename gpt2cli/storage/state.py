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
        best_step: the step with the lowest validation loss.
        best_loss: that loss (nats per token), or None where nothing was validated.
        since_best: validations since then.
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

    def validated(self, loss: float, held_out: str) -> State:
        """Returns the state after a validation; a best loss counts for the same windows alone."""
        known = self.best_loss if self.held_out == held_out else None
        if known is None or loss < known:
            return dataclasses.replace(
                self, held_out=held_out, best_step=self.step, best_loss=loss, since_best=0
            )
        return dataclasses.replace(self, since_best=self.since_best + 1)


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
    fields = {field.name for field in dataclasses.fields(State)}
    try:
        return State(**{name: value for name, value in record.items() if name in fields})
    except TypeError as error:
        raise BadDataError(f"{folders.state(folder, step)} is damaged: {error}.") from error
