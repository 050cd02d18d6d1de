"""Adam, AdamW, Adafactor and SGD over named weights.

Each weight is updated on its own, one after another, so that no more than one weight's worth of
memory is taken beside the gradients.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from gpt2cli.arrays import Tensor, Weights
from gpt2cli.network import xla_clusters

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
# Shazeer & Stern 2018, section 9: ε₁, d and the exponent of β₂.
ADAFACTOR_EPSILON, ADAFACTOR_CLIP, ADAFACTOR_DECAY = 1e-30, 1.0, 0.8
# Share of a vector's mean square below which a square is only rounding: that of the keys' bias,
# which would else be made as long as the others, and differ from machine to machine.
ADAFACTOR_ROUNDING = 1e-10

Shape = tuple[int, ...]


class Optimizer:
    """Plain gradient descent, and what all share: `slots`, by `WEIGHT/SLOT`, last between steps."""

    def __init__(
        self, weights: Weights, *, weight_decay: float = 0.0, together: bool = False
    ) -> None:
        """Takes the variables to update, and the share of each matrix that decays at rate 1.

        If `together`, one XLA program updates the weights of a block: on a GPU each operation is a
        launch.
        """
        self._weights, self._weight_decay, self._together = weights, weight_decay, together
        self.slots: dict[str, Tensor] = {
            f"{name}/{slot}": tf.Variable(tf.zeros(shape), name=f"{name}/{slot}")
            for name, weight in weights.items()
            for slot, shape in self._slot_shapes(tuple(weight.shape)).items()
        }
        self._change_together = xla_clusters.program(self._as_program)

    @staticmethod
    def _slot_shapes(_shape: Shape) -> dict[str, Shape]:
        """Returns the shapes of the slots of a weight of this shape."""
        return {}

    def update(self, gradients: Weights, scale: Tensor, rate: Tensor, step: Tensor) -> list[Tensor]:
        """Changes some weights in place by one step; returns the operation that is done last.

        Gradients are float32, by the weights' names, and multiplied by the scale first. The others
        are float32 scalars; steps count from 1.
        """
        # The largest last: its temporaries reuse the memory that all others have freed.
        names = sorted(gradients, key=lambda name: gradients[name].shape.num_elements())
        groups = by_block(names) if self._together else [[name] for name in names]
        before: list[Tensor] = []
        for group in groups:
            change = self._change_together if len(group) > 1 else self._change_in_turn
            with tf.control_dependencies(before):
                before = change(
                    [self._weights[name] for name in group],
                    [self._slots_of(name) for name in group],
                    [gradients[name] for name in group],
                    (scale, rate, step),
                    tuple(bool(self._weight_decay) and decays(name) for name in group),
                )
        return before

    def _slots_of(self, name: str) -> list[Tensor]:
        shape = tuple(self._weights[name].shape)
        return [self.slots[f"{name}/{slot}"] for slot in self._slot_shapes(shape)]

    def _change_in_turn(
        self,
        weights: list[Tensor],
        slots: list[list[Tensor]],
        gradients: list[Tensor],
        scalars: tuple[Tensor, Tensor, Tensor],
        decayed: tuple[bool, ...],
    ) -> list[Tensor]:
        """Changes weights by their gradients; returns the operation that is done last.

        The scalars are as for `update`; `decayed` says to which weights the decay applies.
        """
        scale, rate, step = scalars
        before: list[Tensor] = []
        for weight, kept, gradient, decay in zip(weights, slots, gradients, decayed, strict=True):
            with tf.control_dependencies(before):
                if decay:
                    before = [weight.assign_sub(rate * self._weight_decay * weight)]
            with tf.control_dependencies(before):
                before = [self._apply(weight, kept, gradient * scale, rate, step)]
        return before

    def _as_program(self, *given: Any) -> list[Tensor]:
        """Does what `_change_in_turn` does; returns a tensor that is there when it is done."""
        with tf.control_dependencies(self._change_in_turn(*given)):
            return [tf.zeros([])]

    def _apply(
        self, weight: Tensor, _slots: list[Tensor], gradient: Tensor, rate: Tensor, _step: Tensor
    ) -> Tensor:
        """Changes one weight in place; returns the operation that does."""
        return tf.raw_ops.ResourceApplyGradientDescent(
            var=weight.handle, alpha=rate, delta=gradient
        )


def by_block(names: list[str]) -> list[list[str]]:
    """Returns weights' names, first those of each block together, then each other by itself."""
    blocks: dict[str, list[str]] = {}
    for name in names:
        place = name.split("/")[1] if name.startswith("model/h") else name
        blocks.setdefault(place, []).append(name)
    return sorted(blocks.values(), key=len, reverse=True)


def decays(name: str) -> bool:
    """Returns whether weight decay applies: to matrices and embeddings, not to biases and norms."""
    return not name.endswith(("/b", "/g"))


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015) by TensorFlow's fused kernel; with weight decay it is AdamW.

    The slots are the moving averages of the gradient (`Adam`) and of its square (`Adam_1`), as
    TensorFlow 1 named them. The decay is decoupled (Loshchilov & Hutter 2019).
    """

    @staticmethod
    def _slot_shapes(shape: Shape) -> dict[str, Shape]:
        return {"Adam": shape, "Adam_1": shape}

    def _apply(
        self, weight: Tensor, slots: list[Tensor], gradient: Tensor, rate: Tensor, step: Tensor
    ) -> Tensor:
        return tf.raw_ops.ResourceApplyAdam(
            var=weight.handle,
            m=slots[0].handle,
            v=slots[1].handle,
            beta1_power=tf.pow(BETA_1, step),
            beta2_power=tf.pow(BETA_2, step),
            lr=rate,
            beta1=BETA_1,
            beta2=BETA_2,
            epsilon=EPSILON,
            grad=gradient,
        )


class Adafactor(Optimizer):
    """Adafactor (Shazeer & Stern 2018) without momentum, at the learning rate that is given.

    The average of a matrix's squared gradient is kept as one number a row (`rows`) and one a
    column (`columns`); that of a vector whole (`squares`). Steps are not scaled by the weight's
    own size, as Hugging Face's `scale_parameter=False, relative_step=False`.
    """

    def __init__(
        self, weights: Weights, *, weight_decay: float = 0.0, together: bool = False
    ) -> None:
        super().__init__(weights, weight_decay=weight_decay, together=together)
        # Fused, a matrix's update takes no more memory than the matrix once.
        self._change = tf.function(adafactor_change, jit_compile=True, autograph=False)

    @staticmethod
    def _slot_shapes(shape: Shape) -> dict[str, Shape]:
        if len(shape) < 2:
            return {"squares": shape}
        return {"rows": shape[:-1], "columns": shape[:-2] + shape[-1:]}

    def _apply(
        self, weight: Tensor, slots: list[Tensor], gradient: Tensor, rate: Tensor, step: Tensor
    ) -> Tensor:
        fused = adafactor_change if xla_clusters.is_program() else self._change
        change, averages = fused(gradient, slots, step)
        kept = [slot.assign(value) for slot, value in zip(slots, averages, strict=True)]
        with tf.control_dependencies(kept):
            return weight.assign_sub(rate * change)


def adafactor_change(
    gradient: Tensor, averages: list[Tensor], step: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Returns what Adafactor subtracts at a learning rate of 1, and the averages that are new.

    They are those of the gradient's rows and of its columns, or for a vector of itself. Steps,
    float32, count from 1.
    """
    square = tf.square(gradient) + ADAFACTOR_EPSILON
    decay = 1 - tf.pow(step, -ADAFACTOR_DECAY)
    means = [square + ADAFACTOR_ROUNDING * tf.reduce_mean(square)]
    if len(averages) == 2:
        means = [tf.reduce_mean(square, axis=-1), tf.reduce_mean(square, axis=-2)]
    averages = [decay * old + (1 - decay) * new for old, new in zip(averages, means, strict=True)]
    whole = averages[0]
    if len(averages) == 2:
        rows, columns = averages
        shares = rows / tf.reduce_mean(rows, axis=-1, keepdims=True)
        whole = shares[..., None] * columns[..., None, :]
    change = gradient * tf.math.rsqrt(whole)
    length = tf.sqrt(tf.reduce_mean(tf.square(change)))
    return change / tf.maximum(length / ADAFACTOR_CLIP, 1.0), averages


OPTIMIZERS = {"adam": Adam, "adamw": Adam, "adafactor": Adafactor, "sgd": Optimizer}
