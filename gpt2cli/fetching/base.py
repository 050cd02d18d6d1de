"""The base model that a command cannot start without, fetched where it is missing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.config.shared import SourceOptions
from gpt2cli.errors import MissingInputError
from gpt2cli.fetching import manifest, models
from gpt2cli.records import Record
from gpt2cli.storage.source import base_needed

OFFLINE_VARIABLE = "GPT2CLI_OFFLINE"


def fetch_base(config: FinetuneConfig | SourceOptions) -> Iterator[Record]:
    """Fetches the base model if the command needs it, it is missing, and its name is known.

    Raises:
        MissingInputError: it would have to be fetched, and --offline or GPT2CLI_OFFLINE forbids.
        Gpt2cliError: as models.fetch does.
    """
    needed = base_needed(config)
    if needed is None or needed.exists() or not manifest.is_known(needed.parent.name):
        return
    name = needed.parent.name
    forbidden = config.offline or os.environ.get(OFFLINE_VARIABLE, "") not in ("", "0")
    if forbidden and name not in manifest.BUNDLED:
        raise MissingInputError(
            f"There is no model {needed.parent}, and fetching it is forbidden (--offline). Run "
            f"`gpt2cli download {name} --model-dir {config.model_dir}` with a network."
        )
    bars = sys.stderr.isatty() and not config.quiet
    yield from models.fetch(name, config.model_dir, bars=bars)
