"""Devices that train together: each on its share of a micro-batch, with gradients averaged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from gpt2cli.hparams import HParams
from gpt2cli.training.step import Recipe, Trainer

# Gradients travel in pieces of this size, so that the first are on their way while others wait,
# and few are held twice.
BYTES_PER_PACK = 50 * 2**20
# More places than any network drops activations at.
PLACES = 1 << 16


class Group(Trainer):
    """A trainer on each device of this process, which do as one.

    It is itself the first of them: its weights and slots are those that are saved.
    """

    def __init__(
        self, strategy: Any, weights: Mapping[str, Any], hparams: HParams, recipe: Recipe
    ) -> None:
        """Takes who trains together, the first device's variables, and how they are trained."""
        super().__init__(weights, hparams, recipe, averaged)
        self._strategy = strategy
        self._trainers: list[Trainer] = [self]
        for device in strategy.extended.worker_devices[1:]:
            with tf.device(device):
                copies = {name: copy(weight) for name, weight in weights.items()}
                self._trainers.append(Trainer(copies, hparams, recipe, averaged))
        self._alike = False
        self._everywhere = tf.function(self._everywhere_graph)

    def micro_batch(self, batch: Any, facts: tuple[Any, ...], *, first: bool, last: bool) -> Any:
        """Trains on a micro-batch, of which each device takes its share; as Trainer's."""
        if not self._alike:
            self._spread()
        size = len(batch) // self._strategy.num_replicas_in_sync

        def share(context: Any) -> Any:
            place = context.replica_id_in_sync_group * size
            return tf.constant(batch[place : place + size])

        shares = self._strategy.experimental_distribute_values_from_function(share)
        told = self._everywhere(shares, facts, first=first, last=last)
        return self._strategy.experimental_local_results(told)[0].numpy()

    def _everywhere_graph(
        self, shares: Any, facts: tuple[Any, ...], *, first: bool, last: bool
    ) -> Any:
        def on_device(tokens: Any) -> Any:
            number = replica_number()
            rate, step, seed = facts
            seed += tf.constant([0, number * PLACES])
            trainer = self._trainers[number % len(self._trainers)]
            value, norm = trainer.graph(tokens, rate, step, seed, first=first, last=last)
            return tf.stack([value, norm])

        return self._strategy.run(on_device, args=(shares,))

    def _spread(self) -> None:
        """Gives the other devices the optimiser's state that was loaded on the first."""
        for trainer in self._trainers[1:]:
            for name, slot in self.slots.items():
                trainer.slots[name].assign(slot.read_value())
        self._alike = True


def copy(weight: Any) -> Any:
    """Returns a variable of the same value on the device that is in force."""
    return tf.Variable(weight.read_value(), trainable=weight.trainable, name=weight.name[:-2])


def replica_number() -> int:
    """Returns which of all devices the present graph is of, from 0."""
    context = tf.distribute.get_replica_context()
    return int(tf.get_static_value(context.replica_id_in_sync_group))


def averaged(tensors: Any) -> Any:
    """Returns the means of tensors over all devices; to be called in a device's graph."""
    context = tf.distribute.get_replica_context()
    options = tf.distribute.experimental.CommunicationOptions(bytes_per_pack=BYTES_PER_PACK)
    # The gradient of looked-up rows names its rows; devices' rows would be strung together.
    tensors = tf.nest.map_structure(tf.convert_to_tensor, tensors)
    return context.all_reduce(tf.distribute.ReduceOp.MEAN, tensors, options)
