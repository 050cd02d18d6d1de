"""Who trains together: one device, all GPUs of a machine, or those of several machines."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context as eager

from gpt2cli.arrays import Weights
from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.distributed.cluster import Cluster
from gpt2cli.distributed.rendezvous import Line
from gpt2cli.errors import TryLaterError
from gpt2cli.hparams import HParams
from gpt2cli.runtime import devices, hardware
from gpt2cli.training import replicas, setup
from gpt2cli.training.backend import Backend
from gpt2cli.training.options import TrainingOptions
from gpt2cli.training.step import Trainer

# What processes can say to each other between steps: to go on, a signal's number, or enough.
GO_ON, ENOUGH = 0, 65
# What TensorFlow raises if another process, or the connection to it, is gone.
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)
# How long TensorFlow's own joining may take, once all have said that they are ready.
JOIN_SECONDS = 40
WITH_BARRIER = "cluster_register_with_barrier"


class Team:
    """The devices that train together.

    Attributes:
        size: how many they are.
        `alone`: whether this process has them all.
        leads: whether this process tells, validates and writes.
    """

    def __init__(self, strategy: Any = None, cluster: Cluster | None = None) -> None:
        """Takes TensorFlow's strategy (None: one device, nothing wrapped around it), and who."""
        self._strategy = strategy
        self.size: int = strategy.num_replicas_in_sync if strategy else 1
        self.alone = cluster is None
        self.leads = cluster is None or cluster.leads
        self._sums = tf.function(self._sums_graph)

    def remarks(self, config: FinetuneConfig) -> Iterator[str]:
        """Yields a line on how the work is shared, if --multi-gpu asked for it."""
        if self._strategy is not None:
            share = config.batch_size // self.size
            yield f"together: {self.size} devices, {share} of each micro-batch's windows on each"
        elif config.is_shared:
            yield "--multi-gpu: there is only one device; it trains as without."

    def trainer(self, weights: Weights, hparams: HParams, options: TrainingOptions) -> Trainer:
        """Returns what trains these variables, on all devices."""
        if self._strategy is None:
            return Trainer(weights, hparams, options)
        return replicas.ReplicatedTrainer(self._strategy, weights, hparams, options)

    def agreed(self, word: int) -> int:
        """Returns the largest of the words that the processes say at this moment.

        Raises:
            TryLaterError: a process is gone.
        """
        if self.alone:
            return word
        with self.together():
            said = self._strategy.experimental_distribute_values_from_function(
                lambda _context: tf.one_hot(word, ENOUGH + 1)
            )
            counts = self._strategy.experimental_local_results(self._sums(said))[0].numpy()
        return int(counts.nonzero()[0].max())

    def _sums_graph(self, said: Any) -> Any:
        def on_device(words: Any) -> Any:
            context = tf.distribute.get_replica_context()
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(words))

        return self._strategy.run(on_device, args=(said,))

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Turns TensorFlow's errors about a process that is gone into ones that say so.

        Raises:
            TryLaterError: a process is gone.
        """
        try:
            yield
        except tf.errors.OpError as error:
            # These operations report a worker that came back too soon as other errors.
            lost = isinstance(error, LOST) or "ollective op" in error.message
            if self.alone or not lost:
                raise
            raise TryLaterError(f"Another worker is gone ({reason(error.message)}).") from error


def recipe(config: FinetuneConfig, how: Backend) -> TrainingOptions:
    """Returns how the config wants the model trained."""
    return TrainingOptions(
        optimizer=config.optimizer,
        accumulate=config.accumulate_gradients,
        clip_norm=config.clip_norm,
        weight_decay=config.weight_decay,
        dropout=config.dropout,
        precision=devices.resolve_precision(config.precision),
        recompute=config.use_memory_saving_gradients,
        blocks_only=config.only_train_transformer_layers,
        backend=how,
    )


def reason(message: str) -> str:
    """Returns what TensorFlow's message says of a process that is gone, in a line."""
    found = re.search(r"aborted by: ([^\n]+)", message)
    return (found[1] if found else message.strip().splitlines()[0])[:200].strip(" .:")


def gathered(
    config: FinetuneConfig,
    cluster: Cluster | None = None,
    line: Line | None = None,
    stopped: Callable[[], int | None] = lambda: None,
) -> Team:
    """Returns who trains as the config says.

    Args:
        config: the settings.
        cluster: the processes that train together, if there are others.
        line: what connects them.
        stopped: says which signal asks the command to leave, if one does.

    Raises:
        UsageError: a micro-batch cannot be shared evenly.
        BadDataError: a process has other devices.
        TryLaterError: a process went away before it began.
        Interrupted: a signal came before it began.
    """
    if not config.is_shared:
        return Team()
    if cluster is not None and line is not None:
        gpus = len(tf.config.get_visible_devices("GPU"))
        line.wait(hardware.describe_gpus(gpus), config.wait_minutes, stopped)
        team = Team(joined(), cluster)
    elif len(names := devices.device_names()) == 1:
        return Team()
    else:
        # NCCL does not know parts of one GPU apart.
        parts = devices.device_count(devices.GPU_PARTS) > 1
        reduction = tf.distribute.ReductionToOneDevice() if parts else None
        team = Team(tf.distribute.MirroredStrategy(names, reduction))
    setup.check_divisible(config.batch_size, team.size)
    return team


def joined() -> Any:
    """Returns TensorFlow's strategy for several machines, once all have come.

    Raises:
        TryLaterError: not all come, or another program has taken this one's port.
    """
    limit_joining()
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (*LOST, tf.errors.UnknownError, tf.errors.InternalError) as error:
        raise TryLaterError(
            f"The workers do not find each other: {reason(error.message)}. Try again later."
        ) from error


def limit_joining() -> None:
    """Lets TensorFlow give up soon if a process that was there a moment ago does not join.

    While it waits it holds Python's lock, so that nothing here could end it: no signal, no thread.
    By itself it waits an hour, and the first process even for those who never came.
    """
    context = eager.context()
    configure = context.configure_coordination_service

    def configured(**known: Any) -> None:
        configure(**known, cluster_register_timeout_in_ms=JOIN_SECONDS * 1000)
        settings = context.coordination_service
        if hasattr(settings, WITH_BARRIER):
            setattr(settings, WITH_BARRIER, True)

    context.configure_coordination_service = configured
