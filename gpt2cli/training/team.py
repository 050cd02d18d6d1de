"""Who trains together: one device, all GPUs of a machine, or those of several machines."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.errors import TryLaterError
from gpt2cli.hparams import HParams
from gpt2cli.training import devices, plan, replicas
from gpt2cli.training.cluster import Cluster
from gpt2cli.training.step import Recipe, Trainer

# What processes can say to each other between steps: to go on, a signal's number, or enough.
GO_ON, ENOUGH = 0, 65
# What TensorFlow raises where another process, or the way to it, is gone.
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)
STDERR = 2


class Team:
    """The devices that train together.

    Attributes:
        size: how many they are.
        alone: whether this process has them all.
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
        """Yields a line on how the work is shared, where that was asked for."""
        if self._strategy is not None:
            share = config.batch_size // self.size
            yield f"together: {self.size} devices, {share} of each micro-batch's windows on each"
        elif config.is_shared:
            yield "--multi-gpu: there is one device alone; it trains as without."

    def trainer(self, weights: Mapping[str, Any], hparams: HParams, recipe: Recipe) -> Trainer:
        """Returns what trains these variables, on all devices."""
        if self._strategy is None:
            return Trainer(weights, hparams, recipe)
        return replicas.Group(self._strategy, weights, hparams, recipe)

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
        """Within the block what TensorFlow says of a process that is gone is told as such.

        Raises:
            TryLaterError: a process is gone.
        """
        try:
            yield
        except tf.errors.OpError as error:
            # A worker that came back too soon is told as other errors of these operations.
            lost = isinstance(error, LOST) or "ollective op" in error.message
            if self.alone or not lost:
                raise
            raise TryLaterError(f"Another worker is gone ({reason(error.message)}).") from error


def reason(message: str) -> str:
    """Returns what TensorFlow's message says of a process that is gone, in a line."""
    found = re.search(r"aborted by: ([^\n]+)", message)
    return (found[1] if found else message.strip().splitlines()[0])[:200].strip(" .:")


def gathered(config: FinetuneConfig, cluster: Cluster | None) -> Team:
    """Returns who trains as the config says.

    Raises:
        UsageError: a micro-batch cannot be shared evenly.
        TryLaterError: a process went away before it began.
    """
    if not config.is_shared:
        return Team()
    if cluster is not None:
        team = Team(joined(config), cluster)
    elif len(names := devices.names()) == 1:
        return Team()
    else:
        team = Team(tf.distribute.MirroredStrategy(names))
    plan.check_divisible(config.batch_size, team.size)
    return team


def joined(config: FinetuneConfig) -> Any:
    """Returns TensorFlow's strategy for several machines, once all have come.

    Raises:
        TryLaterError: not all come.
    """
    late = f"gpt2cli: the other workers went away in {config.wait_minutes:g} minutes. Try again.\n"

    def leave() -> None:
        # The main thread waits inside TensorFlow, where no signal and no exception reaches it.
        os.write(STDERR, late.encode())
        os._exit(TryLaterError.exit_code)

    watch = threading.Timer(config.wait_minutes * 60, leave)
    watch.daemon = True
    watch.start()
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except LOST as error:
        raise TryLaterError(f"The workers do not find each other: {error.message}") from error
    finally:
        watch.cancel()
