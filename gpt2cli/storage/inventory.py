"""Which models and runs there are, judged by their descriptions and sizes; nothing is changed."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

from gpt2cli import reading
from gpt2cli.errors import MOST_CHARACTERS, BadDataError, Gpt2cliError, shortened
from gpt2cli.files import paths
from gpt2cli.hparams import read_hparams
from gpt2cli.json_reader import Json
from gpt2cli.storage import bundle, huggingface, run_log
from gpt2cli.storage.base_models import opened
from gpt2cli.storage.recovery import check_sizes
from gpt2cli.storage.source import from_prefix
from gpt2cli.storage.state import read_record, read_state

# How many of a foreign folder's files a message names, and how much of a name (characters).
NAMED_FILES, SHOWN_NAME = 3, 40

# About one model, run or part of the machine, as a line of JSON holds them.
Facts = dict[str, Json]


def examined_in(kind: str, folder: Path) -> list[Facts]:
    """Returns what there is to say of each folder inside a folder, sorted, but for hidden ones."""
    if not folder.is_dir():
        return []
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    return [examined(kind, path) for path in inside]


def examined(kind: str, path: Path) -> Facts:
    """Returns what there is to say of a model or a run; or as `problem` why it cannot be read."""
    size, changed = measured(path)
    facts: Facts = {
        "kind": kind,
        "name": shortened(path.name),
        "path": shortened(path),
        "bytes": size,
        "changed": changed,
        "problem": None,
    }
    try:
        return facts | (run_facts(path) if kind == "run" else model_facts(path))
    except OSError as error:
        problem = str(reading.refusal(error, path))
    except Gpt2cliError as error:
        problem = shortened(error, MOST_CHARACTERS)
    return facts | {"problem": problem}


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


def model_facts(folder: Path) -> Facts:
    """Returns what a model folder says of itself, the sizes of its weights checked.

    Raises BadDataError, MissingInputError or OSError if it is something else or not whole.
    """
    if not any((folder / name).exists() for name in paths.MODEL_FILES):
        raise foreign(folder, "model")
    place = opened(folder)
    is_foreign, shape = huggingface.is_folder(place), huggingface.hparams(place)
    from_prefix(huggingface.weights(place) if is_foreign else paths.newest(place), place)
    form = "huggingface" if is_foreign else "openai"
    return {"form": form, "weights": shape.count(), **dataclasses.asdict(shape)}


def run_facts(folder: Path) -> Facts:
    """Returns what a run folder says, its newest checkpoint's sizes checked; as `model_facts`."""
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
        check_sizes(prefix.parent, read_record(prefix.parent, step)["files"])
        state = read_state(prefix.parent, step)
    best, loss = state.lowest if state else (None, None)
    if loss is None:
        best = run_log.best_step(folder)
    return {
        "model": shortened(state.model_name) if state else None,
        "step": step,
        "checkpoints": steps,
        "best_step": best,
        "best_loss": loss,
        "average_loss": state.average if state and state.loss_weight else None,
        "lora_rank": state.lora_rank if state else 0,
        "weights": hparams.count(),
        **dataclasses.asdict(hparams),
    }


def foreign(folder: Path, kind: str) -> BadDataError:
    """Returns the error of a folder that holds something else; it names a few of its files."""
    names = sorted(path.name for path in folder.iterdir())
    shown = ", ".join(shortened(name, SHOWN_NAME) for name in names[:NAMED_FILES])
    more = f" and {len(names) - NAMED_FILES} more" if len(names) > NAMED_FILES else ""
    return BadDataError(f"Not a {kind}: {f'it holds {shown}{more}' if names else 'it is empty'}.")


def thinned(steps: list[int], losses: list[float], most: int) -> list[tuple[int, float]]:
    """Returns points of a curve, at most about `most`, evenly chosen; the last is among them."""
    every = max(1, len(steps) // most)
    return [*zip(steps, losses, strict=True)][::-every][::-1]
