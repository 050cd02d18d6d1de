"""The loss scale that lets float16 hold small gradients (Micikevicius et al. 2018, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from gpt2cli.arrays import Tensor

# The scale starts high, halves whenever a gradient overflows, and doubles after so long without.
FIRST_SCALE = 2.0**15
STEPS_TO_DOUBLE = 2000


class LossScale:
    """What the loss is multiplied by; fixed at 1 unless the precision is float16.

    Attributes:
        value: the scale, a variable.
        is_dynamic: whether it changes.
        slots: what is saved of it, by name.
    """

    def __init__(self, precision: str) -> None:
        """Takes the type of matrix products."""
        self.is_dynamic = precision == "float16"
        self.value = tf.Variable(FIRST_SCALE if self.is_dynamic else 1.0)
        self._good_steps = tf.Variable(0.0)
        slots = {"loss_scale": self.value, "good_steps": self._good_steps}
        self.slots: dict[str, Tensor] = slots if self.is_dynamic else {}

    def update_if_finite(self, norm: Tensor, update: Callable[[], list[Tensor]]) -> list[Tensor]:
        """Runs the update unless a gradient overflowed, and moves the scale; returns operations."""

        def run() -> Tensor:
            done = update()
            doubled = self._good_steps.assign_add(1.0) >= STEPS_TO_DOUBLE
            self._good_steps.assign(tf.where(doubled, 0.0, self._good_steps))
            with tf.control_dependencies(done):
                return self.value.assign(tf.where(doubled, self.value * 2, self.value))

        def skip() -> Tensor:
            self._good_steps.assign(0.0)
            return self.value.assign(self.value / 2)

        return [tf.cond(tf.math.is_finite(norm), run, skip)]
