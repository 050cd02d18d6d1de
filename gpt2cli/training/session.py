"""A run in training: its weights, optimiser and state, taken on step by step."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator

from gpt2cli.arrays import Weights
from gpt2cli.distributed.process_group import ProcessGroup
from gpt2cli.errors import BadDataError, Gpt2cliError, TryLaterError
from gpt2cli.files import atomic
from gpt2cli.records import StepReport
from gpt2cli.runtime import devices
from gpt2cli.storage import checkpoint
from gpt2cli.training import backend, model
from gpt2cli.training.backend import TrainingOptions
from gpt2cli.training.checkpoints import Checkpoints
from gpt2cli.training.job import Job
from gpt2cli.training.replicas import ReplicatedTrainer
from gpt2cli.training.schedule import learning_rate
from gpt2cli.training.step import PendingStep, Trainer


class Session:
    """A run in training.

    Attributes:
        weights: the model's variables, by name.
        state: where the run is; it goes on with every step.
        last: the step at which it will end; None: it has no end.
        group: the devices that train together.
        first: the first step of this process, or None.
    """

    def __init__(self, job: Job, group: ProcessGroup) -> None:
        """Loads the weights, and the optimiser's state if the run has one.

        Raises:
            BadDataError: a checkpoint is damaged.
            DiskError: there is no room for the next one.
        """
        self._job, self.group, self.state, self.last = job, group, job.state, job.last
        start, folder, frozen = job.start, job.folder, devices.frozen_dtype(job.compute.precision)
        self.weights, saved = model.load(start, job.state, folder, frozen, writes=group.is_chief)
        options = training_options(job, group.size)
        self.backend = options.backend
        self.trainer = load_trainer(job, group, self.weights, options)
        slots, kept = self.trainer.slots, job.state if start.state else None
        self.checkpoints = Checkpoints(folder, saved, slots, kept=kept, step=start.step)
        self.first: StepReport | None = None
        self._began = self._launched_at = time.monotonic()
        # Steps that were begun and not reported.
        self._launched: list[PendingStep] = []
        if group.is_chief:
            atomic.need_room(folder, self.checkpoints.size, "Nothing was changed.")

    @property
    def launched(self) -> int:
        """The step that was begun last; those after the state's may still be under way."""
        return self.state.step + len(self._launched)

    @property
    def runs_ahead(self) -> bool:
        """Whether a step can start before the previous one ends: on a GPU, in one process."""
        return self.backend.gpu and self.group.is_single

    @property
    def waiting(self) -> float:
        """How long the oldest step that is not reported has been under way (seconds)."""
        return time.monotonic() - self._launched_at if self._launched else 0.0

    @property
    def seconds(self) -> float:
        """How long this process has trained."""
        return time.monotonic() - self._began

    @property
    def safe(self) -> str:
        """A sentence on what is safe on disk."""
        saved = self.checkpoints.saved
        if not self.group.is_chief:
            return "What the chief saved is safe."
        return f"Step {saved} is safe." if saved else "Nothing was saved yet."

    def launch(self, cancelled: Callable[[], bool]) -> bool:
        """Begins the next step; returns whether it was not given up.

        On a GPU it is under way then, and `reports` waits for it.
        """
        job, step, count = self._job, self.launched + 1, self._job.windows_per_step
        if not self._launched:
            self._launched_at = time.monotonic()
        first, seed = self.state.windows + len(self._launched) * count, self.state.seed
        shape = job.batch.accumulate_gradients, job.batch.batch_size, job.data.window + 1
        batches = job.data.windows(seed, first, count).reshape(shape)
        rate = learning_rate(step, job.optimizer, self.last)
        with self._watched():
            pending = self.trainer.step(batches, rate, step=step, seed=seed, cancelled=cancelled)
        if pending is not None:
            self._launched.append(pending)
        return pending is not None

    def reports(self) -> list[StepReport]:
        """Waits for the steps that were begun; returns a report of each.

        Raises:
            Gpt2cliError: a loss is not a finite number.
        """
        launched, self._launched = self._launched, []
        if not launched:
            return []
        numbers = [pending.fetch() for pending in launched]
        found: list[StepReport] = []
        count = self._job.windows_per_step
        each = (time.monotonic() - self._launched_at) / len(launched)
        for place, (pending, (loss, norm)) in enumerate(zip(launched, numbers, strict=True), 1):
            step = self.state.step + 1
            rate = learning_rate(step, self._job.optimizer, self.last)
            if not pending.count and self.state.loss_weight:
                # A step without any token to learn leaves the average as it is.
                loss = self.state.average
            check_loss(loss, step, self.safe)
            self.state = self.state.after(loss, count)
            seconds = self._launched_at + place * each - self._began
            speed = count * self._job.data.window / each
            facts = {"seconds": seconds, "loss": loss, "rate": rate, "norm": norm, "speed": speed}
            found.append(StepReport(step=step, average=self.state.average, **facts))
        self.first = self.first or found[0]
        return found

    def all_reduce_max(self, value: int) -> int:
        """Returns the largest of the processes' numbers; raises TryLaterError if one is gone."""
        with self._watched():
            return self.group.all_reduce_max(value)

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Adds what is safe to the error if another process goes away within the block."""
        try:
            with self.group.watched():
                yield
        except TryLaterError as error:
            raise TryLaterError(
                f"{error} {self.safe} The same command on every worker goes on from there."
            ) from error


def check_loss(loss: float, step: int, safe: str) -> None:
    """Raises Gpt2cliError if a step's loss is not a finite number."""
    if not math.isfinite(loss):
        raise Gpt2cliError(
            f"The loss of step {step} is {loss}; the step was not saved. {safe} "
            "Try a lower --learning-rate, a longer --warmup-steps or --clip-norm 1."
        )


def training_options(job: Job, devices_together: int) -> TrainingOptions:
    """Returns how a run is trained, with the fastest backend on the device in use."""
    precision = devices.resolve_precision(job.compute.precision)
    return TrainingOptions(
        optimizer=job.optimizer.optimizer,
        accumulate=job.batch.accumulate_gradients,
        clip_norm=job.optimizer.clip_norm,
        weight_decay=job.optimizer.weight_decay,
        dropout=job.optimizer.dropout,
        precision=precision,
        recompute=job.compute.use_memory_saving_gradients,
        blocks_only=job.compute.only_train_transformer_layers,
        backend=backend.choose_backend(
            job.start.hparams,
            precision,
            xla=job.compute.xla,
            batch=max(job.batch.batch_size // devices_together, 1),
            window=job.data.window,
        ),
    )


def load_trainer(
    job: Job, group: ProcessGroup, weights: Weights, options: TrainingOptions
) -> Trainer:
    """Returns what trains the weights, with the run's optimiser state if it has one."""
    start = job.start
    if group.strategy is None:
        trainer = Trainer(weights, start.hparams, options)
    else:
        trainer = ReplicatedTrainer(group.strategy, weights, start.hparams, options)
    if start.state is None or start.state.optimizer != options.optimizer:
        return trainer
    for name, array in checkpoint.load(start.optimizer, trainer.slots):
        if array.shape != trainer.slots[name].shape:
            raise BadDataError(f"{start.optimizer}: {name} has the shape {array.shape}.")
        trainer.slots[name].assign(array)
    return trainer
