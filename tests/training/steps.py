"""Steps of a trainer, waited for."""

from __future__ import annotations

from typing import Any


def loss_of(trainer: Any, *given: Any) -> float:
    """Trains a step, as Trainer.step; returns its mean loss."""
    loss, _ = trainer.step(*given).fetch()
    return float(loss)
