"""The weights that a command reads; a base model that is missing is fetched."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path

from gpt2cli.config.shared import SourceOptions
from gpt2cli.errors import MissingInputError
from gpt2cli.fetching import manifest, models
from gpt2cli.files import paths
from gpt2cli.records import Record
from gpt2cli.storage.source import CheckpointSource, SourceNames, find

OFFLINE_VARIABLE = "GPT2CLI_OFFLINE"


def find_weights(
    options: SourceOptions,
) -> Generator[Record, None, tuple[SourceNames, CheckpointSource]]:
    """Returns what a command line names, and the weights that it means; yields what is fetched.

    Raises:
        Gpt2cliError: as source.find and fetch_base do.
    """
    names = SourceNames(
        model_name=options.model_name,
        model_dir=options.model_dir,
        run=paths.run_folder(options.checkpoint_dir, options.run),
        checkpoint=options.checkpoint,
    )
    fetch = partial(fetch_base, offline=options.offline, quiet=options.quiet)
    return names, (yield from find(names, fetch))


def fetch_base(folder: Path, *, offline: bool, quiet: bool) -> Iterator[Record]:
    """Fetches the base model that belongs into a folder, if its name is known.

    Raises:
        MissingInputError: --offline or GPT2CLI_OFFLINE forbids to fetch it.
        Gpt2cliError: as models.fetch_pinned does.
    """
    name = folder.name
    if not manifest.is_known(name):
        return
    forbidden = offline or os.environ.get(OFFLINE_VARIABLE, "") not in ("", "0")
    if forbidden and name not in manifest.BUNDLED:
        raise MissingInputError(
            f"There is no model {folder}, and fetching it is forbidden (--offline). Run "
            f"`gpt2cli download {name} --model-dir {folder.parent}` with a network."
        )
    bars = sys.stderr.isatty() and not quiet
    yield from models.fetch_pinned(name, str(folder.parent), bars=bars)
