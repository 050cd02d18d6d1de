"""Which models and runs there are, judged by their descriptions and sizes; nothing is changed."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from gpt2cli import reading
from gpt2cli.errors import MOST_CHARACTERS, BadDataError, Gpt2cliError, shortened
from gpt2cli.files import paths
from gpt2cli.hparams import HParams, read_hparams
from gpt2cli.json_reader import Json
from gpt2cli.storage import bundle, huggingface, run_log
from gpt2cli.storage.base_models import opened
from gpt2cli.storage.source import from_prefix
from gpt2cli.storage.state import State, read_record, read_state

# How many of a foreign folder's files a message names, and how much of a name (characters).
NAMED_FILES, SHOWN_NAME = 3, 40

# About one thing, as a line of JSON holds them.
Facts = dict[str, Json]
Found = TypeVar("Found")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """A folder among those of models or runs.

    Attributes:
        path: where it is.
        size: of all files in it (bytes).
        changed: when the last of them was written (seconds since 1970); 0: it has none.
        problem: why it is not a model or a run that can be read; empty if it is one.
    """

    path: Path
    size: int
    changed: float
    problem: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a model folder says of itself.

    Attributes:
        hparams: its shape.
        form: whose files it holds: openai or huggingface.
    """

    hparams: HParams
    form: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What a run folder says of itself.

    Attributes:
        hparams: the model's shape.
        step: of the newest checkpoint.
        steps: those whose checkpoints are there.
        state: of the newest checkpoint; None if gpt-2-simple wrote it.
        best_step: the step with the lowest validation loss; None if nothing was validated.
        best_loss: that loss (nats per token), if it is known.
    """

    hparams: HParams
    step: int
    steps: list[int]
    state: State | None
    best_step: int | None
    best_loss: float | None


def folders_in(folder: Path) -> list[Path]:
    """Returns the folders inside a folder that are not hidden, sorted; none if it is missing.

    Raises:
        OSError: it cannot be read.
    """
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def examined(path: Path, read: Callable[[Path], Found]) -> tuple[Place, Found | None]:
    """Returns what there is to say of a folder, and what `read` makes of it if it is whole."""
    size, changed = measured(path)
    try:
        return Place(path=path, size=size, changed=changed), read(path)
    except OSError as error:
        problem = str(reading.refusal(error, path))
    except Gpt2cliError as error:
        problem = shortened(error, MOST_CHARACTERS)
    return Place(path=path, size=size, changed=changed, problem=problem), None


def measured(folder: Path) -> tuple[int, float]:
    """Returns the size of all files below a folder (bytes), and when the last was written.

    Links are not followed; what cannot be read counts nothing.
    """
    size, changed = 0, 0.0
    for entry in reading.files_below(folder, skip_unreadable=True):
        with contextlib.suppress(OSError):
            status = entry.stat(follow_symlinks=False)
            size, changed = size + status.st_size, max(changed, status.st_mtime)
    return size, changed


def read_model(folder: Path) -> ModelFacts:
    """Returns what a model folder says of itself, the sizes of its weights checked.

    Raises:
        BadDataError: it is not a model, or is damaged.
        MissingInputError: a file of it is missing.
        OSError: it cannot be read.
    """
    if not any((folder / name).exists() for name in paths.MODEL_FILES):
        raise foreign(folder, "model")
    place = opened(folder)
    is_foreign, shape = huggingface.is_folder(place), huggingface.hparams(place)
    from_prefix(huggingface.weights(place) if is_foreign else paths.newest(place), place)
    return ModelFacts(hparams=shape, form="huggingface" if is_foreign else "openai")


def read_run(folder: Path) -> RunFacts:
    """Returns what a run folder says of itself, the sizes of its newest checkpoint checked.

    Raises:
        BadDataError: it is not a run, or is damaged.
        MissingInputError: a file of it is missing.
        OSError: it cannot be read.
    """
    if not paths.has_checkpoints(folder):
        raise foreign(folder, "trained run")
    steps = paths.checkpoint_steps(folder)
    prefix = paths.newest(folder) or (paths.weights(folder, steps[-1]) if steps else None)
    if prefix is None:
        raise BadDataError(f"{shortened(folder)} holds no checkpoint.")
    hparams, step = read_hparams(folder / paths.HPARAMS), paths.step_of(prefix)
    bundle.check_weights(prefix, hparams)
    state = None
    if paths.state(prefix.parent, step).exists():
        check_sizes(prefix.parent, step)
        state = read_state(prefix.parent, step)
    best, loss = best_of(folder, state)
    return RunFacts(
        hparams=hparams, step=step, steps=steps, state=state, best_step=best, best_loss=loss
    )


def check_sizes(folder: Path, step: int) -> None:
    """Raises BadDataError unless the files of a step's checkpoint have the sizes in its state."""
    for name, facts in read_record(folder, step)["files"].items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else None
        if size != facts["size"]:
            there = "is missing" if size is None else f"has {size} bytes"
            raise BadDataError(f"{shortened(path)} {there}; it should have {facts['size']} bytes.")


def best_of(folder: Path, state: State | None) -> tuple[int | None, float | None]:
    """Returns the step with a run's lowest validation loss, and that loss, if they are known."""
    if state is not None and state.lowest[1] is not None:
        return state.lowest
    return run_log.best_step(folder), None


def foreign(folder: Path, kind: str) -> BadDataError:
    """Returns the error of a folder that holds something else; it names a few of its files."""
    names = sorted(path.name for path in folder.iterdir())
    shown = ", ".join(shortened(name, SHOWN_NAME) for name in names[:NAMED_FILES])
    more = f" and {len(names) - NAMED_FILES} more" if len(names) > NAMED_FILES else ""
    return BadDataError(f"Not a {kind}: {f'it holds {shown}{more}' if names else 'it is empty'}.")


def thinned(steps: list[int], losses: list[float], most: int) -> Iterator[tuple[int, float]]:
    """Yields points of a curve, at most about `most`, evenly chosen; the last is among them."""
    every = max(1, len(steps) // most)
    chosen = range(len(steps) - 1, -1, -every)
    yield from ((steps[place], losses[place]) for place in reversed(chosen))
