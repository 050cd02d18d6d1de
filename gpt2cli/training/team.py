"""Who trains together: one device, all GPUs of a machine, or those of several machines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.hparams import HParams
from gpt2cli.training import devices, replicas
from gpt2cli.training.step import Recipe, Trainer


class Team:
    """The devices that train together.

    Attributes:
        size: how many they are.
        alone: whether this process has them all.
        leads: whether this process tells, validates and writes.
    """

    def __init__(self, strategy: Any = None, *, alone: bool = True, leads: bool = True) -> None:
        """Takes TensorFlow's strategy; None: one device, with nothing wrapped around it."""
        self._strategy = strategy
        self.size: int = strategy.num_replicas_in_sync if strategy else 1
        self.alone = alone
        self.leads = leads

    def remarks(self, config: FinetuneConfig) -> Iterator[str]:
        """Yields a line on how the work is shared, where that was asked for."""
        if self._strategy is not None:
            share = config.batch_size // self.size
            yield f"together: {self.size} devices, {share} of each micro-batch's windows on each"
        elif config.multi_gpu:
            yield "--multi-gpu: there is one device alone; it trains as without."

    def trainer(self, weights: Mapping[str, Any], hparams: HParams, recipe: Recipe) -> Trainer:
        """Returns what trains these variables, on all devices."""
        if self._strategy is None:
            return Trainer(weights, hparams, recipe)
        return replicas.Group(self._strategy, weights, hparams, recipe)

    def agreed(self, word: int) -> int:
        """Returns the largest of the numbers that the processes say at this moment."""
        return word


def gathered(config: FinetuneConfig) -> Team:
    """Returns who trains as the config says.

    Raises:
        UsageError: a micro-batch cannot be shared evenly.
    """
    if not config.multi_gpu:
        return Team()
    names = devices.names()
    if len(names) == 1:
        return Team()
    team = Team(tf.distribute.MirroredStrategy(names))
    replicas.check_divisible(config.batch_size, team.size)
    return team
