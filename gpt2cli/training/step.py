"""One optimiser step: its micro-batches, one after another on the device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from gpt2cli.arrays import Array, Weights
from gpt2cli.hparams import HParams
from gpt2cli.training.backend import TrainingOptions
from gpt2cli.training.step_graph import HOST, AllReduce, Numbers, Scalars, StepGraph


@dataclasses.dataclass(frozen=True, kw_only=True)
class PendingStep:
    """A step that the device works on: each micro-batch's numbers, and how many tokens count."""

    numbers: list[Numbers]
    count: int

    def fetch(self) -> tuple[float, float]:
        """Waits for the device; returns the mean loss (nats per token) and the norm.

        If no token counts, the loss is 0.
        """
        losses = [float(loss) for loss, _ in self.numbers]
        return float(np.mean(losses)), float(self.numbers[-1][1])


class Trainer:
    """Trains variables on one device.

    Attributes:
        graph: what TensorFlow compiles.
        slots: what is saved beside the weights, by name.
        replica_count: how many replicas share a micro-batch.
    """

    replica_count = 1

    def __init__(
        self,
        weights: Weights,
        hparams: HParams,
        options: TrainingOptions,
        all_reduce: AllReduce | None = None,
    ) -> None:
        """Takes the variables to train, by OpenAI's names, and how.

        `all_reduce` returns the means of tensors over all replicas; None: this is the only one.
        """
        self.weights = weights
        self.graph = StepGraph(weights, hparams, options, all_reduce)
        # TensorFlow writes no checkpoint without tensors, and plain SGD has none to save.
        slots = self.graph.optimizer.slots | self.graph.scale.slots
        self.slots = slots or {"no_state": tf.Variable(0.0)}
        self._compiled = tf.function(self.graph.micro_batch, autograph=False)

    @property
    def intact(self) -> bool:
        """Whether all weights are those of one step: no update was left half-way."""
        return bool(self.graph.begun.numpy() == self.graph.done.numpy())

    def step(
        self,
        batches: Array,
        rate: float,
        *,
        step: int,
        seed: int,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> PendingStep | None:
        """Trains one step, from 1; the weights change with its last micro-batch, and not before.

        On a GPU this returns as soon as the device has its work. The seed is that of the dropout.
        `cancelled` says before each micro-batch whether to give up the step, and return None.

        Batches are int32 (micro-batches, batch, window + 1). Every token weighs the same, but
        negative ones do not count in the loss, see `batches.PADDING`.
        """
        numbers: list[Numbers] = []
        count = int(np.count_nonzero(batches[:, :, 1:] >= 0))
        mean_count = max(count, 1) / (len(batches) * self.replica_count)
        for number, batch in enumerate(batches):
            if cancelled():
                return None
            # Nobody waits for a copy from the host to the device; back it would be waited for.
            with tf.device(HOST):
                scalars = Scalars(
                    tf.constant(rate, tf.float32),
                    tf.constant(step, tf.float32),
                    tf.constant(dropout_seed(seed, step, number)),
                    tf.constant(mean_count, tf.float32),
                )
            first, last = number == 0, number == len(batches) - 1
            numbers.append(self.micro_batch(batch, scalars, first=first, last=last))
        return PendingStep(numbers=numbers, count=count)

    def micro_batch(self, batch: Array, scalars: Scalars, *, first: bool, last: bool) -> Numbers:
        """Trains on a micro-batch, int32 (batch, window + 1), as StepGraph's."""
        with tf.device(HOST):
            windows = tf.constant(batch)
        loss, norm = self._compiled(windows, scalars, first=first, last=last)
        return loss, norm


def dropout_seed(seed: int, step: int, micro_batch: int) -> Array:
    """Returns int32 (2,): another one for each micro-batch of each step of each seed."""
    generator = np.random.Philox(key=np.array([seed, step], np.uint64)).random_raw(micro_batch + 1)
    return np.array([int(generator[-1]) & 0x7FFFFFFF, 0], np.int32)
