"""Devices that train together: each on its share of a micro-batch, with gradients averaged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from gpt2cli.hparams import HParams
from gpt2cli.training.step import Recipe, Trainer

# Gradients travel together in packs of this size, so that the first are on their way while others
# wait, and few are held twice.
PACK_BYTES = 50 * 2**20
# Between CPUs what fits their caches travels fastest, and larger ones are cut.
CPU_PACK_BYTES = 4 * 2**20
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
        value, norm = tf.unstack(self._strategy.experimental_local_results(told)[0])
        return value, norm

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
    on_gpu = bool(tf.config.list_logical_devices("GPU"))
    size = PACK_BYTES if on_gpu else CPU_PACK_BYTES
    options = tf.distribute.experimental.CommunicationOptions(bytes_per_pack=size)
    # The gradient of looked-up rows names its rows; devices' rows would be strung together.
    whole = [tf.convert_to_tensor(tensor) for tensor in tf.nest.flatten(tensors)]
    pieces = [[tensor] if on_gpu else cut(tensor, size) for tensor in whole]
    context = tf.distribute.get_replica_context()
    every = [piece for some in pieces for piece in some]
    travelled = iter(context.all_reduce(tf.distribute.ReduceOp.MEAN, every, options))
    means = [joined([next(travelled) for _ in some]) for some in pieces]
    return tf.nest.pack_sequence_as(tensors, means)


def cut(tensor: Any, size: int) -> list[Any]:
    """Returns a tensor in pieces of about so many bytes, cut along its first axis."""
    held = tensor.shape.num_elements() * tensor.dtype.size
    if held <= size:
        return [tensor]
    rows = max(tensor.shape[0] * size // held, 1)
    return [tensor[start : start + rows] for start in range(0, tensor.shape[0], rows)]


def joined(pieces: list[Any]) -> Any:
    """Returns a tensor that was cut, whole again."""
    return pieces[0] if len(pieces) == 1 else tf.concat(pieces, axis=0)
