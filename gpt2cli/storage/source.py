"""Which weights a command line means: found, fetched if they are missing, and checked."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TypeVar

from gpt2cli.chat_template import CHAT_TEMPLATE
from gpt2cli.config.shared import BEST, LATEST
from gpt2cli.errors import BadDataError, MissingInputError, TryLaterError
from gpt2cli.files import paths
from gpt2cli.files.hub_names import HubName, meant_hub_name, model_label
from gpt2cli.hparams import HParams, read_hparams
from gpt2cli.reading import UnreadableError
from gpt2cli.records import Notice, Record
from gpt2cli.special_tokens import read_any
from gpt2cli.storage import bundle, huggingface, run_log
from gpt2cli.storage.base_models import check_revision, first_file, hub_folder, opened, present
from gpt2cli.storage.recovery import TRIES, Intact, newest_intact, verify
from gpt2cli.storage.state import State, read_state

Loaded = TypeVar("Loaded")
# Fetches the base model that belongs into a folder, if it knows the folder's name, or the one
# that has this name on the Hub.
Fetch = Callable[[Path, HubName | None], Iterator[Record]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceNames:
    """What a command line says about the weights that it means.

    They are those of a base model, by its name or path; or if that is None, those of the run's
    checkpoint: latest, best or a step.
    """

    model_name: str | None
    model_dir: str
    run: Path
    checkpoint: str = LATEST


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointSource:
    """Where a model's weights are.

    Attributes:
        folder: the folder with its shape and vocabulary.
        prefix: the checkpoint of its weights; None: random weights.
        model_name: the base model that it is, or began with.
        state: the state of a run that gpt2cli wrote and that goes on.
        step: the steps that it was trained for.
        found: the run's intact checkpoint, if there is a run: used or replaced.
        chat_template: how it knows conversations, in Jinja: CHAT_TEMPLATE; or empty if it knows
            none.
    """

    folder: Path
    hparams: HParams
    prefix: Path | None
    model_name: str
    state: State | None = None
    step: int = 0
    found: Intact | None = None
    chat_template: str = ""

    def remarks(self) -> Iterator[str]:
        """Yields a line about every newer checkpoint that is damaged."""
        for reason in self.found.damaged.values() if self.found else ():
            yield f"{reason} It is stepped over."

    @property
    def optimizer(self) -> Path:
        """The prefix of the optimiser state of a run that is continued."""
        return paths.optimizer((self.prefix or self.folder).parent, self.step)

    @property
    def vocabulary(self) -> tuple[Path, Path]:
        """The files with its tokens and its merges."""
        return huggingface.vocabulary_files(self.folder)


def find(
    names: SourceNames, fetch: Fetch | None = None
) -> Generator[Record, None, CheckpointSource]:
    """Returns the weights that a command reads: a run's checkpoint, or a base model.

    Yields what `fetch` does if the base model is missing. Raises MissingInputError if there is no
    such run, model or checkpoint; BadDataError if it is damaged or does not fit its hparams.json.
    """
    if names.model_name is not None:
        return (yield from find_base(names.model_dir, names.model_name, fetch))
    folder = names.run
    if not paths.has_checkpoints(folder):
        raise MissingInputError(
            f"There is no trained run {folder}; {paths.names_in(folder.parent)}. "
            f"Train one with `gpt2cli finetune`, or give --run-name or --model-name."
        )
    latest = names.checkpoint == LATEST
    return from_run(folder, step=None if latest else chosen_step(folder, names.checkpoint))


def find_base(
    model_dir: str, name: str, fetch: Fetch | None, *, with_weights: bool = True
) -> Generator[Record, None, CheckpointSource]:
    """Returns a base model, its weights checked; or without them, only its shape. As `find`."""
    hub = meant_hub_name(model_dir, name)
    folder = hub_folder(model_dir, hub) if hub else paths.base_model(model_dir, name)
    needed = first_file(folder) if with_weights or hub else folder / paths.HPARAMS
    # A path is not fetched, nor is what is outside the folder of models.
    named = (hub is not None or not paths.is_path(name)) and folder.parent == Path(model_dir)
    if fetch is not None and named and not needed.exists():
        yield from fetch(folder, hub)
    place = present(folder)
    if hub is not None:
        check_revision(place, hub)
    title = str(hub) if hub else model_title(folder, name)
    if with_weights:
        return dataclasses.replace(from_path(place), model_name=title)
    shape = huggingface.hparams(place)
    return CheckpointSource(folder=place, hparams=shape, prefix=None, model_name=title)


def load(
    names: SourceNames, source: CheckpointSource, read: Callable[[Path, HParams], Loaded]
) -> Generator[Record, None, Loaded]:
    """Returns what `read` makes of the weights; yields a line if they had to be found again.

    A run that goes on may remove a checkpoint after it was found and before it was read. Then
    the one that took its place is read. Raises as `find` does.
    """
    for _ in range(TRIES):
        if source.prefix is None:
            raise MissingInputError(f"{source.folder} holds no weights.")
        try:
            return read(source.prefix, source.hparams)
        except UnreadableError:
            raise
        except (BadDataError, MissingInputError):
            before, source = source.prefix, (yield from find(names))
            if source.prefix == before:
                raise
        yield Notice(f"again, from {source.prefix}")
    raise TryLaterError(f"{source.folder} changes faster than it can be read. Try again later.")


def chosen_step(folder: Path, checkpoint: str) -> int:
    """Returns the step that `best` or a number names; MissingInputError if it has no checkpoint."""
    step = run_log.best_step(folder) if checkpoint == BEST else int(checkpoint)
    steps = paths.checkpoint_steps(folder)
    if step is not None and step in steps:
        return step
    if checkpoint != BEST:
        missing = f"checkpoint of step {step}"
    elif step:
        missing = f"best checkpoint: that of step {step} is gone"
    elif step is None and not run_log.history(folder).val_steps:
        missing = "best checkpoint: it was never validated"
    else:
        first = "its lowest validation loss is that of step 0, before it was trained"
        missing = f"best checkpoint: {first}"
    there = ", ".join(map(str, steps)) or "none"
    raise MissingInputError(f"{folder} has no {missing}; there are: {there}.")


def model_title(folder: Path, name: str) -> str:
    """Returns what to call a model that a command line names by this name, or by a path."""
    known = paths.known_name(name)
    whole = known if folder.name == known else Path(name).name
    return model_label(whole) or folder.resolve().name


def from_path(path: Path) -> CheckpointSource:
    """Returns the weights that a path names: a model or run folder, or a checkpoint in one."""
    if path.is_dir() and paths.has_checkpoints(path):
        return dataclasses.replace(from_run(path), state=None, step=0, found=None)
    if path.is_dir():
        place = opened(path)
        is_foreign = huggingface.is_folder(place)
        return from_prefix(huggingface.weights(place) if is_foreign else paths.newest(place), place)
    if path.is_file():
        # Its folder says what kind of weights it holds.
        opened(path.parent)
    return from_prefix(path.with_suffix("") if path.suffix == ".index" else path, path.parent)


def from_prefix(prefix: Path | None, folder: Path) -> CheckpointSource:
    """Returns the weights of one checkpoint, checked against its folder's hparams.json."""
    if prefix is not None and huggingface.is_weights(prefix):
        hparams = huggingface.hparams(folder)
        huggingface.check(prefix, hparams)
    elif prefix is None or not paths.index_file(prefix).exists():
        raise MissingInputError(f"There is no checkpoint {prefix or folder}.")
    else:
        hparams = read_hparams(folder / paths.HPARAMS)
        bundle.check_weights(prefix, hparams)
    return CheckpointSource(
        folder=folder,
        hparams=hparams,
        prefix=prefix,
        model_name=folder.name,
        chat_template=template_beside(folder, paths.step_of(prefix)),
    )


def from_run(folder: Path, *, resume: bool = False, step: int | None = None) -> CheckpointSource:
    """Returns a run's newest intact checkpoint, or that of one step, verified."""
    if step is None:
        found = newest_intact(folder, resume=resume)
    else:
        # No other takes its place.
        found = verify(folder, paths.weights(folder, step), resume=resume)
    return CheckpointSource(
        folder=folder,
        hparams=found.hparams,
        prefix=found.prefix,
        model_name=found.state.model_name if found.state else folder.name,
        state=found.state,
        step=paths.step_of(found.prefix),
        found=found,
        chat_template=found.state.chat_template if found.state else template_of(folder),
    )


def template_of(folder: Path) -> str:
    """Returns how a model in a folder knows conversations, or an empty string if it does not."""
    known = read_any(folder / paths.TOKENS).get("chat_template")
    return CHAT_TEMPLATE if known == CHAT_TEMPLATE else ""


def template_beside(folder: Path, step: int) -> str:
    """Returns the same of a checkpoint; a run's state says it, which may be damaged or gone."""
    if step and paths.state(folder, step).exists():
        with contextlib.suppress(BadDataError):
            return read_state(folder, step).chat_template
    return template_of(folder)
