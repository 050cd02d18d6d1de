"""What follows from the step: the learning rate, and what is due."""

from __future__ import annotations

import dataclasses
import math

# Where the cosine ends, as a share of the highest rate (Hoffmann et al. 2022, section 3).
COSINE_FLOOR = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """How the learning rate goes: up from 0 in the warm-up, then down to the last step.

    Attributes:
        kind: constant, linear (down to 0) or cosine (down to a tenth).
        rate: the highest learning rate.
        warmup: steps until it is reached.
        last: the step at which it has fallen as far as it will; None for constant.
    """

    kind: str
    rate: float
    warmup: int
    last: int | None

    def __call__(self, step: int) -> float:
        """Returns the learning rate of a step; steps count from 1."""
        if step <= self.warmup:
            return self.rate * step / self.warmup
        if self.kind == "constant" or self.last is None:
            return self.rate
        done = min((step - self.warmup) / max(self.last - self.warmup, 1), 1.0)
        if self.kind == "linear":
            return self.rate * (1 - done)
        fall = (1 + math.cos(math.pi * done)) / 2
        return self.rate * (COSINE_FLOOR + (1 - COSINE_FLOOR) * fall)


def is_due(step: int, period: int) -> bool:
    """Returns whether something that happens every `period` steps (0: never) happens now."""
    return period > 0 and step % period == 0
