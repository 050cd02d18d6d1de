"""What follows from the step: the learning rate, and what is due."""

from __future__ import annotations

import math

from gpt2cli.config.finetune import OptimizerOptions

# Where the cosine ends, as a share of the highest rate (Hoffmann et al. 2022, section 3).
COSINE_FLOOR = 0.1


def learning_rate(step: int, how: OptimizerOptions, last: int | None) -> float:
    """Returns the learning rate of a step, from 1: it rises in the warm-up, then falls to `last`.

    linear falls to 0, cosine to a tenth; without a last step it stays at its peak.
    """
    if step <= how.warmup_steps:
        return how.learning_rate * step / how.warmup_steps
    if how.schedule == "constant" or last is None:
        return how.learning_rate
    done = min((step - how.warmup_steps) / max(last - how.warmup_steps, 1), 1.0)
    if how.schedule == "linear":
        return how.learning_rate * (1 - done)
    fall = (1 + math.cos(math.pi * done)) / 2
    return how.learning_rate * (COSINE_FLOOR + (1 - COSINE_FLOOR) * fall)


def is_due(step: int, period: int) -> bool:
    """Returns whether something that happens every `period` steps (0: never) happens now."""
    return period > 0 and step % period == 0
