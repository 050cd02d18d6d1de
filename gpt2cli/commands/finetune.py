"""`gpt2cli finetune`: text and a GPT-2 in, a trained run folder out."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2cli.chat_template import CHAT_TEMPLATE
from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.distributed import cluster
from gpt2cli.distributed.cluster import Cluster
from gpt2cli.distributed.rendezvous import Line
from gpt2cli.errors import DiskError, OutputError
from gpt2cli.fetching.base import fetch_base
from gpt2cli.files import paths, temporary
from gpt2cli.progress import COMPILING, Count, announced
from gpt2cli.records import Alert, Notice, Progress, Record, Sample, Stopped
from gpt2cli.runtime import tensorflow
from gpt2cli.runtime.signals import Stop, deferred
from gpt2cli.storage import run, run_log
from gpt2cli.storage.recovery import quarantine
from gpt2cli.storage.source import CheckpointSource, SourceNames
from gpt2cli.storage.state import State
from gpt2cli.storage.training_source import find_for_training
from gpt2cli.text import dataset, documents, finding, markers
from gpt2cli.text.continuation import Continuation
from gpt2cli.text.encodings import normalized_line_ends
from gpt2cli.text.finding import CorpusFiles
from gpt2cli.text.token_files import Encoder
from gpt2cli.text.tokenizer import Tokenizer, read_tokenizer
from gpt2cli.training import memory, setup
from gpt2cli.training.interruptible import interruptible

if TYPE_CHECKING:
    from gpt2cli.training.session import Session

SAMPLE_TEMPERATURE = 0.7


def finetune(config: FinetuneConfig) -> Iterator[Record]:
    """Trains as the config says and yields what happens; all is checked before TensorFlow loads.

    Raises:
        Gpt2cliError: of every kind; see errors.py.
    """
    config.check_device()
    together = cluster.read_cluster(config)
    if together is None or together.leads:
        yield from train(config, together)
        return
    yield Notice(f"{together.name(together.number)} of {together.size}; the first tells and writes")
    yield from (record for record in train(config, together) if isinstance(record, Stopped))


def train(config: FinetuneConfig, together: Cluster | None) -> Iterator[Record]:
    """Trains in one process or as one of several; yields what happens."""
    setup.check_divisible(config.batch_size, together.size if together else 1)
    corpus, held_out = yield from find_texts(config)
    folder = paths.run_folder(config.checkpoint_dir, config.run)
    leads = together is None or together.leads
    with run.owned(folder) if leads else temporary.private_folder() as place:
        start = yield from found_start(config, folder)
        if setup.is_done(config, start):
            setup.keep_best(folder, start)
            yield Notice(f"{folder} is already at step {start.step}.")
            return
        tokenizer = read_tokenizer(*start.vocabulary, start.hparams.n_vocab, trained=True)
        window = setup.check_settings(config, start, tokenizer)
        rank, _ = setup.adapters(config, start)
        needed = memory.run_of(config, start.hparams, rank, together.size if together else 1)
        yield Notice(memory.check(config, needed))
        encoder = Encoder(options=config, tokenizer=tokenizer, quiet=config.quiet)
        validation = validation_of(config, held_out)
        encoded = yield from dataset.encode_dataset(
            encoder, corpus, validation, place or folder, window
        )
        yield from map(Alert, markers.remarks([config.sample_prefix], tokenizer, encoded.tokens))
        template = CHAT_TEMPLATE if encoded.has_conversations else start.chat_template
        state = setup.first_state(config, start, encoded.name, template)
        state, line = setup.met(together, config, start, state, encoded)
        yield from map(Alert, start.remarks())
        if leads:
            yield from map(Alert, setup.repeated(folder, start))
            yield from setup.opening(start, state, encoded, needed.trained)
            yield from prepared(config, folder, start)
        yield from computed(
            Job(
                config=config,
                start=start,
                state=state,
                data=encoded,
                tokenizer=tokenizer,
                needed=needed,
                together=together,
                line=line,
                folder=folder if leads else None,
            )
        )


def found_start(config: FinetuneConfig, folder: Path) -> Generator[Record, None, CheckpointSource]:
    """Returns what the run starts from; a base model that is missing is fetched."""
    return (
        yield from find_for_training(
            SourceNames(model_name=config.model_name, model_dir=config.model_dir, run=folder),
            config.restore_from,
            overwrite=config.overwrite,
            fetch=partial(fetch_base, offline=config.offline, quiet=config.quiet),
        )
    )


def find_texts(
    config: FinetuneConfig,
) -> Generator[Record, None, tuple[CorpusFiles, CorpusFiles | None]]:
    """Yields what is read and skipped; returns the text to train on, and one to validate on."""
    own = config.model_dir, config.checkpoint_dir, config.model_name, config.restore_from
    yield from finding.announce_streams((*config.dataset, *config.val_dataset))
    held_out = None
    if config.val_dataset:
        held_out = finding.find(config.val_dataset, config.encoding, own)
    corpus = finding.find(config.dataset, config.encoding, own)
    every = corpus.plus(held_out)
    yield from every.remarks(all_skipped=config.verbose)
    yield from documents.remarks(every.files, config)
    return corpus, held_out


def validation_of(config: FinetuneConfig, held_out: CorpusFiles | None) -> dataset.Validation:
    """Returns what a run is validated on; nothing is held out unasked if nothing is validated."""
    never = config.val_fraction is None and not config.val_every
    return dataset.Validation(
        files=held_out,
        fraction=0.0 if never else config.val_fraction,
        windows=config.val_batches * config.batch_size,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A run that is checked and prepared: all that computing needs.

    Attributes:
        config: the settings.
        start: where the weights come from.
        state: where the run is.
        data: what it trains on.
        tokenizer: the model's.
        needed: what memory it is expected to take.
        together: the processes that train together, if there are others.
        line: what connects them.
        folder: the run folder, or None if another process writes it.
    """

    config: FinetuneConfig
    start: CheckpointSource
    state: State
    data: dataset.Data
    tokenizer: Tokenizer
    needed: memory.Run
    together: Cluster | None
    line: Line | None
    folder: Path | None

    @property
    def is_quiet(self) -> bool:
        """Whether to say nothing of what takes long: as asked, or if another process tells."""
        return self.config.quiet or self.folder is None


def computed(job: Job) -> Iterator[Record]:
    """Loads TensorFlow and the weights, and trains; yields what happens."""
    config, step = job.config, job.start.step
    with deferred() as stop:
        with (
            stop.at_once(setup.what_is_safe(step)),
            announced("loading TensorFlow", quiet=job.is_quiet),
        ):
            tensorflow.load(
                verbose=config.verbose,
                frugal=setup.is_frugal(config, job.state),
                keep_compiled=config.xla,
            )
            from gpt2cli.runtime import devices
            from gpt2cli.training import loop, out_of_memory, session, workers

            device = devices.configure(config.device, config.gpu_bytes, config.precision)
        yield Notice(f"device: {device}, {devices.describe_precision(config.precision)}")
        members = workers.gathered(config, job.together, job.line, lambda: stop.signum)
        yield from map(Notice, members.remarks(config))
        # If there are other processes, they learn of the signal first: see `loop.drive`.
        with (
            stop.at_once(setup.what_is_safe(step)) if members.alone else contextlib.nullcontext(),
            out_of_memory.explained(config, memory.remedy(job.needed), "Nothing was changed."),
            announced(f"loading {job.start.prefix or job.start.folder}", quiet=job.is_quiet),
        ):
            training = session.Session(config, job.start, job.state, job.data, members)
            sampler = Sampler(config, job.start, training, job.tokenizer)
        if training.backend.reason:
            yield Notice(f"computing: {training.backend.reason}")
        records = loop.drive(config, training, sampler, stop, job.needed)
        yield from noted(records, job.folder)


def prepared(config: FinetuneConfig, folder: Path, start: CheckpointSource) -> Iterator[Record]:
    """Makes the run folder ready for a start that is certain; yields what was found damaged."""
    if start.found:
        yield from map(Alert, quarantine(folder, start.found))
    run.prepare(folder, start.folder)
    run_log.write_config(folder, dataclasses.asdict(config))


def noted(records: Iterator[Record], folder: Path | None) -> Iterator[Record]:
    """Yields records, and writes them into the run folder, if one is given."""
    if folder is None:
        yield from records
        return
    from gpt2cli.training import tensorboard

    log, curves = run_log.Log(folder), tensorboard.TensorBoardWriter(folder)
    with contextlib.closing(curves):
        for record in records:
            if isinstance(record, Progress):
                yield record
                continue
            for told in log.note(record):
                yield from curves.note(told)


class Sampler:
    """Writes samples from the model in training, and keeps them in the run folder."""

    def __init__(
        self,
        config: FinetuneConfig,
        start: CheckpointSource,
        training: Session,
        tokenizer: Tokenizer,
    ) -> None:
        from gpt2cli.inference.tensorflow_engine import TensorFlowEngine

        self._config, self._training, self._tokenizer = config, training, tokenizer
        self._folder = paths.run_folder(config.checkpoint_dir, config.run)
        self._engine = TensorFlowEngine(training.weights, start.hparams, xla=config.xla)
        kept = config.keep_line_ends
        self._prefix = config.sample_prefix if kept else normalized_line_ends(config.sample_prefix)
        prefix = tokenizer.encode(self._prefix, special=True)
        self._prompt = prefix or [tokenizer.end_of_text]

    def has_sampled(self, step: int) -> bool:
        """Returns whether a step's samples are in the run folder."""
        return run_log.samples_file(self._folder, step).exists()

    def samples(self, stop: Stop) -> Iterator[Sample | Notice | Progress]:
        """Yields as many samples as the config asks for; a step's samples are always the same.

        After a signal there are none.
        """
        from gpt2cli.inference import decode
        from gpt2cli.inference.sampling import SamplingParams

        config, state = self._config, self._training.state
        count, length = config.sample_num, config.sample_length
        params = SamplingParams(temperature=SAMPLE_TEMPERATURE)
        streams = [decode.random_stream(state.seed, state.step, n) for n in range(count)]
        rows = [Continuation(self._tokenizer, length) for _ in range(count)]
        with Count("sampling", length, quiet=config.quiet, unit="tokens") as meter:
            tokens = decode.tokens(self._engine, params, [self._prompt] * count, streams, length)
            work = meter.named(interruptible(tokens, stop), COMPILING)
            for done, chosen in enumerate(work, 1):
                for row, token in zip(rows, chosen.tokens, strict=True):
                    if not row.done:
                        row.add(token)
                if all(row.done for row in rows):
                    break
                yield from meter.advance(done)
        if stop:
            return
        samples = [
            Sample(step=state.step, number=number, text=self._prefix + row.text)
            for number, row in enumerate(rows, start=1)
        ]
        yield from map(Notice, self._engine.pop_warnings())
        try:
            run_log.write_samples(self._folder, state.step, "".join(map(str, samples)))
        except (DiskError, OutputError) as error:
            yield Alert(f"{error} Training goes on.")
        yield from samples
