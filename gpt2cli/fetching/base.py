"""The weights that a command reads; a base model that is missing is fetched."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path

from gpt2cli.config.shared import SourceOptions
from gpt2cli.errors import MissingInputError, shortened
from gpt2cli.fetching import manifest, models
from gpt2cli.fetching.hub import fetch_hub
from gpt2cli.files.hub_names import HubName, parse_hub_name
from gpt2cli.progress import living
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
        run=Path(options.checkpoint_dir, options.run),
        checkpoint=options.checkpoint,
    )
    fetch = partial(fetch_base, offline=options.offline, quiet=options.quiet)
    with living("looking for the weights", quiet=options.quiet):
        return names, (yield from find(names, fetch))


def fetch_base(
    folder: Path, hub: HubName | None, *, offline: bool, quiet: bool
) -> Iterator[Record]:
    """Fetches the base model that belongs into a folder, if its name is known.

    Args:
        folder: where the model is to be.
        hub: its name on the Hub, if it comes from there.
        offline: whether --offline is given.
        quiet: whether to draw no bars.

    Raises:
        MissingInputError: --offline or GPT2CLI_OFFLINE forbids to fetch it.
        Gpt2cliError: as models.fetch_pinned and hub.fetch_hub do.
    """
    name = hub.full if hub else folder.name
    if hub is None and not manifest.is_known(name):
        return
    forbidden = offline or os.environ.get(OFFLINE_VARIABLE, "") not in ("", "0")
    if forbidden and name not in manifest.BUNDLED:
        place = shlex.quote(str(folder.parent))
        raise MissingInputError(
            f"There is no model {shortened(folder)}, and fetching it is forbidden (--offline). "
            f"Run `gpt2cli download {name} --model-dir {place}` with a network."
        )
    yield from fetch_model(name, str(folder.parent), bars=sys.stderr.isatty() and not quiet)


def fetch_model(
    name: str,
    model_dir: str,
    *,
    mirrors: tuple[str, ...] = (),
    verify: bool = False,
    bars: bool = False,
) -> Iterator[Record]:
    """Makes a model's folder complete, be it OpenAI's or one from the Hub; yields what happens.

    Args:
        name: as parse_hub_name or manifest.is_known takes it.
        model_dir: the folder that holds the base models.
        mirrors: addresses below which MODEL/FILE is looked for, before the model's own hosts.
        verify: whether to hash again what is there.
        bars: whether to draw bars on stderr; otherwise a line comes now and then.

    Raises:
        Gpt2cliError: as models.fetch_pinned and hub.fetch_hub do.
    """
    if (hub := parse_hub_name(name)) is None:
        yield from models.fetch_pinned(name, model_dir, mirrors=mirrors, verify=verify, bars=bars)
        return
    yield from fetch_hub(hub, model_dir, mirrors=mirrors, verify=verify, bars=bars)
