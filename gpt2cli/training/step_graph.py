"""What TensorFlow compiles of a step: a micro-batch's gradients, clipping, the update."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import tensorflow as tf

from gpt2cli.arrays import Tensor, Weights
from gpt2cli.hparams import LORA_A, LORA_B, HParams
from gpt2cli.network import gpt2, loss, xla_clusters
from gpt2cli.network.compiling import CompileMode
from gpt2cli.training import optimizers
from gpt2cli.training.backend import TrainingOptions
from gpt2cli.training.gradients import (
    Consume,
    Gradients,
    RecomputedBlocks,
    StoredActivations,
    half_squares,
)

HOST = "/CPU:0"
AllReduce = Callable[[Tensor], Tensor]
# A micro-batch's loss, and with a step's last one the norm of its gradient before clipping.
Numbers = tuple[Tensor, Tensor]
# The scale starts high, halves whenever a gradient overflows, and doubles after so long without.
FIRST_SCALE = 2.0**15
STEPS_TO_DOUBLE = 2000


class Scalars(NamedTuple):
    """What a step's micro-batches have in common, or nearly.

    Attributes:
        rate: the learning rate, a scalar.
        step: float32, which step this is, from 1.
        seed: int32 (2,), of the dropout; another one for each micro-batch.
        mean_count: float32, how many tokens count in a replica's micro-batch, on average.
    """

    rate: Tensor
    step: Tensor
    seed: Tensor
    mean_count: Tensor


class LossScale:
    """What the loss is multiplied by, so that float16 holds small gradients; 1 in other precisions.

    (Micikevicius et al. 2018, section 3.2.)

    Attributes:
        is_dynamic: whether it changes.
        slots: what is saved of it, by name.
    """

    def __init__(self, precision: str) -> None:
        self.is_dynamic = precision == "float16"
        self.value = tf.Variable(FIRST_SCALE if self.is_dynamic else 1.0)
        self._good_steps = tf.Variable(0.0)
        slots = {"loss_scale": self.value, "good_steps": self._good_steps}
        self.slots: dict[str, Tensor] = slots if self.is_dynamic else {}

    def update_if_finite(self, norm: Tensor, update: Callable[[], list[Tensor]]) -> list[Tensor]:
        """Runs the update unless a gradient overflowed, and moves the scale; returns operations."""

        def run() -> Tensor:
            """Updates, and doubles the scale after enough good steps."""
            done = update()
            doubled = self._good_steps.assign_add(1.0) >= STEPS_TO_DOUBLE
            self._good_steps.assign(tf.where(doubled, 0.0, self._good_steps))
            with tf.control_dependencies(done):
                return self.value.assign(tf.where(doubled, self.value * 2, self.value))

        def skip() -> Tensor:
            """Leaves the weights, and halves the scale."""
            self._good_steps.assign(0.0)
            return self.value.assign(self.value / 2)

        return [tf.cond(tf.math.is_finite(norm), run, skip)]


class StepGraph:
    """Builds the graph of a micro-batch over one replica's weights.

    Attributes:
        optimizer: the optimiser of the weights that are trained.
        begun: how many updates were begun, a variable.
        done: how many of them are done.
    """

    def __init__(
        self,
        weights: Weights,
        hparams: HParams,
        options: TrainingOptions,
        all_reduce: AllReduce | None,
    ) -> None:
        self._options, self._all_reduce = options, all_reduce
        trained = {name: weights[name] for name in trained_names(weights, options.blocks_only)}
        # On a GPU each operation is a launch: what is done to a block is one program.
        self._together = options.backend.mode is CompileMode.BLOCKS
        self._add = xla_clusters.program(add)
        optimizer = optimizers.OPTIMIZERS[options.optimizer]
        self.optimizer = optimizer(
            trained, weight_decay=options.weight_decay, together=self._together
        )
        self.scale = LossScale(options.precision)
        accumulated = trained if options.accumulate > 1 else {}
        self._sums = gpt2.to_variables((name, tf.zeros_like(w)) for name, w in accumulated.items())
        blocks = options.recompute or options.backend.mode is CompileMode.BLOCKS
        function = RecomputedBlocks if blocks else StoredActivations
        self._gradients = function(weights, hparams, tuple(trained), options)
        # On the CPU, so that they are known whatever became of the GPU.
        with tf.device(HOST):
            self.begun, self.done = tf.Variable(0.0), tf.Variable(0.0)

    def micro_batch(self, tokens: Tensor, scalars: Scalars, *, first: bool, last: bool) -> Numbers:
        """Trains on a micro-batch; with the last one of a step the weights change.

        The loss is the mean over its tokens, times their number by `mean_count`: of all
        micro-batches together it is the mean over the step's tokens.

        Tokens are int32 (batch, window + 1); negative ones do not count, see `batches.PADDING`.
        """
        if last and self._updates_early:
            return self._update_early(tokens, scalars, first=first)
        gradients: Gradients = {}
        halves: list[Tensor] = []

        def collect(found: Gradients, squares: Tensor) -> list[Tensor]:
            """Adds gradients to those before, and returns what must be done by then."""
            sums, squares = self._accumulate(found, squares, first=first, last=last)
            gradients.update(sums)
            if last and self._together and not self._all_reduce:
                halves.append(half_squares(sums.values()) if squares is None else squares)
            return list(sums.values()) if self._sums else []

        value = self._loss(tokens, scalars, collect)
        if not last:
            return self._all_reduce(value) if self._all_reduce else value, 0.0
        if self._all_reduce:
            value, gradients = self._all_reduce((value, gradients))
        norm = global_norm(gradients, halves) / self._multiple

        def update() -> list[Tensor]:
            """Changes the weights by the gradients, which are clipped."""
            scale = 1 / self._multiple
            if self._options.clip_norm:
                scale *= tf.minimum(self._options.clip_norm / norm, 1.0)
            return self.optimizer.update(gradients, scale, scalars.rate, scalars.step)

        with tf.control_dependencies([norm, count(self.begun, [norm])]):
            dynamic = self.scale.is_dynamic
            count(self.done, self.scale.update_if_finite(norm, update) if dynamic else update())
        return value, norm

    def _update_early(self, tokens: Tensor, scalars: Scalars, *, first: bool) -> Numbers:
        """Does the last micro-batch, and updates each weight as soon as its gradient is known."""
        squares: list[Tensor] = []
        updates: list[Tensor] = []

        def update(found: Gradients, known: Tensor) -> list[Tensor]:
            """Updates the weights whose gradients these are."""
            sums, known = self._accumulate(found, known, first=first, last=True)
            halves = [half_squares([g]) for g in sums.values()] if known is None else [known]
            squares.extend(halves)
            if not updates:
                updates.append(count(self.begun, list(sums.values())))
            with tf.control_dependencies(updates[:1]):
                scale = 1 / self._multiple
                done = self.optimizer.update(sums, scale, scalars.rate, scalars.step)
            updates.extend(done)
            return halves + done

        value = self._loss(tokens, scalars, update)
        count(self.done, updates)
        return value, tf.sqrt(2 * tf.add_n(squares)) / self._multiple

    def _loss(self, tokens: Tensor, scalars: Scalars, consume: Consume) -> Tensor:
        inputs = loss.seen_tokens(tokens[:, :-1])  # (batch, window)
        targets = tokens[:, 1:]  # (batch, window)
        # Exactly 1 if the tokens of all micro-batches count.
        weight = tf.reduce_sum(tf.cast(targets >= 0, tf.float32)) / scalars.mean_count
        scale = weight * self.scale.value
        return weight * self._gradients(inputs, targets, scalars.seed, scale, consume)

    @property
    def _multiple(self) -> Tensor:
        """How many times the mean gradient of a step the sums are."""
        return self._options.accumulate * self.scale.value

    @property
    def _updates_early(self) -> bool:
        """Whether a weight's update needs no other weight's gradient, so that few are held."""
        return not (self._options.clip_norm or self.scale.is_dynamic or self._all_reduce)

    def _accumulate(
        self, found: Gradients, squares: Tensor, *, first: bool, last: bool
    ) -> tuple[Gradients, Tensor]:
        """Returns the sums of some weights' gradients so far in this step, and their squares.

        Half the sum of the squares is None if it is not known.
        """
        if not self._sums:
            return found, squares
        kept = {name: self._sums[name] for name in found}
        if self._together and not first:
            halves = [
                self._add([kept[name] for name in names], [found[name] for name in names], last)
                for names in optimizers.by_block(list(found))
            ]
            sums = {name: tf.convert_to_tensor(variable) for name, variable in kept.items()}
            return sums, tf.add_n(halves) if last else None
        return {
            name: tf.convert_to_tensor(kept[name].assign(g) if first else kept[name].assign_add(g))
            for name, g in found.items()
        }, None


def global_norm(gradients: Gradients, halves: list[Tensor]) -> Tensor:
    """Returns the norm of all gradients, from half their squares' sums if there are any."""
    if halves:
        return tf.sqrt(2 * tf.add_n(halves))
    return tf.linalg.global_norm(list(gradients.values()))


def add(sums: list[Tensor], gradients: list[Tensor], last: bool) -> Tensor:
    """Adds gradients to variables; after the last ones returns half the sum of their squares."""
    for variable, gradient in zip(sums, gradients, strict=True):
        variable.assign_add(gradient)
    return half_squares(map(tf.convert_to_tensor, sums)) if last else None


def count(counter: Tensor, after: list[Tensor]) -> Tensor:
    """Adds one to a counter when other operations are done; returns the operation."""
    with tf.control_dependencies(after), tf.device(HOST):
        return counter.assign_add(1.0)


def trained_names(weights: Iterable[str], blocks_only: bool) -> list[str]:
    """Returns the names of the weights that are trained: only LoRA's, if there are any."""
    names = list(weights)
    adapters = [name for name in names if name.endswith((LORA_A, LORA_B))]
    return adapters or [n for n in names if not blocks_only or n.startswith("model/h")]
