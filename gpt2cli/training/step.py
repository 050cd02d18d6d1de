"""One optimiser step: micro-batches, gradients, clipping, update."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from gpt2cli.hparams import HParams
from gpt2cli.network import gpt2, lora
from gpt2cli.training import gradients, optimizers
from gpt2cli.training.method import WHOLE, Method

# How float16's loss scale goes (Micikevicius et al. 2018, section 3.2): it starts high, halves
# where a gradient overflows, and doubles after so many steps without.
FIRST_SCALE = 2.0**15
STEPS_TO_DOUBLE = 2000
HOST = "/CPU:0"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Attributes:
        optimizer: adam, adamw, adafactor or sgd.
        accumulate: micro-batches in a step.
        clip_norm: largest global norm of a step's gradient; 0: any.
        weight_decay: share of each matrix that decays at a learning rate of 1.
        dropout: share of activations to drop (0 to 1).
        precision: float32, bfloat16 or float16: what the network computes in.
        recompute: whether to save memory by computing each block twice.
        blocks_only: whether embeddings and the last norm stay as they are.
        method: how it is compiled, and who computes attention.
    """

    optimizer: str = "adam"
    accumulate: int = 1
    clip_norm: float = 0.0
    weight_decay: float = 0.0
    dropout: float = 0.0
    precision: str = "float32"
    recompute: bool = False
    blocks_only: bool = False
    method: Method = WHOLE


@dataclasses.dataclass(frozen=True)
class Pending:
    """A step that the device was given; its numbers are there once it is done.

    Attributes:
        losses: of each micro-batch.
        norm: the global norm of the gradient, before it was clipped.
    """

    losses: list[Any]
    norm: Any

    def fetch(self) -> tuple[float, float]:
        """Waits for the device; returns the mean loss (nats per token) and the norm."""
        return float(np.mean([float(loss) for loss in self.losses])), float(self.norm)


class Trainer:
    """Weights, their optimiser, and the compiled functions that change them.

    Attributes:
        weights: the model's variables, by name.
        optimizer: the optimiser of those that are trained.
        slots: what is saved beside the weights, by name.
    """

    def __init__(
        self,
        weights: Mapping[str, Any],
        hparams: HParams,
        recipe: Recipe,
        averaged: Callable[[Any], Any] | None = None,
    ) -> None:
        """Takes the variables to train, by OpenAI's names, and how.

        Args:
            weights: the variables.
            hparams: the model's shape.
            recipe: how it is trained.
            averaged: gives the means of tensors over all devices that train together, where there
                are others than this one.
        """
        self.weights = weights
        self._recipe = recipe
        self._averaged = averaged
        trained = {name: weights[name] for name in trained_names(weights, recipe.blocks_only)}
        kind = optimizers.OPTIMIZERS[recipe.optimizer]
        self.optimizer = kind(trained, weight_decay=recipe.weight_decay)
        self.slots = dict(self.optimizer.slots)
        self._scale = tf.Variable(FIRST_SCALE if recipe.precision == "float16" else 1.0)
        self._good_steps = tf.Variable(0.0)
        if recipe.precision == "float16":
            self.slots |= {"loss_scale": self._scale, "good_steps": self._good_steps}
        # Gradients of a step's micro-batches so far; without accumulation none are held.
        held = trained if recipe.accumulate > 1 else {}
        self._sums = gpt2.variables((name, tf.zeros_like(w)) for name, w in held.items())
        backward = gradients.Recomputed if recipe.recompute else gradients.Whole
        numerics = gradients.Numerics(recipe.dropout, tf.as_dtype(recipe.precision), recipe.method)
        self._gradients = backward(weights, hparams, tuple(trained), numerics)
        self._compiled = tf.function(self.graph, autograph=False)
        # Updates begun and done. On the CPU, so that they are known whatever became of the GPU.
        with tf.device(HOST):
            self._begun, self._done = tf.Variable(0.0), tf.Variable(0.0)

    @property
    def intact(self) -> bool:
        """Whether the weights are all of one step: no update was left half-way."""
        return bool(self._begun.numpy() == self._done.numpy())

    def step(
        self,
        batches: Any,
        rate: float,
        step: int,
        seed: int,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Pending | None:
        """Trains one step; the weights change with its last micro-batch, and not before.

        On a GPU this returns as soon as the device has been given its work.

        Args:
            batches: int32 (micro-batches, batch, window + 1); their gradients are averaged.
                Negative tokens are padding.
            rate: the learning rate.
            step: which step this is, from 1.
            seed: of the dropout.
            cancelled: asked before each micro-batch whether to give the step up.

        Returns:
            What becomes of it, or None if the step was given up.
        """
        losses: list[Any] = []
        norm: Any = 0.0
        for number, batch in enumerate(batches):
            if cancelled():
                return None
            # From the host to the device is a copy that nobody waits for; back it would be one.
            with tf.device(HOST):
                facts = (
                    tf.constant(rate, tf.float32),
                    tf.constant(step, tf.float32),
                    tf.constant(dropout_seed(seed, step, number)),
                )
            first, last = number == 0, number == len(batches) - 1
            loss, norm = self.micro_batch(batch, facts, first=first, last=last)
            losses.append(loss)
        return Pending(losses, norm)

    def micro_batch(self, batch: Any, facts: tuple[Any, ...], *, first: bool, last: bool) -> Any:
        """Trains on a micro-batch, int32 (batch, window + 1); returns its loss and the norm.

        Args:
            batch: the windows.
            facts: the rate, the step and the seed of the dropout, as `graph` takes them.
            first: whether it is the first one of the step.
            last: whether it is the last one, with which the weights change.
        """
        with tf.device(HOST):
            windows = tf.constant(batch)
        return self._compiled(windows, *facts, first=first, last=last)

    def graph(
        self, tokens: Any, rate: Any, step: Any, seed: Any, *, first: bool, last: bool
    ) -> Any:
        """Returns what a micro-batch is to do, for TensorFlow to compile; as `micro_batch`."""
        inputs = tf.maximum(tokens[:, :-1], 0)  # (batch, window)
        found: dict[str, Any] = {}
        halves: list[Any] = []
        updates: list[Any] = []

        def take(gradients: dict[str, Any]) -> list[Any]:
            known = {name: self._summed(name, g, first=first) for name, g in gradients.items()}
            if last and self._updates_at_once:
                lengths = [tf.nn.l2_loss(gradient) for gradient in known.values()]
                halves.extend(lengths)
                if not updates:
                    updates.append(self._counted(self._begun, list(known.values())))
                with tf.control_dependencies(updates[:1]):
                    done = self.optimizer.update(known, 1 / self._multiple, rate, step)
                updates.extend(done)
                return lengths + done
            found.update(known)
            return list(known.values()) if self._sums else []

        value = self._gradients(inputs, tokens[:, 1:], seed, self._scale, take)
        if not last:
            return self._averaged(value) if self._averaged else value, 0.0
        if self._updates_at_once:
            self._counted(self._done, updates)
            return value, tf.sqrt(2 * tf.add_n(halves)) / self._multiple
        if self._averaged:
            value, found = self._averaged((value, found))
        norm = tf.linalg.global_norm(list(found.values())) / self._multiple
        update = self._update_if_finite if self._recipe.precision == "float16" else self._update
        with tf.control_dependencies([norm, self._counted(self._begun, [norm])]):
            self._counted(self._done, update(found, norm, rate, step))
        return value, norm

    @staticmethod
    def _counted(count: Any, after: list[Any]) -> Any:
        """Adds one to a count once others are done; returns the operation."""
        with tf.control_dependencies(after), tf.device(HOST):
            return count.assign_add(1.0)

    @property
    def _multiple(self) -> Any:
        """How many times the mean gradient of a step the sums are."""
        return self._recipe.accumulate * self._scale

    @property
    def _updates_at_once(self) -> bool:
        """Whether a weight's update asks for no gradient but its own.

        Then no more gradients are held than those that are known together.
        """
        whole = self._recipe.clip_norm or self._recipe.precision == "float16" or self._averaged
        return not whole

    def _summed(self, name: str, gradient: Any, *, first: bool) -> Any:
        """Returns the sum of a gradient and those of the micro-batches before, which is kept."""
        if not self._sums:
            return gradient
        kept = self._sums[name]
        return tf.convert_to_tensor(kept.assign(gradient) if first else kept.assign_add(gradient))

    def _update(self, found: Mapping[str, Any], norm: Any, rate: Any, step: Any) -> list[Any]:
        """Updates the weights by the micro-batches' mean, at most as long as is allowed.

        Args:
            found: the sum of the micro-batches' gradients, times the loss scale.
            norm: the mean's global norm.
            rate: the learning rate.
            step: float32, which step this is.
        """
        scale = 1 / self._multiple
        if self._recipe.clip_norm:
            scale *= tf.minimum(self._recipe.clip_norm / norm, 1.0)
        return self.optimizer.update(found, scale, rate, step)

    def _update_if_finite(
        self, found: Mapping[str, Any], norm: Any, rate: Any, step: Any
    ) -> list[Any]:
        """Updates unless a gradient overflowed, and moves the loss scale."""

        def update() -> Any:
            done = self._update(found, norm, rate, step)
            doubled = self._good_steps.assign_add(1.0) >= STEPS_TO_DOUBLE
            self._good_steps.assign(tf.where(doubled, 0.0, self._good_steps))
            with tf.control_dependencies(done):
                return self._scale.assign(tf.where(doubled, self._scale * 2, self._scale))

        def skip() -> Any:
            self._good_steps.assign(0.0)
            return self._scale.assign(self._scale / 2)

        return [tf.cond(tf.math.is_finite(norm), update, skip)]


def trained_names(weights: Iterable[str], blocks_only: bool) -> list[str]:
    """Returns the names of the weights that are trained: of adapters alone, where there are any."""
    names = list(weights)
    adapters = [name for name in names if lora.is_trained(name)]
    return adapters or [n for n in names if not blocks_only or n.startswith("model/h")]


def dropout_seed(seed: int, step: int, micro_batch: int) -> Any:
    """Returns int32 (2,): another one for each micro-batch of each step of each seed."""
    generator = np.random.Philox(key=np.array([seed, step], np.uint64)).random_raw(micro_batch + 1)
    return np.array([int(generator[-1]) & 0x7FFFFFFF, 0], np.int32)
