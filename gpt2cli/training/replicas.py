"""Data-parallel training: each device takes its share of a micro-batch; gradients are averaged."""

from __future__ import annotations

import tensorflow as tf

from gpt2cli.arrays import Array, Tensor, Weights
from gpt2cli.hparams import HParams
from gpt2cli.training.backend import TrainingOptions
from gpt2cli.training.step import Trainer
from gpt2cli.training.step_graph import Numbers, Scalars

# An all-reduce sends gradients in packs of this size, so that the first are on their way while
# others wait, and few are held twice.
PACK_BYTES = 50 * 2**20
# Between CPUs packs that fit their caches are the fastest; larger tensors are split.
CPU_PACK_BYTES = 4 * 2**20
# More places than any network drops activations at.
PLACES = 1 << 16


class ReplicatedTrainer(Trainer):
    """A trainer with a replica on each device of this process.

    It is itself the first replica: its weights and slots are those that are saved.
    """

    def __init__(
        self, strategy: Tensor, weights: Weights, hparams: HParams, options: TrainingOptions
    ) -> None:
        super().__init__(weights, hparams, options, all_reduce_mean)
        self._strategy = strategy
        self.replica_count = strategy.num_replicas_in_sync
        self._replicas: list[Trainer] = [self]
        for device in strategy.extended.worker_devices[1:]:
            with tf.device(device):
                # A variable's own name ends in `:0`.
                copies = {
                    name: tf.Variable(w.read_value(), trainable=w.trainable, name=w.name[:-2])
                    for name, w in weights.items()
                }
                self._replicas.append(Trainer(copies, hparams, options, all_reduce_mean))
        self._has_spread = False
        self._on_all_replicas = tf.function(self._replicas_graph, autograph=False)

    def micro_batch(self, batch: Array, scalars: Scalars, *, first: bool, last: bool) -> Numbers:
        """Trains on a micro-batch, of which each replica takes its share; as Trainer's."""
        if not self._has_spread:
            self._spread_slots()
        size = len(batch) // self.replica_count

        def share(context: tf.distribute.InputContext) -> Tensor:
            """Returns a replica's part of the batch."""
            start = context.replica_id_in_sync_group * size
            return tf.constant(batch[start : start + size])

        shares = self._strategy.experimental_distribute_values_from_function(share)
        results = self._on_all_replicas(shares, scalars, first=first, last=last)
        loss, norm = tf.unstack(self._strategy.experimental_local_results(results)[0])
        return loss, norm

    def _replicas_graph(
        self, shares: Tensor, scalars: Scalars, *, first: bool, last: bool
    ) -> Tensor:
        def on_replica(tokens: Tensor) -> Tensor:
            """Trains on a replica's part, with random numbers of its own."""
            context = tf.distribute.get_replica_context()
            replica = int(tf.get_static_value(context.replica_id_in_sync_group))
            own = scalars._replace(seed=scalars.seed + tf.constant([0, replica * PLACES]))
            graph = self._replicas[replica % len(self._replicas)].graph
            loss, norm = graph.micro_batch(tokens, own, first=first, last=last)
            return tf.stack([loss, norm])

        return self._strategy.run(on_replica, args=(shares,))

    def _spread_slots(self) -> None:
        """Copies the optimiser state that was loaded on the first replica to the others."""
        for replica in self._replicas[1:]:
            for name, slot in self.slots.items():
                replica.slots[name].assign(slot.read_value())
        self._has_spread = True


def all_reduce_mean(tensors: Tensor) -> Tensor:
    """Returns the means of nested tensors over all replicas; to be called in a replica's graph."""
    on_gpu = bool(tf.config.list_logical_devices("GPU"))
    size = PACK_BYTES if on_gpu else CPU_PACK_BYTES
    options = tf.distribute.experimental.CommunicationOptions(bytes_per_pack=size)
    # The gradient of looked-up rows is sparse; those of several replicas would be concatenated.
    dense = [tf.convert_to_tensor(tensor) for tensor in tf.nest.flatten(tensors)]
    pieces = [[tensor] if on_gpu else split(tensor, size) for tensor in dense]
    context = tf.distribute.get_replica_context()
    flat = [piece for some in pieces for piece in some]
    reduced = iter(context.all_reduce(tf.distribute.ReduceOp.MEAN, flat, options))
    means = [tf.concat([next(reduced) for _ in some], axis=0) for some in pieces]
    return tf.nest.pack_sequence_as(tensors, means)


def split(tensor: Tensor, size: int) -> list[Tensor]:
    """Returns a tensor in pieces of about `size` bytes, split along its first axis."""
    total = tensor.shape.num_elements() * tensor.dtype.size
    if total <= size:
        return [tensor]
    rows = max(tensor.shape[0] * size // total, 1)
    return [tensor[start : start + rows] for start in range(0, tensor.shape[0], rows)]
