"""When a run in training is validated, and on what."""

from __future__ import annotations

import math
from collections.abc import Generator

from gpt2cli.arrays import Weights
from gpt2cli.errors import Gpt2cliError
from gpt2cli.progress import COMPILING, Count
from gpt2cli.records import Progress, Validation
from gpt2cli.runtime.signals import Stop
from gpt2cli.storage.state import State
from gpt2cli.text.batches import Windows
from gpt2cli.training.evaluation import Evaluator, Score
from gpt2cli.training.interruptible import interruptible
from gpt2cli.training.job import Job
from gpt2cli.training.schedule import is_due


class Validator:
    """Computes the validation loss of the weights in training."""

    def __init__(self, job: Job, windows: Windows, weights: Weights) -> None:
        self._windows, self._name, self._quiet = windows, job.data.held_out_name, job.quiet
        self._every, self._batch_size = job.validation.val_every, job.batch.batch_size
        self._evaluator = Evaluator(weights, job.start.hparams, xla=job.compute.xla)

    def owes(self, state: State, *, ends: bool) -> bool:
        """Returns whether the present weights are to be validated, and were not yet.

        They are if the windows are new to the run, every --val-every steps, and at the end.
        """
        wanted = ends or is_due(state.step, self._every)
        return state.held_out != self._name or (state.val_step != state.step and wanted)

    def score(
        self, state: State, stop: Stop, *, seconds: float, safe: str
    ) -> Generator[Progress | Validation, None, State]:
        """Yields how far it is, and the score over the held-out windows; returns the state with it.

        After a signal the state is as if it had not begun. `seconds` is how long this process has
        trained, `safe` a sentence on what is safe on disk.

        Raises:
            Gpt2cliError: the loss is not a finite number.
        """
        score, count = Score(), math.ceil(len(self._windows) / self._batch_size)
        judged = interruptible(self._evaluator.batches(self._windows, self._batch_size), stop)
        with Count("validating", count, quiet=self._quiet, unit="batches") as meter:
            for done, batch in enumerate(meter.named(judged, COMPILING), 1):
                score += batch
                yield from meter.advance(done)
        if stop:
            return state
        if not math.isfinite(score.loss):
            raise Gpt2cliError(
                f"The validation loss of step {state.step} is {score.loss}; the step was not "
                f"saved. {safe} Try a lower --learning-rate, or other weights to start from."
            )
        yield Validation(
            step=state.step,
            seconds=seconds,
            loss=score.loss,
            perplexity=score.perplexity,
            accuracy=score.accuracy,
        )
        return state.validated(score.loss, self._name, due=is_due(state.step, self._every))
