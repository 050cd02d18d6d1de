"""`gpt2cli finetune`: text and a GPT-2 in, a trained run folder out."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2cli import tensorflow_start
from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.errors import DiskError, OutputError
from gpt2cli.fetching.base import fetch_base
from gpt2cli.records import Notice, Record, Sample, Saved, StepReport, Stopped
from gpt2cli.signals import Stop, deferred
from gpt2cli.storage import folders, journal, run
from gpt2cli.storage.recovery import settle
from gpt2cli.storage.start import Start, for_finetune
from gpt2cli.storage.state import State
from gpt2cli.text.continuation import Continuation
from gpt2cli.text.tokenizer import Tokenizer, read_tokenizer
from gpt2cli.training import cluster, data, memory, plan
from gpt2cli.training.cluster import Cluster

if TYPE_CHECKING:
    from gpt2cli.training.session import Session

SAMPLE_TEMPERATURE = 0.7


def finetune(config: FinetuneConfig) -> Iterator[Record]:
    """Trains as the config says and yields what happens; all is checked before TensorFlow loads.

    Raises:
        Gpt2cliError: of every kind; see errors.py.
    """
    config.check_device()
    together = cluster.read(config)
    if together is None or together.leads:
        yield from train(config, together)
        return
    yield Notice(f"{together.name(together.number)} of {together.size}; the first tells and writes")
    yield from (record for record in train(config, together) if isinstance(record, Stopped))


def train(config: FinetuneConfig, together: Cluster | None) -> Iterator[Record]:
    """Trains, alone or as one of several processes; yields what happens."""
    plan.check_divisible(config.batch_size, together.size if together else 1)
    texts = data.find(config)
    yield from data.remarks(config, texts)
    yield from fetch_base(config)
    folder = folders.run_folder(config.checkpoint_dir, config.run)
    leads = together is None or together.leads
    with run.owned(folder) if leads else private_folder() as place:
        start = for_finetune(config)
        if config.until_step is not None and start.step >= config.until_step:
            yield Notice(f"{folder} is already at step {start.step}.")
            return
        tokenizer = read_tokenizer(start.encoder, start.merges, start.hparams.n_vocab, trained=True)
        window = plan.check_settings(config, start, tokenizer)
        rank, _ = plan.adapters(config, start)
        needed = memory.run_of(config, start.hparams, rank, together.size if together else 1)
        yield Notice(memory.check(config, needed))
        encoded = yield from data.encode(config, texts, tokenizer, place or folder, window)
        state = plan.first_state(config, start, encoded.name)
        state, line = plan.met(together, config, start, state, encoded)
        yield from map(Notice, start.remarks())
        if leads:
            yield from map(Notice, plan.repeated(folder, start))
            yield from plan.opening(start, state, encoded, needed.trained)
            yield from prepared(config, folder, start)
        with deferred() as stop:
            tensorflow_start.load(
                verbose=config.verbose,
                frugal=plan.is_frugal(config, state),
                keep_compiled=config.xla,
            )
            from gpt2cli.training import devices, session, team

            device = devices.prepare(config.device, config.gpu_bytes)
            yield Notice(f"device: {device}, {devices.precision(config.precision)}")
            members = team.gathered(config, together, line, lambda: stop.signum)
            yield from map(Notice, members.remarks(config))
            training = session.Session(config, start, state, encoded, members)
            sampler = Sampler(config, start, training, tokenizer)
            yield from noted(drive(config, training, sampler, stop), folder if leads else None)


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """Makes a folder for the text of a process that writes nothing in the run folder."""
    with tempfile.TemporaryDirectory(prefix="gpt2cli-") as place:
        yield Path(place)


def prepared(config: FinetuneConfig, folder: Path, start: Start) -> Iterator[Record]:
    """Makes the run folder ready for a start that is certain; yields what was found damaged."""
    if start.found:
        yield from map(Notice, settle(folder, start.found))
    run.prepare(folder, start.folder)
    journal.write_config(folder, dataclasses.asdict(config))


def noted(records: Iterator[Record], folder: Path | None) -> Iterator[Record]:
    """Yields records, and writes them into the run folder, where one is given."""
    if folder is None:
        yield from records
        return
    from gpt2cli.training import board

    log, curves = journal.Log(folder), board.Board(folder)
    with contextlib.closing(curves):
        for record in records:
            for told in log.note(record):
                yield from curves.note(told)


def drive(
    config: FinetuneConfig, training: Session, sampler: Sampler, stop: Stop
) -> Iterator[Record]:
    """Trains step by step; yields every step, validation, sample and save as they happen."""
    from gpt2cli.training.team import ENOUGH, GO_ON

    if training.validates and config.val_every:
        yield training.validate()
    team, last = training.team, training.last
    word = training.agreed(stop.signum or GO_ON)
    while word == GO_ON and (last is None or training.state.step < last):
        report = training.step(lambda: team.alone and stop.signum is not None)
        if report is None:
            break
        reason = None
        if team.leads:
            yield from after_step(config, training, sampler, report)
            if reason := enough(config, training.state, training.seconds):
                yield Notice(reason)
        word = training.agreed(ENOUGH if reason else stop.signum or GO_ON)
    if team.leads and training.state.step not in (0, training.saved):
        yield Saved(training.state.step, str(training.save()))
    # Nobody leaves before the last step is saved.
    training.agreed(GO_ON)
    signum = word if word not in (GO_ON, ENOUGH) else stop.signum
    if signum is not None:
        step = training.state.step
        safe = f"Step {step} is saved" if step else "No step was done yet"
        yield Stopped(signum, f"{safe}; the same command goes on from there.")


def after_step(
    config: FinetuneConfig, training: Session, sampler: Sampler, report: StepReport
) -> Iterator[Record]:
    """Yields what is due after a step: its line, a validation, samples, a save."""
    step = training.state.step
    if due(step, config.print_every):
        yield report
    if training.validates and due(step, config.val_every):
        yield training.validate()
    if due(step, config.sample_every):
        yield from sampler.samples()
    if due(step, config.save_every) or training.improved or training.waits(config.save_minutes):
        yield Saved(step, str(training.save()))


def enough(config: FinetuneConfig, state: State, seconds: float) -> str | None:
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
        from gpt2cli.decoding.rows import uniforms

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
        yield from map(Notice, self._decoder.remarks())
        try:
            journal.write_samples(folder, state.step, "".join(map(str, samples)))
        except (DiskError, OutputError) as error:
            yield Notice(f"{error} Training goes on.")
        yield from samples
