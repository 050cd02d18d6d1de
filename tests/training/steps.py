"""Steps of a trainer, waited for."""

from __future__ import annotations

from typing import Any


def loss_of(trainer: Any, batches: Any, rate: float, step: int, seed: int) -> float:
    """Trains a step, as Trainer.step; returns its mean loss."""
    loss, _ = trainer.step(batches, rate, step=step, seed=seed).fetch()
    return float(loss)
