"""A run that is checked and prepared: all that training needs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from gpt2cli.config.finetune import (
    BatchOptions,
    LengthOptions,
    MemoryOptions,
    OptimizerOptions,
    SampleOptions,
    SavingOptions,
    ValidationOptions,
)
from gpt2cli.storage.source import CheckpointSource
from gpt2cli.storage.state import State
from gpt2cli.text.dataset import Data
from gpt2cli.text.tokenizer import Tokenizer
from gpt2cli.training.footprint import Footprint


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A run that is checked and prepared: all that training needs, but the processes that share it.

    Attributes:
        folder: the run folder.
        start: where the weights come from.
        state: where the run is.
        footprint: what memory it is expected to take.
        print_every: how many steps there are between two that are printed; 0: none is.
        quiet: whether to say nothing of what takes long.
    """

    folder: Path
    start: CheckpointSource
    state: State
    data: Data
    tokenizer: Tokenizer
    footprint: Footprint
    length: LengthOptions
    batch: BatchOptions
    optimizer: OptimizerOptions
    compute: MemoryOptions
    validation: ValidationOptions
    samples: SampleOptions
    saving: SavingOptions
    print_every: int
    quiet: bool

    @property
    def windows_per_step(self) -> int:
        """How many windows a step trains on."""
        return self.batch.accumulate_gradients * self.batch.batch_size

    @property
    def last(self) -> int | None:
        """The step at which training ends; None: only a signal ends it."""
        return self.length.last_step(
            self.state.step,
            self.state.windows,
            per_step=self.windows_per_step,
            per_epoch=self.data.windows_per_epoch,
        )
