"""`gpt2cli finetune`: text and a GPT-2 in, a trained run folder out."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path

from gpt2cli.config import finetune as groups
from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.config.shared import CorpusOptions
from gpt2cli.distributed import cluster, rendezvous
from gpt2cli.distributed.cluster import ALONE, Cluster
from gpt2cli.distributed.rendezvous import Rendezvous
from gpt2cli.fetching.base import fetch_base
from gpt2cli.files.temporary import private_folder
from gpt2cli.hparams import HParams
from gpt2cli.progress import Steps, announced, living
from gpt2cli.records import Alert, Notice, Record, Stopped
from gpt2cli.runtime import tensorflow
from gpt2cli.runtime.signals import deferred
from gpt2cli.storage import run, run_log
from gpt2cli.storage.recovery import quarantine
from gpt2cli.storage.source import CheckpointSource, SourceNames
from gpt2cli.storage.state import State
from gpt2cli.storage.training_source import find_for_training
from gpt2cli.terminal import is_terminal
from gpt2cli.text import dataset, markers
from gpt2cli.text.decoding import normalized_line_ends
from gpt2cli.text.documents import Corpus, find_corpora
from gpt2cli.text.token_files import Encoder
from gpt2cli.text.tokenizer import check_fits, read_tokenizer
from gpt2cli.training import beginning, memory, report
from gpt2cli.training.footprint import Footprint, footprint
from gpt2cli.training.job import Job

# The text to train on, and one to validate on.
Corpora = tuple[Corpus, Corpus | None]


def finetune(config: FinetuneConfig) -> Iterator[Record]:
    """Trains as the config says and yields what happens; all is checked before TensorFlow loads."""
    config.check_device()
    members = cluster.read_cluster(
        slurm=config.cluster == "slurm",
        multi_gpu=config.multi_gpu,
        load_tensorflow=partial(load_tensorflow, config, lora_rank=config.lora_rank or 0),
    )
    records = train(config, members)
    if not members.is_chief:
        yield Notice(f"{members.name(members.rank)} of {members.size}; the chief prints and writes")
        records = (record for record in records if isinstance(record, Stopped))
    yield from records


def load_tensorflow(config: FinetuneConfig, *, lora_rank: int) -> None:
    """Loads TensorFlow; for adapters of a rank above 0 it saves memory before time."""
    tensorflow.load(
        verbose=config.verbose,
        frugal=config.use_memory_saving_gradients or lora_rank > 0,
        keep_compiled=config.xla,
    )


def train(config: FinetuneConfig, members: Cluster) -> Iterator[Record]:
    """Checks, prepares and runs, in one process or as one of several; yields what happens."""
    cluster.check_divisible(config.batch_size, members.size)
    corpora = yield from find_texts(config)
    folder = config.run_folder
    # Others than the chief write nothing into the run folder.
    with run.owned(folder) if members.is_chief else private_folder() as place:
        with living("looking for the weights", quiet=config.quiet):
            start = yield from find_for_training(
                SourceNames(model_name=config.model_name, model_dir=config.model_dir, run=folder),
                config.restore_from,
                overwrite=config.overwrite,
                fetch=partial(fetch_base, offline=config.offline, quiet=config.quiet),
            )
        every = {"val_every": config.val_every, "sample_every": config.sample_every}
        if beginning.is_done(start, config.until_step, folder, **every):
            if start.state:
                # The run may have been killed before it could.
                run_log.write_best(folder, *start.state.lowest)
            yield Notice(f"{folder} is already at step {start.step}.")
            return
        job, meeting = yield from prepare(config, members, start, corpora, place or folder)
        yield from run_job(config, job, meeting)


def find_texts(config: FinetuneConfig) -> Generator[Record, None, Corpora]:
    """Yields what is read and skipped; returns the texts."""
    own = config.model_dir, config.checkpoint_dir, config.model_name, config.restore_from
    named = filter(None, (config.dataset, config.val_dataset))
    corpus, *others = yield from find_corpora(
        named, config.part(CorpusOptions), own, all_skipped=config.verbose
    )
    return corpus, others[0] if others else None


def prepare(
    config: FinetuneConfig, members: Cluster, start: CheckpointSource, corpora: Corpora, place: Path
) -> Generator[Record, None, tuple[Job, Rendezvous | None]]:
    """Encodes the text, meets the other workers, makes the run folder ready; returns the job."""
    folder, (corpus, held_out) = config.run_folder, corpora
    tokenizer = read_tokenizer(*start.vocabulary, start.hparams.n_vocab, trained=True)
    check_fits(tokenizer, start.hparams)
    prefix = config.sample_prefix
    prefix = prefix if config.keep_line_ends else normalized_line_ends(prefix)
    beginning.check_lengths(prefix, config.window, tokenizer, start.hparams.n_ctx)
    state = beginning.first_state(start, config.lora_rank, config.lora_alpha)
    needed = footprint_of(config, start.hparams, state.lora_rank, machines=members.size)
    yield Notice(memory.check_memory(needed, config, refuse=config.memory_check))
    encoder = Encoder(options=config, tokenizer=tokenizer, quiet=config.quiet)
    validation = validation_of(config, held_out)
    window = config.window or start.hparams.n_ctx
    with living(f"reading {corpus}", quiet=config.quiet):
        data = yield from dataset.encode_dataset(encoder, corpus, validation, place, window)
    yield from map(Alert, markers.remarks([config.sample_prefix], tokenizer, data.tokens))
    state = beginning.on_corpus(state, start, data, seed=config.seed, optimizer=config.optimizer)
    state, meeting = meet(config, members, start, data, state)
    yield from map(Alert, start.remarks())
    if members.is_chief:
        yield from report.opening(folder, start, state, data, needed.trained)
        yield from make_ready(config, folder, start)
    job = Job(
        folder=folder,
        start=start,
        state=state,
        data=data,
        tokenizer=tokenizer,
        footprint=needed,
        length=config.part(groups.LengthOptions),
        batch=config.part(groups.BatchOptions),
        optimizer=config.part(groups.OptimizerOptions),
        compute=config.part(groups.MemoryOptions),
        validation=config.part(groups.ValidationOptions),
        samples=dataclasses.replace(config.part(groups.SampleOptions), sample_prefix=prefix),
        saving=config.part(groups.SavingOptions),
        print_every=config.print_every,
        quiet=config.quiet or not members.is_chief,
    )
    return job, meeting


def footprint_of(
    config: FinetuneConfig, hparams: HParams, rank: int, *, machines: int = 1
) -> Footprint:
    """Returns what the settings say of the memory that each device takes."""
    return footprint(
        hparams,
        rank,
        batch=config.part(groups.BatchOptions),
        optimizer=config.part(groups.OptimizerOptions),
        compute=config.part(groups.MemoryOptions),
        machines=machines,
    )


def validation_of(config: FinetuneConfig, held_out: Corpus | None) -> dataset.Validation:
    """Returns what a run is validated on; nothing is held out unasked if nothing is validated."""
    never = config.val_fraction is None and not config.val_every
    return dataset.Validation(
        files=held_out,
        fraction=0.0 if never else config.val_fraction,
        windows=config.val_batches * config.batch_size,
    )


def meet(
    config: FinetuneConfig,
    members: Cluster,
    start: CheckpointSource,
    data: dataset.Data,
    state: State,
) -> tuple[State, Rendezvous | None]:
    """Waits for the other processes; returns the state with their seed, and what connects them."""
    if members == ALONE:
        return state, None
    facts = cluster.facts(
        dataclasses.asdict(config),
        corpus=data.name,
        validation=data.held_out_name,
        start=beginning.origin(start),
        devices=memory.devices(config.device),
    )
    meeting = rendezvous.join(members, facts, state.seed, config.wait_minutes)
    return dataclasses.replace(state, seed=meeting.seed), meeting


def make_ready(config: FinetuneConfig, folder: Path, start: CheckpointSource) -> Iterator[Record]:
    """Makes the run folder ready for a start that is certain; yields what was found damaged."""
    if start.found:
        yield from map(Alert, quarantine(folder, start.found))
    run.prepare(folder, start.folder)
    run_log.write_config(folder, dataclasses.asdict(config))


def run_job(config: FinetuneConfig, job: Job, meeting: Rendezvous | None) -> Iterator[Record]:
    """Loads TensorFlow and the weights, and trains; yields what happens."""
    safe = report.what_is_safe(job.start.step)
    with deferred() as stop:
        with stop.at_once(safe), announced("loading TensorFlow", quiet=job.quiet):
            load_tensorflow(config, lora_rank=job.state.lora_rank)
            from gpt2cli.distributed import process_group
            from gpt2cli.runtime import devices
            from gpt2cli.training import curves
            from gpt2cli.training.loop import Loop
            from gpt2cli.training.session import Session

            device = devices.configure(config.device, config.gpu_bytes, config.precision)
        yield Notice(f"device: {device}, {devices.describe_precision(config.precision)}")
        group = process_group.form(
            meeting, config.wait_minutes, lambda: stop.signum, shared=config.is_shared
        )
        cluster.check_divisible(config.batch_size, group.size)
        if group.strategy is not None:
            share = f"{config.batch_size // group.size} of each micro-batch's windows on each"
            yield Notice(f"together: {group.size} devices, {share}")
        elif config.is_shared:
            yield Notice("--multi-gpu: there is only one device; it trains as without.")
        # If there are other processes, they learn of the signal first: see `Loop.run`.
        remedy = memory.remedy(job.footprint)
        explained = partial(memory.explained, config.device, config.gpu_bytes)
        with (
            stop.at_once(safe) if group.is_single else contextlib.nullcontext(),
            explained(remedy=remedy, safe=lambda: "Nothing was changed."),
            announced(f"loading {job.start.prefix or job.start.folder}", quiet=job.quiet),
        ):
            session = Session(job, group)
            loop = Loop(job, session, stop)
        if session.backend.reason:
            yield Notice(f"computing: {session.backend.reason}")
        records = loop.run()
        if group.is_chief:
            records = curves.noted(records, job.folder)
        if not job.quiet and is_terminal():
            records = Steps(job.start.step, job.last).told(records)
        with explained(remedy=remedy, safe=lambda: session.safe):
            yield from records
        yield from map(Notice, loop.closing)
