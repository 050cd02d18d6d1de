"""The weights that a command reads; a base model that is missing is fetched."""

from __future__ import annotations

import filecmp
import os
import shlex
import sys
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path

from gpt2cli.config.shared import SourceOptions
from gpt2cli.errors import DiskError, MissingInputError, shortened
from gpt2cli.fetching import manifest
from gpt2cli.fetching.hub import fetch_hub
from gpt2cli.fetching.models import FetchOptions, complete
from gpt2cli.files import atomic, outputs, paths
from gpt2cli.files.hub_names import HubName, parse_hub_name
from gpt2cli.progress import living
from gpt2cli.records import Notice, Progress, Record
from gpt2cli.storage.source import CheckpointSource, SourceNames, find


def find_weights(
    options: SourceOptions,
) -> Generator[Record, None, tuple[SourceNames, CheckpointSource]]:
    """Returns what a command line names, and the weights that it means; yields what is fetched."""
    names = SourceNames(
        model_name=options.model_name,
        model_dir=options.model_dir,
        run=options.run_folder,
        checkpoint=options.checkpoint,
    )
    fetch = partial(fetch_base, offline=options.offline, quiet=options.quiet)
    with living("looking for the weights", quiet=options.quiet):
        return names, (yield from find(names, fetch))


def fetch_base(
    folder: Path, hub: HubName | None, *, offline: bool, quiet: bool
) -> Iterator[Record]:
    """Fetches the base model that belongs into a folder, if its name is known.

    Raises MissingInputError if --offline or GPT2CLI_OFFLINE forbids it.
    """
    name = hub.full if hub else folder.name
    if hub is None and not manifest.is_known(name):
        return
    forbidden = offline or os.environ.get("GPT2CLI_OFFLINE", "") not in ("", "0")
    if forbidden and name not in manifest.BUNDLED:
        place = shlex.quote(str(folder.parent))
        raise MissingInputError(
            f"There is no model {shortened(folder)}, and fetching it is forbidden (--offline). "
            f"Run `gpt2cli download {name} --model-dir {place}` with a network."
        )
    options = FetchOptions(bars=sys.stderr.isatty() and not quiet)
    yield from fetch_model(name, str(folder.parent), options)


def fetch_model(name: str, model_dir: str, options: FetchOptions) -> Iterator[Record]:
    """Makes the folder of a model complete: one of OpenAI, of the Hub, or a bundled one.

    Yields what happens. What is there and good stays as it is, and then no network is needed.

    Raises:
        UsageError: no model has that name.
        BadDataError: what a host sends is not the file, twice; or the model is not a GPT-2.
        MissingInputError: the model on the Hub lacks a file that is needed.
        RefusedError: the hosts will not give a file.
        TryLaterError: the network is down; what has come is kept.
        OutputError, DiskError: the place cannot be written to.
    """
    if (hub := parse_hub_name(name)) is not None:
        yield from fetch_hub(hub, hub.folder(model_dir), options)
        return
    folder = paths.model_folder(model_dir, name)
    if name in manifest.BUNDLED:
        yield from install_bundled(name, folder)
    else:
        yield from complete(manifest.find_model(name), folder, options)


def install_bundled(name: str, folder: Path, *, data: Path = manifest.DATA) -> Iterator[Record]:
    """Copies a bundled model's files to where they are missing or differ; yields what it did."""
    source = data / name
    if not (source / paths.POINTER).is_file():
        raise MissingInputError(f"{source} is missing: install gpt2cli again to have {name}.")
    # `checkpoint` comes last: once it is there, the model is whole.
    files = sorted(source.iterdir(), key=lambda path: (path.name == paths.POINTER, path.name))
    wrong = [file for file in files if not same(file, folder / file.name)]
    if not wrong:
        yield Progress(f"{name} is already there: {folder}")
        return
    size = sum(file.stat().st_size for file in wrong)
    atomic.need_room(folder, size)
    for file in wrong:
        place = folder / file.name
        if place.exists():
            yield Notice(f"{place} is not {name}'s; it is put right.")
        with outputs.written(place, overwrite=True) as aside:
            atomic.write(aside, file.read_bytes())
    yield Progress(f"{name} is complete: {folder} ({size / 1e6:.1f} MB, bundled with gpt2cli)")


def same(source: Path, destination: Path) -> bool:
    """Returns whether two files hold the same bytes."""
    try:
        return destination.is_file() and filecmp.cmp(source, destination, shallow=False)
    except OSError as error:
        raise DiskError(f"Cannot read {destination}: {error.strerror}.") from error
