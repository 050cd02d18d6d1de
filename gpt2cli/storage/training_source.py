"""What a training run starts from: its own newest checkpoint, a base model, or random weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from pathlib import Path

from gpt2cli.config.shared import DEFAULT_MODEL
from gpt2cli.errors import BadDataError, OutputError
from gpt2cli.files import paths
from gpt2cli.files.hub_names import model_label
from gpt2cli.records import Record
from gpt2cli.storage import huggingface
from gpt2cli.storage.source import (
    CheckpointSource,
    Fetch,
    SourceNames,
    find_base,
    from_path,
    from_run,
)


def find_for_training(
    names: SourceNames, restore_from: str, *, overwrite: bool, fetch: Fetch | None = None
) -> Generator[Record, None, CheckpointSource]:
    """Returns what a training run starts from; yields what `fetch` does for a missing base model.

    To restore from are `latest`, `fresh`, `scratch` and paths. Raises as `find` does; OutputError
    if the run has checkpoints, which may be replaced only with `overwrite`.
    """
    folder = names.run
    existing = from_run(folder, resume=True) if paths.has_checkpoints(folder) else None
    if existing and restore_from == "latest":
        check_same_base(existing, names.model_name)
        return existing
    if existing and not overwrite:
        raise OutputError(
            f"{folder} holds a run trained to step {existing.step}. Give another --run-name, or "
            f"--overwrite to replace its checkpoints by those of --restore-from {restore_from}."
        )
    if restore_from in ("latest", "fresh", "scratch"):
        name, trained = names.model_name or DEFAULT_MODEL, restore_from != "scratch"
        start = yield from find_base(names.model_dir, name, fetch, with_weights=trained)
    else:
        start = from_path(Path(restore_from))
    if existing:
        check_same_model(existing, start)
        start = dataclasses.replace(start, found=existing.found)
    return start


def check_same_base(existing: CheckpointSource, name: str | None) -> None:
    """Raises BadDataError if --model-name asks for another base model than the run has."""
    if name is None or existing.state is None:
        return
    # The path of a folder that is gone may look like a name on the Hub.
    labels = {paths.known_name(model_label(each)) for each in (name, Path(name).name)}
    if paths.known_name(existing.model_name) not in labels:
        raise BadDataError(
            f"The run {existing.folder} was trained from {existing.model_name}, not from {name}. "
            "Give another --run-name for the other model."
        )


def check_same_model(existing: CheckpointSource, start: CheckpointSource) -> None:
    """Raises BadDataError unless a run and what replaces it have the same shape and vocabulary."""
    folder = existing.folder
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
