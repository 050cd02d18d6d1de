"""The devices that train together: one, all GPUs of a machine, or those of several machines."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator

import tensorflow as tf
from tensorflow.python.eager import context as eager

from gpt2cli.arrays import Tensor
from gpt2cli.distributed.cluster import Cluster
from gpt2cli.distributed.rendezvous import Rendezvous
from gpt2cli.errors import TryLaterError
from gpt2cli.runtime import devices, hardware

# The largest number that an all-reduce compares.
MOST_VALUE = 65
# What TensorFlow raises if another process, or the connection to it, is gone.
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)
# How long TensorFlow's own joining may take, once all have said that they are ready: no longer than
# they are waited for, and long enough for those who are there.
JOIN_SECONDS, LEAST_JOIN_SECONDS = 40, 10
WITH_BARRIER = "cluster_register_with_barrier"


class ProcessGroup:
    """The devices that train together, of one process or several.

    Attributes:
        strategy: TensorFlow's; None: there is one device, and nothing is wrapped around it.
        is_single: whether this process has them all.
        is_chief: whether this process prints, validates and writes.
    """

    def __init__(self, strategy: Tensor = None, cluster: Cluster | None = None) -> None:
        self.strategy = strategy
        self.size: int = strategy.num_replicas_in_sync if strategy else 1
        self.is_single = cluster is None
        self.is_chief = cluster is None or cluster.is_chief
        self._sums = tf.function(self._sums_graph, autograph=False)

    def all_reduce_max(self, value: int) -> int:
        """Returns the largest of the processes' numbers, each from 0 to MOST_VALUE."""
        if self.is_single:
            return value
        with self.watched():
            each = self.strategy.experimental_distribute_values_from_function(
                lambda _context: tf.one_hot(value, MOST_VALUE + 1)
            )
            counts = self.strategy.experimental_local_results(self._sums(each))[0].numpy()
        return int(counts.nonzero()[0].max())

    def _sums_graph(self, each: Tensor) -> Tensor:
        def on_device(counts: Tensor) -> Tensor:
            """Adds up what the devices have."""
            context = tf.distribute.get_replica_context()
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(counts))

        return self.strategy.run(on_device, args=(each,))

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Turns TensorFlow's errors about a process that is gone into TryLaterError."""
        try:
            yield
        except tf.errors.OpError as error:
            # These operations report a worker that came back too soon as other errors.
            lost = isinstance(error, LOST) or "ollective op" in error.message
            if self.is_single or not lost:
                raise
            raise TryLaterError(f"Another worker is gone ({reason(error.message)}).") from error


def reason(message: str) -> str:
    """Returns what TensorFlow's message says of a process that is gone, in a line."""
    found = re.search(r"aborted by: ([^\n]+)", message)
    return (found[1] if found else message.strip().splitlines()[0])[:200].strip(" .:")


def local_group() -> ProcessGroup:
    """Returns all devices of this machine."""
    names = devices.device_names()
    if len(names) == 1:
        return ProcessGroup()
    # NCCL does not know parts of one GPU apart.
    parts = devices.device_count(devices.GPU_PARTS) > 1
    reduction = tf.distribute.ReductionToOneDevice() if parts else None
    return ProcessGroup(tf.distribute.MirroredStrategy(names, reduction))


def form(
    rendezvous: Rendezvous | None,
    minutes: float,
    stopped: Callable[[], int | None],
    *,
    shared: bool,
) -> ProcessGroup:
    """Returns the devices that train together, if several are to (`shared`), once all are there.

    Waits for other processes and raises as `Rendezvous.wait`, and TryLaterError if not all come, or
    another program has taken this one's port.
    """
    if not shared:
        return ProcessGroup()
    if rendezvous is None:
        return local_group()
    gpus = len(tf.config.get_visible_devices("GPU"))
    rendezvous.wait(hardware.describe_gpus(gpus), minutes, stopped)
    limit_joining(min(JOIN_SECONDS, max(LEAST_JOIN_SECONDS, minutes * 60)))
    try:
        return ProcessGroup(tf.distribute.MultiWorkerMirroredStrategy(), rendezvous.cluster)
    except (*LOST, tf.errors.UnknownError, tf.errors.InternalError) as error:
        raise TryLaterError(
            f"The workers do not find each other: {reason(error.message)}. Try again later."
        ) from error


def limit_joining(seconds: float) -> None:
    """Lets TensorFlow give up soon if a process that was there a moment ago does not join.

    While it waits it holds Python's lock, so that nothing here could end it: no signal, no thread.
    By itself it waits an hour, and the first process even for those who never came.
    """
    context = eager.context()
    configure = context.configure_coordination_service

    def configured(**known: object) -> None:
        """Configures the joining as TensorFlow does, but for the times."""
        configure(**known, cluster_register_timeout_in_ms=int(seconds * 1000))
        settings = context.coordination_service
        if hasattr(settings, WITH_BARRIER):
            setattr(settings, WITH_BARRIER, True)

    context.configure_coordination_service = configured
