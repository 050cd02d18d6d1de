"""Which checkpoint a command starts from; everything about it is checked without TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TypeVar

from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.config.shared import BEST, DEFAULT_MODEL, LATEST, SourceOptions
from gpt2cli.errors import BadDataError, MissingInputError, OutputError, TryLaterError
from gpt2cli.files import paths
from gpt2cli.hparams import HParams, read_hparams
from gpt2cli.reading import UnreadableError
from gpt2cli.records import Notice, Record
from gpt2cli.storage import bundle, huggingface, run_log
from gpt2cli.storage.base_models import opened, present
from gpt2cli.storage.recovery import TRIES, Whole, examined, newest_whole
from gpt2cli.storage.state import State

Loaded = TypeVar("Loaded")


@dataclasses.dataclass(frozen=True)
class CheckpointSource:
    """Where a model comes from.

    Attributes:
        folder: where its hparams.json, encoder.json and vocab.bpe lie.
        hparams: its shape.
        prefix: its weights' checkpoint; None: random weights.
        model_name: the base model that it is, or began with.
        state: the run's state where a run is continued that gpt2cli wrote.
        step: steps that were trained before.
        found: the run's newest whole checkpoint, where there is a run, used or replaced.
    """

    folder: Path
    hparams: HParams
    prefix: Path | None
    model_name: str
    state: State | None = None
    step: int = 0
    found: Whole | None = None

    def remarks(self) -> Iterator[str]:
        """Yields a line on every newer checkpoint that was found damaged."""
        for reason in self.found.damaged.values() if self.found else ():
            yield f"{reason} It is stepped over."

    @property
    def optimizer(self) -> Path:
        """The optimiser state of a run that is continued."""
        return paths.optimizer((self.prefix or self.folder).parent, self.step)

    @property
    def encoder(self) -> Path:
        """The vocabulary's tokens."""
        return huggingface.vocabulary_files(self.folder)[0]

    @property
    def merges(self) -> Path:
        """The vocabulary's merges."""
        return huggingface.vocabulary_files(self.folder)[1]


def base_needed(config: FinetuneConfig | SourceOptions) -> Path | None:
    """Returns a file of the base model without which the command can't start; None: it needs none.

    That is its `checkpoint`, or its hparams.json where random weights are asked for.
    """
    name = config.model_name
    if name is not None and paths.is_path(name):
        # What a path names is not fetched.
        return None
    if name is None and isinstance(config, SourceOptions):
        return None
    model = paths.base_model(config.model_dir, name or DEFAULT_MODEL)
    if model.parent != Path(config.model_dir):
        # It lies here.
        return None
    if isinstance(config, SourceOptions):
        return first_file(model)
    if config.restore_from == "scratch":
        return model / paths.HPARAMS
    trained = paths.has_checkpoints(paths.run_folder(config.checkpoint_dir, config.run))
    if config.restore_from == "fresh" or (config.restore_from == "latest" and not trained):
        return first_file(model)
    return None


def first_file(model: Path) -> Path:
    """Returns the file of a model folder that names its weights, or that is read before them."""
    return model / (huggingface.CONFIG if huggingface.is_folder(model) else paths.POINTER)


def for_finetune(config: FinetuneConfig) -> CheckpointSource:
    """Returns what a training run starts from.

    Raises:
        MissingInputError: the model, or what --restore-from names, is not there.
        BadDataError: a checkpoint is damaged, or does not fit its hparams.json or the run.
        OutputError: the run has checkpoints that nobody allowed to replace.
    """
    folder = paths.run_folder(config.checkpoint_dir, config.run)
    existing = from_run(folder, resume=True) if paths.has_checkpoints(folder) else None
    if existing and config.restore_from == "latest":
        check_model(existing, config)
        return existing
    if existing and not config.overwrite:
        raise OutputError(
            f"{folder} holds a run trained to step {existing.step}. Give another --run-name, or "
            f"--overwrite to replace its checkpoints by those of --restore-from "
            f"{config.restore_from}."
        )
    name = config.model_name or DEFAULT_MODEL
    if config.restore_from in ("latest", "fresh"):
        start = from_model(paths.base_model(config.model_dir, name), name)
    elif config.restore_from == "scratch":
        model = present(paths.base_model(config.model_dir, name))
        start = CheckpointSource(model, huggingface.hparams(model), None, model_name(model, name))
    else:
        start = from_path(Path(config.restore_from))
    if existing:
        check_same(existing, start, folder)
        start = dataclasses.replace(start, found=existing.found)
    return start


def for_reading(config: SourceOptions) -> CheckpointSource:
    """Returns the model that a command reads: a run's checkpoint, or a base model.

    Raises:
        MissingInputError: there is no such run, model or checkpoint.
        BadDataError: the checkpoint is damaged or does not fit its hparams.json.
    """
    if config.model_name is not None:
        model = paths.base_model(config.model_dir, config.model_name)
        return from_model(model, config.model_name)
    folder = paths.run_folder(config.checkpoint_dir, config.run)
    if not paths.has_checkpoints(folder):
        raise MissingInputError(
            f"There is no trained run {folder}; {paths.names_in(Path(config.checkpoint_dir))}. "
            f"Train one with `gpt2cli finetune`, or give --run-name or --model-name."
        )
    if config.checkpoint == LATEST:
        return from_run(folder, resume=False)
    return from_step(folder, chosen_step(folder, config.checkpoint))


def chosen_step(folder: Path, checkpoint: str) -> int:
    """Returns the step that `best` or a number names.

    Raises:
        MissingInputError: the run has no checkpoint of it.
    """
    step = run_log.best_step(folder) if checkpoint == BEST else int(checkpoint)
    steps = paths.checkpoint_steps(folder)
    if step is None or step not in steps:
        missing = f"checkpoint of step {step}"
        if checkpoint == BEST:
            missing = f"best checkpoint: {why_no_best(folder, step)}"
        there = ", ".join(map(str, steps)) or "none"
        raise MissingInputError(f"{folder} has no {missing}; there are: {there}.")
    return step


def why_no_best(folder: Path, step: int | None) -> str:
    """Returns why a run has no checkpoint of the step that best.json names, if it names one."""
    if step:
        return f"that of step {step} is gone"
    if step is None and not run_log.history(folder).val_steps:
        return "it was never validated"
    return "its lowest validation loss is that of step 0, before it was trained"


def loaded(
    config: SourceOptions, start: CheckpointSource, load: Callable[[Path, HParams], Loaded]
) -> Generator[Record, None, Loaded]:
    """Returns what is made of a start's weights; yields a line where they had to be found again.

    A run that goes on may remove the checkpoint between the moment that it is found and the one
    that it is read: then the one that took its place is read.

    Raises:
        MissingInputError: there are no weights.
        BadDataError: the checkpoint is damaged.
    """
    for _ in range(TRIES):
        if start.prefix is None:
            raise MissingInputError(f"{start.folder} holds no weights.")
        try:
            return load(start.prefix, start.hparams)
        except UnreadableError:
            raise
        except (BadDataError, MissingInputError):
            before, start = start.prefix, for_reading(config)
            if start.prefix == before:
                raise
        yield Notice(f"once more, from {start.prefix}")
    raise TryLaterError(f"{start.folder} changes faster than it can be read. Try again later.")


def from_model(folder: Path, name: str) -> CheckpointSource:
    """Returns a base model's weights, checked."""
    return dataclasses.replace(from_path(present(folder)), model_name=model_name(folder, name))


def model_name(folder: Path, name: str) -> str:
    """Returns what a model is called that a command line names by this name, or by a path."""
    known = paths.known_name(name)
    return known if folder.name == known else Path(name).name or folder.resolve().name


def from_path(path: Path) -> CheckpointSource:
    """Returns the weights that a path names: a model or run folder, or a checkpoint in one."""
    if path.is_dir() and paths.has_checkpoints(path):
        return dataclasses.replace(from_run(path, resume=False), state=None, step=0, found=None)
    if path.is_dir():
        path = opened(path)
    elif path.is_file():
        # Its folder says what kind of weights it holds.
        opened(path.parent)
    if huggingface.is_folder(path):
        return from_prefix(huggingface.weights(path), path)
    if path.is_dir():
        return from_prefix(paths.newest(path), path)
    return from_prefix(path.with_suffix("") if path.suffix == ".index" else path, path.parent)


def from_prefix(prefix: Path | None, folder: Path) -> CheckpointSource:
    """Returns the weights of one checkpoint, checked against its folder's hparams.json."""
    if prefix is not None and huggingface.is_weights(prefix):
        hparams = huggingface.hparams(folder)
        huggingface.check(prefix, hparams)
        return CheckpointSource(folder, hparams, prefix, folder.name)
    if prefix is None or not paths.index_file(prefix).exists():
        raise MissingInputError(f"There is no checkpoint {prefix or folder}.")
    hparams = read_hparams(folder / paths.HPARAMS)
    bundle.check(prefix, hparams)
    return CheckpointSource(folder, hparams, prefix, folder.name)


def from_run(folder: Path, *, resume: bool) -> CheckpointSource:
    """Returns a run's newest whole checkpoint, with its state where gpt2cli wrote it."""
    found = newest_whole(folder, resume=resume)
    return CheckpointSource(
        folder,
        found.hparams,
        found.prefix,
        found.state.model_name if found.state else folder.name,
        found.state,
        paths.step_of(found.prefix),
        found,
    )


def from_step(folder: Path, step: int) -> CheckpointSource:
    """Returns a run's checkpoint of one step, checked; no other takes its place."""
    prefix = paths.weights(folder, step)
    state = examined(folder, prefix, resume=False)
    hparams = read_hparams(folder / paths.HPARAMS)
    name = state.model_name if state else folder.name
    return CheckpointSource(folder, hparams, prefix, name, state, step)


def check_model(existing: CheckpointSource, config: FinetuneConfig) -> None:
    """Raises BadDataError where --model-name asks for another model than the run has."""
    name = config.model_name
    if name is None or existing.state is None:
        return
    name = Path(paths.known_name(name)).name
    if paths.known_name(name) != paths.known_name(existing.model_name):
        raise BadDataError(
            f"The run {existing.folder} was trained from {existing.model_name}, not from {name}. "
            "Give another --run-name for the other model."
        )


def check_same(existing: CheckpointSource, start: CheckpointSource, folder: Path) -> None:
    """Raises BadDataError unless both have the same shape and vocabulary."""
    if existing.hparams != start.hparams:
        raise BadDataError(
            f"{folder} holds a model of {existing.hparams}, and {start.folder} one of "
            f"{start.hparams}. Give another --run-name."
        )
    ours = huggingface.static_files(folder, trained=True)
    theirs = huggingface.static_files(start.folder, trained=True)
    for name in sorted({*ours, *theirs} - {paths.HPARAMS}):
        if ours.get(name) != theirs.get(name):
            raise BadDataError(
                f"{folder / name} and {start.folder / name} differ. Give another --run-name."
            )
    if existing.state and existing.state.lora_rank and start.prefix:
        base = paths.index_file(folder / paths.BASE)
        given = paths.index_file(start.prefix)
        if not given.exists() or base.read_bytes() != given.read_bytes():
            other = f"{folder} holds adapters to other weights than {start.prefix}."
            raise BadDataError(f"{other} Give another --run-name.")
