"""Training, step by step: what is due before, between and after steps, and how it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from typing import Protocol

import tensorflow as tf

from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.progress import COMPILING, announced
from gpt2cli.records import Notice, Record, Saved, Stopped
from gpt2cli.runtime.signals import Stop
from gpt2cli.storage.state import State
from gpt2cli.training import memory, out_of_memory, setup
from gpt2cli.training.session import Session
from gpt2cli.training.workers import ENOUGH, GO_ON

# On a GPU steps that print nothing else are reported together, this long after the first of them:
# to ask for one's loss is to wait until the GPU has nothing to do.
REPORT_SECONDS = 1.0


class Sampler(Protocol):
    """Writes samples from the model in training."""

    def has_sampled(self, step: int) -> bool:
        """Returns whether a step's samples are in the run folder."""
        ...

    def samples(self, stop: Stop) -> Iterator[Record]:
        """Yields as many samples as the settings ask for."""
        ...


def drive(
    config: FinetuneConfig, training: Session, sampler: Sampler, stop: Stop, needed: memory.Run
) -> Iterator[Record]:
    """Trains to the end; yields every step, validation, sample and save as they happen.

    Args:
        config: the settings.
        training: the run.
        sampler: writes its samples.
        stop: says whether somebody wants to stop.
        needed: what memory the run was expected to take.

    Raises:
        Gpt2cliError: the loss is not a finite number, or memory ran out; the steps that were
            whole by then are saved.
    """
    team = training.team
    try:
        reason = (yield from before_steps(config, training, sampler, stop)) if team.leads else None
        began = training.state.step
        word = yield from steps(config, training, sampler, stop, reason)
    except tf.errors.OpError as error:
        if not out_of_memory.is_memory(error):
            raise
        yield from rescued(training)
        raise out_of_memory.refusal(error, config, memory.remedy(needed), training.safe) from error
    # Only a validation is not worth a save if a signal has asked to stop.
    waits = stop and training.state.step == began
    if team.leads and not training.is_saved and not waits:
        yield Saved(training.state.step, str(training.save()))
    # Nobody leaves before the last step is saved.
    training.agreed(GO_ON)
    signum = word if word not in (GO_ON, ENOUGH) else stop.signum
    if signum is not None:
        yield Stopped(signum, setup.what_is_safe(training.state.step))


def steps(
    config: FinetuneConfig, training: Session, sampler: Sampler, stop: Stop, reason: str | None
) -> Generator[Record, None, int]:
    """Yields what happens in step after step; returns the word that the processes ended with.

    The reason is why there are to be none, if so.
    """
    team, last = training.team, training.last
    word = training.agreed(ENOUGH if reason else stop.signum or GO_ON)
    first = True
    while word == GO_ON and (last is None or training.launched < last):
        with first_step(config, training, stop) if first else contextlib.nullcontext():
            if not training.launch(lambda: team.alone and bool(stop)):
                break
            is_due = first or is_report_due(config, training, stop)
            reports = training.reports() if is_due else []
        first = False
        for report in reports:
            if team.leads and due(report.step, config.print_every):
                yield report
        if team.leads and reports:
            reason = yield from after_step(config, training, sampler, stop)
        word = training.agreed(ENOUGH if reason else stop.signum or GO_ON)
    for report in training.reports():
        if team.leads and due(report.step, config.print_every):
            yield report
    return word


@contextlib.contextmanager
def first_step(config: FinetuneConfig, training: Session, stop: Stop) -> Iterator[None]:
    """Within the block, which compiles, it is said if that takes long; a signal ends it at once.

    Until a step is done there is nothing to lose.
    """
    alone, quiet = training.team.alone, config.quiet or not training.team.leads
    safe = setup.what_is_safe(training.state.step)
    at_once = stop.at_once(safe) if alone else contextlib.nullcontext()
    with announced(COMPILING, quiet=quiet), at_once:
        yield


def is_report_due(config: FinetuneConfig, training: Session, stop: Stop) -> bool:
    """Returns whether to wait for the steps that were launched: something needs their results."""
    step = training.launched
    periods = (config.val_every, config.sample_every, config.save_every)
    return (
        not training.runs_ahead
        or bool(stop)
        or step == training.last
        or training.waiting >= REPORT_SECONDS
        or any(due(step, period) for period in periods)
        or training.waits(config.save_minutes)
        or out_of_time(config, training.seconds) is not None
    )


def rescued(training: Session) -> Iterator[Record]:
    """Saves the steps done when memory ran out, unless an update was left half-way."""
    if training.team.alone and training.is_intact:
        with contextlib.suppress(tf.errors.OpError):
            yield from training.reports()
            if not training.is_saved:
                yield Saved(training.state.step, str(training.save()))


def before_steps(
    config: FinetuneConfig, training: Session, sampler: Sampler, stop: Stop
) -> Generator[Record, None, str | None]:
    """Yields what is due before the next step; returns why there is to be none, if so.

    Beside the validation before the first step, that is what a run did not come to before it was
    stopped, so that it goes on as if it never had been.
    """
    state, last = training.state, training.last
    if training.owes_validation(ends=last is not None and state.step >= last):
        yield from training.validate(stop)
    training.write_best()
    if state.step and due(state.step, config.sample_every) and not sampler.has_sampled(state.step):
        yield from sampler.samples(stop)
    if reason := no_gain(config, training.state):
        reason += " To go on, raise --patience."
        yield Notice(reason)
    return reason


def after_step(
    config: FinetuneConfig, training: Session, sampler: Sampler, stop: Stop
) -> Generator[Record, None, str | None]:
    """Yields what is due after a step was reported: a validation, samples, a save.

    It returns why training ends before its last step, if it does.
    """
    step = training.state.step
    reason = out_of_time(config, training.seconds)
    if training.owes_validation(ends=step == training.last or reason is not None):
        yield from training.validate(stop)
    if due(step, config.sample_every):
        yield from sampler.samples(stop)
    if due(step, config.save_every) or training.improved or training.waits(config.save_minutes):
        yield Saved(step, str(training.save()))
    reason = reason or no_gain(config, training.state)
    if reason:
        yield Notice(reason)
    return reason


def out_of_time(config: FinetuneConfig, seconds: float) -> str | None:
    """Returns that the time for training is over, or None if it is not."""
    if 0 < config.max_minutes * 60 <= seconds:
        return f"{config.max_minutes:g} minutes are over."
    return None


def no_gain(config: FinetuneConfig, state: State) -> str | None:
    """Returns that patience is at its end, or None if it is not."""
    if 0 < config.patience <= state.since_best:
        return (
            f"No gain in {state.since_best} validations; the best was step {state.best_step} "
            f"with val_loss={state.best_loss:.4f}."
        )
    return None


def due(step: int, period: int) -> bool:
    """Returns whether something that happens every `period` steps (0: never) happens now."""
    return period > 0 and step % period == 0
