"""`gpt2cli finetune`: text and a GPT-2 in, a trained run folder out."""

from __future__ import annotations

import dataclasses
import math
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2cli import tensorflow_start
from gpt2cli.config.finetune import DEFAULT_STEPS, FinetuneConfig
from gpt2cli.errors import DiskError, OutputError, UsageError
from gpt2cli.fetching.base import fetch_base
from gpt2cli.hparams import HParams
from gpt2cli.records import Notice, Record, Sample, Saved, StepReport, Stopped, Validation
from gpt2cli.signals import Stop, deferred
from gpt2cli.storage import folders, journal, run
from gpt2cli.storage.recovery import settle
from gpt2cli.storage.start import Start, for_finetune
from gpt2cli.text.continuation import Continuation
from gpt2cli.text.tokenizer import Tokenizer, check_fits, read_tokenizer
from gpt2cli.training import data

if TYPE_CHECKING:
    from gpt2cli.training.session import Session

SAMPLE_TEMPERATURE = 0.7
SEED_BITS = 32


def finetune(config: FinetuneConfig) -> Iterator[Record]:
    """Trains as the config says and yields what happens; all is checked before TensorFlow loads.

    Raises:
        Gpt2cliError: of every kind; see errors.py.
    """
    texts = data.find(config)
    yield from data.remarks(config, texts)
    yield from fetch_base(config)
    folder = folders.run_folder(config.checkpoint_dir, config.run)
    with run.owned(folder):
        start = for_finetune(config)
        if config.until_step is not None and start.step >= config.until_step:
            yield Notice(f"{folder} is already at step {start.step}.")
            return
        tokenizer = read_tokenizer(start.encoder, start.merges)
        window = check_settings(config, start.hparams, tokenizer)
        encoded = yield from data.encode(config, texts, tokenizer, folder, window)
        state = first_state(config, start, encoded.name)
        last = last_step(config, state, encoded.windows_per_epoch)
        yield from map(Notice, (*start.remarks(), *repeated(folder, start)))
        yield from opening(start, state, encoded)
        if start.found:
            yield from map(Notice, settle(folder, start.found))
        run.prepare(folder, start.folder)
        journal.write_config(folder, dataclasses.asdict(config))
        with deferred() as stop:
            tensorflow_start.load(verbose=config.verbose)
            from gpt2cli.training import devices, session

            yield Notice(f"device: {devices.prepare()}, float32")
            training = session.Session(config, start, state, encoded, last)
            sampler = Sampler(config, start, training, tokenizer)
            log = journal.Log(folder)
            for record in drive(config, training, sampler, last, stop):
                yield from log.note(record)


def last_step(config: FinetuneConfig, state: run.State, per_epoch: int) -> int | None:
    """Returns the step at which training ends, or None where only a signal ends it."""
    if config.until_step is not None:
        return config.until_step
    if config.epochs is not None:
        left = config.epochs * per_epoch - state.windows
        return state.step + max(
            0, math.ceil(left / (config.batch_size * config.accumulate_gradients))
        )
    if config.steps == -1:
        return None
    return state.step + (DEFAULT_STEPS if config.steps is None else config.steps)


def check_settings(config: FinetuneConfig, hparams: HParams, tokenizer: Tokenizer) -> int:
    """Returns the window; checks what the options and the model ask of each other.

    Raises:
        UsageError: an option asks for more than the model has.
        BadDataError: the vocabulary does not fit the model.
    """
    check_fits(tokenizer, hparams)
    window = config.window or hparams.n_ctx
    if window > hparams.n_ctx:
        raise UsageError(f"--window {window} is more than the model's n_ctx, {hparams.n_ctx}.")
    prefix = len(tokenizer.encode(config.sample_prefix, special=True))
    if prefix > hparams.n_ctx:
        raise UsageError(f"--sample-prefix has {prefix} tokens; the window holds {hparams.n_ctx}.")
    return window


def first_state(config: FinetuneConfig, start: Start, name: str) -> run.State:
    """Returns where the run is: as it was saved, or at its beginning; a new corpus begins anew."""
    state = start.state or run.State(start.step, secrets.randbits(SEED_BITS), start.model_name)
    seed = state.seed if config.seed is None else config.seed
    state = dataclasses.replace(state, seed=seed, optimizer=config.optimizer)
    if state.corpus == name:
        return state
    return dataclasses.replace(state, corpus=name, windows=0)


def repeated(folder: Path, start: Start) -> Iterator[str]:
    """Yields a line on the steps that a process trained and could not save."""
    last = journal.last_step(folder)
    if start.state and last > start.step:
        yield f"Steps {start.step + 1} to {last} were not saved; they are trained again."


def opening(start: Start, state: run.State, encoded: data.Data) -> Iterator[Record]:
    """Yields the lines that tell what is about to be trained, from where, and on what."""
    weights = f"{start.hparams.count():,} weights of {start.model_name}"
    if start.prefix is None:
        yield Notice(f"from scratch: {weights}, random, seed {state.seed}")
    else:
        yield Notice(f"from {start.prefix}: {weights}, step {start.step}, seed {state.seed}")
    if start.step and (start.state is None or start.state.optimizer != state.optimizer):
        which = f"the optimiser is {state.optimizer} now" if start.state else "it was not saved"
        yield Notice(f"This run has no optimiser state ({which}); its averages begin at zero.")
    beside = f", and {encoded.held_out_tokens:,} held out" if encoded.held_out_tokens else ""
    yield Notice(f"corpus: {len(encoded.tokens):,} tokens{beside}")
    if start.state and start.state.corpus != state.corpus:
        yield Notice("The corpus is another one than before; a new epoch begins.")


def drive(
    config: FinetuneConfig, training: Session, sampler: Sampler, last: int | None, stop: Stop
) -> Iterator[Record]:
    """Trains step by step; yields every step, validation, sample and save as they happen."""
    began = time.monotonic()
    if training.validates and config.val_every:
        yield validation(training, began)
    while stop.signum is None and (last is None or training.state.step < last):
        loss = training.step(lambda: stop.signum is not None)
        if loss is None:
            break
        yield from after_step(config, training, sampler, loss, began)
        if reason := enough(config, training.state, time.monotonic() - began):
            yield Notice(reason)
            break
    if training.state.step not in (0, training.saved):
        yield Saved(training.state.step, str(training.save()))
    if stop.signum is not None:
        safe = f"Step {training.saved} is saved" if training.saved else "No step was done yet"
        yield Stopped(stop.signum, f"{safe}; the same command goes on from there.")


def after_step(
    config: FinetuneConfig, training: Session, sampler: Sampler, loss: float, began: float
) -> Iterator[Record]:
    """Yields what is due after a step: its line, a validation, samples, a save."""
    step = training.state.step
    if due(step, config.print_every):
        yield StepReport(step, time.monotonic() - began, loss, training.state.average)
    if training.validates and due(step, config.val_every):
        yield validation(training, began)
    if due(step, config.sample_every):
        yield from sampler.samples()
    if due(step, config.save_every) or training.improved or training.waits(config.save_minutes):
        yield Saved(step, str(training.save()))


def enough(config: FinetuneConfig, state: run.State, seconds: float) -> str | None:
    """Returns why training ends before its last step, or None where it goes on."""
    if 0 < config.max_minutes * 60 <= seconds:
        return f"{config.max_minutes:g} minutes are over."
    if 0 < config.patience <= state.since_best:
        return (
            f"No gain in {state.since_best} validations; the best was step {state.best_step} "
            f"with val_loss={state.best_loss:.4f}."
        )
    return None


def due(step: int, period: int) -> bool:
    """Returns whether something that happens every `period` steps (0: never) happens now."""
    return period > 0 and step % period == 0


def validation(training: Session, began: float) -> Validation:
    """Returns the present score on the held-out text."""
    score = training.validate()
    seconds = time.monotonic() - began
    return Validation(training.state.step, seconds, score.loss, score.perplexity, score.accuracy)


class Sampler:
    """Writes samples from the model in training, and keeps them in the run folder."""

    def __init__(
        self, config: FinetuneConfig, start: Start, training: Session, tokenizer: Tokenizer
    ) -> None:
        from gpt2cli.decoding.filters import Sampling
        from gpt2cli.decoding.loop import Decoder

        self._config, self._training, self._tokenizer = config, training, tokenizer
        sampling = Sampling(SAMPLE_TEMPERATURE)
        self._decoder = Decoder(training.weights, start.hparams, sampling, xla=config.xla)
        prefix = tokenizer.encode(config.sample_prefix, special=True)
        self._prompt = prefix or [tokenizer.end_of_text]

    def samples(self) -> Iterator[Sample | Notice]:
        """Yields as many samples as the config asks for; a step's samples are always the same."""
        from gpt2cli.decoding.loop import uniforms

        config, state = self._config, self._training.state
        count = config.sample_num
        draws = [uniforms(state.seed, state.step, number) for number in range(count)]
        rows = [Continuation(self._tokenizer, config.sample_length) for _ in range(count)]
        for chosen in self._decoder.tokens([self._prompt] * count, draws, config.sample_length):
            for row, token in zip(rows, chosen.tokens, strict=True):
                if not row.done:
                    row.add(token)
            if all(row.done for row in rows):
                break
        folder = folders.run_folder(config.checkpoint_dir, config.run)
        samples = [
            Sample(state.step, number, config.sample_prefix + row.text)
            for number, row in enumerate(rows, start=1)
        ]
        yield from map(Notice, self._decoder.model.compiler.told())
        try:
            journal.write_samples(folder, state.step, "".join(map(str, samples)))
        except (DiskError, OutputError) as error:
            yield Notice(f"{error} Training goes on.")
        yield from samples
