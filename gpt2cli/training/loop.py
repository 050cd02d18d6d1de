"""Training, step by step: what is due before, between and after steps, and how it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator

import tensorflow as tf

from gpt2cli.progress import COMPILING, announced
from gpt2cli.records import Notice, Record, Saved, StepReport, Stopped
from gpt2cli.runtime.signals import Stop
from gpt2cli.storage.state import State
from gpt2cli.training import memory
from gpt2cli.training.beginning import owes_samples
from gpt2cli.training.between_steps import Sampler, Validator
from gpt2cli.training.job import Job
from gpt2cli.training.report import closing, what_is_safe
from gpt2cli.training.schedule import is_due
from gpt2cli.training.session import Session

# What processes can say to each other between steps: to go on, a signal's number, or enough.
GO_ON, ENOUGH = 0, 65
# On a GPU steps that print nothing else are reported together, this long after the first of them:
# to ask for one's loss is to wait until the GPU has nothing to do.
REPORT_SECONDS = 1.0


class Loop:
    """Trains a run to its end; `closing` is what there is to say if it ended by itself."""

    def __init__(self, job: Job, session: Session, stop: Stop) -> None:
        self._job, self._session, self._stop = job, session, stop
        self._is_chief = session.group.is_chief
        self.closing: Iterator[str] = iter(())
        self._validator = None
        if self._is_chief and job.validation.val_every and job.data.held_out is not None:
            self._validator = Validator(job, job.data.held_out, session.weights)
        self._sampler = Sampler(job, session.weights)

    def run(self) -> Iterator[Record]:
        """Yields every step, validation, sample and save as they happen.

        If memory runs out, the steps that are whole by then are saved.

        Raises:
            Gpt2cliError: the loss is not a finite number.
        """
        session, stop = self._session, self._stop
        try:
            reason = (yield from self._before_steps()) if self._is_chief else None
            began = session.state.step
            word = yield from self._steps(reason)
        except tf.errors.OpError as error:
            # Not if an update was left half-way.
            if memory.is_memory(error) and session.group.is_single and session.trainer.intact:
                with contextlib.suppress(tf.errors.OpError):
                    yield from session.reports()
                    yield from self._saved()
            raise
        # Only a validation is not worth a save if a signal has asked to stop.
        only_validated = stop and session.state.step == began
        if self._is_chief and not only_validated:
            yield from self._saved()
        # Nobody leaves before the last step is saved.
        session.all_reduce_max(GO_ON)
        signum = word if word not in (GO_ON, ENOUGH) else stop.signum
        if signum is not None:
            yield Stopped(signal=signum, message=what_is_safe(session.state.step))
        elif self._is_chief and session.first is not None:
            first, seconds = session.first, session.seconds
            self.closing = closing(self._job.folder, first, session.state, seconds)

    def _steps(self, reason: str | None) -> Generator[Record, None, int]:
        """Yields what happens in step after step; returns the word that the processes ended with.

        The reason is why there are to be none, if so.
        """
        session, stop, first = self._session, self._stop, True
        word = session.all_reduce_max(ENOUGH if reason else stop.signum or GO_ON)
        while word == GO_ON and (session.last is None or session.launched < session.last):
            compiling = first_step(session, stop, quiet=self._job.quiet)
            with compiling if first else contextlib.nullcontext():
                if not session.launch(lambda: session.group.is_single and bool(stop)):
                    break
                reports = session.reports() if first or self._is_report_due() else []
            first = False
            yield from self._printed(reports)
            if self._is_chief and reports:
                reason = yield from self._after_step()
            word = session.all_reduce_max(ENOUGH if reason else stop.signum or GO_ON)
        yield from self._printed(session.reports())
        return word

    def _printed(self, reports: list[StepReport]) -> Iterator[StepReport]:
        for report in reports:
            if self._is_chief and is_due(report.step, self._job.print_every):
                yield report

    def _is_report_due(self) -> bool:
        """Returns whether to wait for the steps under way: something needs their results."""
        session, job = self._session, self._job
        step, saving = session.launched, job.saving
        periods = (job.validation.val_every, job.samples.sample_every, saving.save_every)
        return (
            not session.runs_ahead
            or bool(self._stop)
            or step == session.last
            or session.waiting >= REPORT_SECONDS
            or any(is_due(step, period) for period in periods)
            or session.checkpoints.are_older_than(saving.save_minutes)
            or out_of_time(self._job.length.max_minutes, session.seconds) is not None
        )

    def _saved(self) -> Iterator[Saved]:
        """Saves the present step, unless the newest checkpoint holds it."""
        session, step = self._session, self._session.state.step
        if not session.checkpoints.has(session.state):
            with announced(f"saving step {step}", quiet=self._job.quiet):
                path = session.checkpoints.save(session.state, self._job.saving.max_checkpoints)
            yield Saved(step=step, path=str(path))

    def _before_steps(self) -> Generator[Record, None, str | None]:
        """Yields what is due before the next step; returns why there is to be none, if so.

        Beside the validation before the first step, that is what a run did not come to before it
        was stopped, so that it goes on as if it never had been.
        """
        session = self._session
        step = session.state.step
        yield from self._validated(ends=session.last is not None and step >= session.last)
        session.checkpoints.write_best(session.state)
        if owes_samples(self._job.folder, step, self._job.samples.sample_every):
            yield from self._sampler.samples(session.state, self._stop)
        if reason := no_gain(session.state, self._job.validation.patience):
            reason += " To go on, raise --patience."
            yield Notice(reason)
        return reason

    def _after_step(self) -> Generator[Record, None, str | None]:
        """Yields what is due after a step was reported: a validation, samples, a save.

        It returns why training ends before its last step, if it does.
        """
        session, saving = self._session, self._job.saving
        step = session.state.step
        reason = out_of_time(self._job.length.max_minutes, session.seconds)
        yield from self._validated(ends=step == session.last or reason is not None)
        if is_due(step, self._job.samples.sample_every):
            yield from self._sampler.samples(session.state, self._stop)
        improved = session.state.lowest[0] == step > (session.checkpoints.saved or 0)
        waited = session.checkpoints.are_older_than(saving.save_minutes)
        if is_due(step, saving.save_every) or improved or waited:
            yield from self._saved()
        reason = reason or no_gain(session.state, self._job.validation.patience)
        if reason:
            yield Notice(reason)
        return reason

    def _validated(self, *, ends: bool) -> Iterator[Record]:
        """Validates the present weights if they are to be, and were not yet."""
        session, validator = self._session, self._validator
        if validator is not None and validator.owes(session.state, ends=ends):
            session.state = yield from validator.score(
                session.state, self._stop, seconds=session.seconds, safe=session.safe
            )


@contextlib.contextmanager
def first_step(session: Session, stop: Stop, *, quiet: bool) -> Iterator[None]:
    """Says within the block, which compiles, if that takes long; a signal ends it at once.

    Until a step is done there is nothing to lose.
    """
    safe = what_is_safe(session.state.step)
    at_once = stop.at_once(safe) if session.group.is_single else contextlib.nullcontext()
    with announced(COMPILING, quiet=quiet), at_once:
        yield


def out_of_time(minutes: float, seconds: float) -> str | None:
    """Returns that the time for training is over, or None if it is not."""
    return f"{minutes:g} minutes are over." if 0 < minutes * 60 <= seconds else None


def no_gain(state: State, patience: int) -> str | None:
    """Returns that patience is at its end, or None if it is not."""
    if 0 < patience <= state.since_best:
        return (
            f"No gain in {state.since_best} validations; the best was step {state.best_step} "
            f"with val_loss={state.best_loss:.4f}."
        )
    return None
