"""A run in training: its weights, optimiser and state, stepped, validated and saved."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.errors import BadDataError, Gpt2cliError, TryLaterError
from gpt2cli.files import atomic, paths
from gpt2cli.progress import COMPILING, Count
from gpt2cli.records import Progress, StepReport, Validation
from gpt2cli.runtime import devices
from gpt2cli.runtime.signals import Stop
from gpt2cli.storage import checkpoint, run, run_log
from gpt2cli.storage.source import CheckpointSource
from gpt2cli.storage.state import State
from gpt2cli.text.dataset import Data
from gpt2cli.training import model, setup
from gpt2cli.training.backend import Backend, choose_backend
from gpt2cli.training.evaluation import Evaluator, Totals
from gpt2cli.training.interruptible import interruptible
from gpt2cli.training.schedule import Schedule
from gpt2cli.training.step import PendingStep, Trainer
from gpt2cli.training.workers import Team, recipe


class Session:
    """A run in training.

    Attributes:
        weights: the model's variables, by name.
        state: where the run is; it goes on with every step.
        saved: the step of the newest checkpoint of this run, or None.
        last: the step at which it will end; None: it has no end.
        team: who trains together.
        backend: what computes the network.
    """

    def __init__(
        self, config: FinetuneConfig, start: CheckpointSource, state: State, data: Data, team: Team
    ) -> None:
        """Loads the weights, and the optimiser's state if the run has one.

        Args:
            config: the settings.
            start: where the weights come from.
            state: where the run is.
            data: what it trains on.
            team: who trains together.

        Raises:
            BadDataError: a checkpoint is damaged.
            DiskError: there is no room for the next one.
        """
        self.state = state
        self.saved = start.step if start.step else None
        # What the newest checkpoint's own state file holds, if it has one.
        self._kept = state if start.state else None
        self._config, self._data = config, data
        self._folder = paths.run_folder(config.checkpoint_dir, config.run)
        self.team = team
        frozen = devices.frozen_dtype(config.precision)
        self._model = model.load(start, state, self._folder, frozen, writes=team.leads)
        self.weights = self._model.weights
        self.backend = self._chosen_backend(start)
        self._trainer = self._loaded_trainer(start)
        self.last = setup.last_step(config, state, data.windows_per_epoch)
        self._schedule = Schedule(
            config.schedule, config.learning_rate, config.warmup_steps, self.last
        )
        self._evaluator = Evaluator(self.weights, start.hparams, xla=config.xla)
        self._began = self._saved_at = self._launched_at = time.monotonic()
        # Steps that were begun and not reported, with their learning rates.
        self._launched: list[tuple[float, PendingStep]] = []
        self._count = config.accumulate_gradients * config.batch_size
        if team.leads:
            atomic.need_room(self._folder, self.size(), "Nothing was changed.")

    def _chosen_backend(self, start: CheckpointSource) -> Backend:
        config = self._config
        return choose_backend(
            start.hparams,
            devices.resolve_precision(config.precision),
            xla=config.xla,
            batch=max(config.batch_size // self.team.size, 1),
            window=self._data.window,
        )

    def _loaded_trainer(self, start: CheckpointSource) -> Trainer:
        """Returns what trains the weights, with the run's optimiser state if it has one."""
        how = recipe(self._config, self.backend)
        trainer = self.team.trainer(self.weights, start.hparams, how)
        if start.state is None or start.state.optimizer != self._config.optimizer:
            return trainer
        for name, array in checkpoint.load(start.optimizer, trainer.slots):
            if array.shape != trainer.slots[name].shape:
                raise BadDataError(f"{start.optimizer}: {name} has the shape {array.shape}.")
            trainer.slots[name].assign(array)
        return trainer

    @property
    def launched(self) -> int:
        """The step that was begun last; those after the state's may still be under way."""
        return self.state.step + len(self._launched)

    @property
    def runs_ahead(self) -> bool:
        """Whether a step can start before the previous one ends: on a GPU, in one process."""
        return self.backend.gpu and self.team.alone

    @property
    def waiting(self) -> float:
        """How long the oldest step that is not reported has been under way (seconds)."""
        return time.monotonic() - self._launched_at if self._launched else 0.0

    @property
    def is_intact(self) -> bool:
        """Whether the weights are all of one step, whatever became of the next one."""
        return self._trainer.intact

    def launch(self, cancelled: Callable[[], bool]) -> bool:
        """Begins the next step; returns whether it was not given up.

        On a GPU it is under way then, and `reports` waits for it.
        """
        config, step = self._config, self.launched + 1
        if not self._launched:
            self._launched_at = time.monotonic()
        drawn = self._data.windows(
            self.state.seed, self.state.windows + len(self._launched) * self._count, self._count
        ).reshape(config.accumulate_gradients, config.batch_size, self._data.window + 1)
        rate = self._schedule(step)
        with self._joint():
            pending = self._trainer.step(
                drawn, rate, step=step, seed=self.state.seed, cancelled=cancelled
            )
        if pending is not None:
            self._launched.append((rate, pending))
        return pending is not None

    def reports(self) -> list[StepReport]:
        """Waits for the steps that were begun; returns a report of each.

        Raises:
            Gpt2cliError: a loss is not a finite number.
        """
        launched, self._launched = self._launched, []
        numbers = [pending.fetch() for _, pending in launched]
        found: list[StepReport] = []
        if not launched:
            return found
        now = time.monotonic()
        each = (now - self._launched_at) / len(launched)
        for place, ((rate, pending), (loss, norm)) in enumerate(
            zip(launched, numbers, strict=True), 1
        ):
            step = self.state.step + 1
            if not pending.count and self.state.loss_weight:
                # A step without any token to learn leaves the average as it is.
                loss = self.state.average
            if not math.isfinite(loss):
                raise Gpt2cliError(
                    f"The loss of step {step} is {loss}; the step was not saved. {self.safe} "
                    "Try a lower --learning-rate, a longer --warmup-steps or --clip-norm 1."
                )
            self.state = self.state.after(loss, self._count)
            seconds = self._launched_at + place * each - self._began
            speed = self._count * self._data.window / each
            found.append(StepReport(step, seconds, loss, self.state.average, rate, norm, speed))
        return found

    def agreed(self, word: int) -> int:
        """Returns the largest of the words that the processes say between two steps.

        Raises:
            TryLaterError: a process is gone.
        """
        with self._joint():
            return self.team.agreed(word)

    @contextlib.contextmanager
    def _joint(self) -> Iterator[None]:
        """Adds what is safe to the error if another process goes away within the block."""
        try:
            with self.team.together():
                yield
        except TryLaterError as error:
            raise TryLaterError(
                f"{error} {self.safe} The same command on every worker goes on from there."
            ) from error

    @property
    def safe(self) -> str:
        """A sentence on what is safe on disk."""
        if not self.team.leads:
            return "What the first worker saved is safe."
        return f"Step {self.saved} is safe." if self.saved else "Nothing was saved yet."

    def owes_validation(self, *, ends: bool) -> bool:
        """Returns whether the present weights are to be judged here, and were not yet.

        They are where the windows are new to the run, every --val-every steps, and at the end.
        """
        if self._data.held_out is None or not self._config.val_every or not self.team.leads:
            return False
        new = self.state.held_out != self._data.held_out_name
        return new or (self.state.val_step != self.state.step and (ends or self._is_due))

    @property
    def _is_due(self) -> bool:
        return self.state.step % self._config.val_every == 0

    def validate(self, stop: Stop) -> Generator[Progress | Validation, None, None]:
        """Yields how far it is, and the score over the held-out windows, which the state notes.

        After a signal the state is as if it had not begun.

        Raises:
            Gpt2cliError: the loss is not a finite number.
        """
        windows: Any = self._data.held_out
        size, totals = self._config.batch_size, Totals()
        count = math.ceil(len(windows) / size)
        judged = interruptible(self._evaluator.batches(windows, size), stop)
        with Count("validating", count, quiet=self._config.quiet, unit="batches") as meter:
            for done, batch in enumerate(meter.named(judged, COMPILING), 1):
                totals = totals.plus(batch)
                yield from meter.advance(done)
        if stop:
            return
        score, step = totals.score(), self.state.step
        if not math.isfinite(score.loss):
            raise Gpt2cliError(
                f"The validation loss of step {step} is {score.loss}; the step was not saved. "
                f"{self.safe} Try a lower --learning-rate, or other weights to start from."
            )
        self.state = self.state.validated(score.loss, self._data.held_out_name, due=self._is_due)
        yield Validation(step, self.seconds, score.loss, score.perplexity, score.accuracy)

    @property
    def seconds(self) -> float:
        """How long this process has trained."""
        return time.monotonic() - self._began

    @property
    def improved(self) -> bool:
        """Whether the present step is the best so far, and not saved yet."""
        return self.state.lowest[0] == self.state.step > (self.saved or 0)

    @property
    def is_saved(self) -> bool:
        """Whether the newest checkpoint holds the present step, and all that is known of it."""
        if self.state.step != self.saved:
            return self.state.step == 0
        return self._kept in (None, self.state)

    def save(self) -> Path:
        """Makes the present step the run's newest checkpoint; returns its prefix.

        Raises:
            DiskError: the disk is full or fails; the checkpoints before are untouched.
        """

        def write(weights: Path, optimizer: Path) -> None:
            checkpoint.save_all({weights: self._model.saved, optimizer: self._trainer.slots})

        prefix = run.commit(self._folder, self.state, write, size=self.size())
        first, self.saved = self.saved is None, self.state.step
        self._kept, self._saved_at = self.state, time.monotonic()
        if first and self.state.lowest[1] is None:
            # It is of the run that this one replaces.
            atomic.remove(self._folder / run_log.BEST)
        # Before the one that it has named is removed.
        self.write_best()
        # Whatever is there before the first save of a new run belongs to the one it replaces.
        keep = 1 if first else self._config.max_checkpoints
        run.rotate(self._folder, keep, frozenset({self.state.lowest[0]}))
        if first and not self.state.lora_rank:
            run.remove_base(self._folder)
        return prefix

    def write_best(self) -> None:
        """Writes best.json, if something was validated and there is a checkpoint."""
        step, loss = self.state.lowest
        if loss is not None and self.saved is not None:
            run_log.write_best(self._folder, step, loss)

    def waits(self, minutes: float) -> bool:
        """Returns whether the last save is longer ago than this (0: it may be)."""
        return 0 < minutes * 60 <= time.monotonic() - self._saved_at

    def size(self) -> int:
        """Returns what a checkpoint takes on the disk (bytes)."""
        tensors: list[Any] = [*self._model.saved.values(), *self._trainer.slots.values()]
        return sum(math.prod(tensor.shape) * tensor.dtype.size for tensor in tensors)
