"""The base model that a command cannot start without, fetched if it is missing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from gpt2cli.errors import MissingInputError
from gpt2cli.fetching import manifest, models
from gpt2cli.records import Record

OFFLINE_VARIABLE = "GPT2CLI_OFFLINE"


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
