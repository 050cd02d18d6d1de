"""The weights that the options of a command mean, found as the command finds them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.config.shared import SourceOptions
from gpt2cli.errors import MissingInputError
from gpt2cli.files.hub_names import HubName
from gpt2cli.records import Record
from gpt2cli.storage.source import CheckpointSource, Fetch, SourceNames, find
from gpt2cli.storage.training_source import find_for_training

Value = TypeVar("Value")


def returned(generator: Generator[Any, None, Value]) -> Value:
    """Returns what a generator returns; what it yields is dropped."""
    while True:
        try:
            next(generator)
        except StopIteration as stop:
            value: Value = stop.value
            return value


def source_of(
    config: FinetuneConfig | SourceOptions, fetch: Fetch | None = None
) -> CheckpointSource:
    """Returns what `generate`, `evaluate` and `export` read, or what `finetune` starts from."""
    run = config.run_folder
    names = SourceNames(model_name=config.model_name, model_dir=config.model_dir, run=run)
    if isinstance(config, SourceOptions):
        return returned(find(dataclasses.replace(names, checkpoint=config.checkpoint), fetch))
    return returned(
        find_for_training(names, config.restore_from, overwrite=config.overwrite, fetch=fetch)
    )


def fetched_for(config: FinetuneConfig | SourceOptions) -> list[Path]:
    """Returns the folders of base models that a command would fetch; nothing is fetched."""
    folders: list[Path] = []

    def fetch(folder: Path, hub: HubName | None) -> Iterator[Record]:
        folders.append(folder)
        yield from ()

    with contextlib.suppress(MissingInputError):
        source_of(config, fetch)
    return folders
