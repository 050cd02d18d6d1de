"""The checkpoints of a run in training: when the last one was saved, and what is safe."""

from __future__ import annotations

import math
import time
from pathlib import Path

from gpt2cli.arrays import Weights
from gpt2cli.files import atomic
from gpt2cli.storage import checkpoint, run, run_log
from gpt2cli.storage.state import State


class Checkpoints:
    """The checkpoints of a run in training.

    Attributes:
        saved: the step of the newest one, or None.
        size: what one takes on the disk (bytes).
    """

    def __init__(
        self, folder: Path, weights: Weights, slots: Weights, *, kept: State | None, step: int
    ) -> None:
        """Takes the run folder, and the variables to save: the model's, and the optimiser's.

        `step` is that of the newest checkpoint (0: there is none), `kept` its state if gpt2cli
        wrote it.
        """
        self._folder, self._weights, self._slots = folder, weights, slots
        self._kept, self.saved = kept, step or None
        self._saved_at = time.monotonic()
        tensors = [*weights.values(), *slots.values()]
        self.size = sum(math.prod(tensor.shape) * tensor.dtype.size for tensor in tensors)

    def has(self, state: State) -> bool:
        """Returns whether the newest checkpoint holds a step, and all that is known of it."""
        return state.step == 0 if state.step != self.saved else self._kept in (None, state)

    def are_older_than(self, minutes: float) -> bool:
        """Returns whether the last save is longer ago than this (0: it may be)."""
        return 0 < minutes * 60 <= time.monotonic() - self._saved_at

    def save(self, state: State, most: int) -> Path:
        """Makes a step the run's newest checkpoint, and keeps `most` of them; returns its prefix.

        Raises:
            DiskError: the disk is full or fails; the checkpoints before are untouched.
        """

        def write(weights: Path, optimizer: Path) -> None:
            """Writes both files of the checkpoint."""
            checkpoint.save_all({weights: self._weights, optimizer: self._slots})

        prefix = run.commit(self._folder, state, write, size=self.size)
        first, self.saved = self.saved is None, state.step
        self._kept, self._saved_at = state, time.monotonic()
        if first and state.lowest[1] is None:
            # It is of the run that this one replaces.
            atomic.remove(self._folder / run_log.BEST)
        # Before the one that it has named is removed.
        self.write_best(state)
        # Whatever is there before the first save of a new run belongs to the one it replaces.
        run.rotate(self._folder, 1 if first else most, frozenset({state.lowest[0]}))
        if first and not state.lora_rank:
            run.remove_base(self._folder)
        return prefix

    def write_best(self, state: State) -> None:
        """Writes best.json, if something was validated and there is a checkpoint."""
        if self.saved is not None:
            run_log.write_best(self._folder, *state.lowest)
