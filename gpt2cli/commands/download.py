"""`gpt2cli download`: fetch base models, checked and resumable."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from gpt2cli.config.download import DownloadConfig
from gpt2cli.errors import UsageError
from gpt2cli.fetching import manifest
from gpt2cli.fetching.base import fetch_model
from gpt2cli.fetching.listing import listed_models, models_as_json, models_as_table
from gpt2cli.fetching.models import FetchOptions
from gpt2cli.files.hub_names import parse_hub_name
from gpt2cli.files.paths import placed_name
from gpt2cli.records import Record, Text


def download(config: DownloadConfig) -> Iterator[Record]:
    """Makes each model's folder complete, or lists the models; yields what happens.

    Raises UsageError before anything is fetched if no model has one of the names, and Gpt2cliError
    if a model cannot be fetched; those before it are complete.
    """
    if config.list:
        shown = models_as_json if config.format == "jsonl" else models_as_table
        yield Text(shown(listed_models(config.model_dir)))
        return
    bars = sys.stderr.isatty() and not config.quiet
    options = FetchOptions(mirrors=config.mirror, verify=config.verify, bars=bars)
    for name in chosen_names(config.models):
        yield from fetch_model(name, config.model_dir, options)


def chosen_names(given: tuple[str, ...]) -> list[str]:
    """Returns the models to fetch, each once; raises UsageError if there is none of a name."""
    # 117M and 124M are the same model.
    names: dict[str, str] = {}
    for name in given:
        if (hub := parse_hub_name(name)) is not None:
            other = names.setdefault(str(hub), hub.full)
            if other != hub.full:
                raise UsageError(f"{other} and {hub.full} are one model; give one revision of it.")
            continue
        if manifest.true_name(name) not in manifest.BUNDLED:
            manifest.find_model(name)
        names[manifest.true_name(name)] = placed_name(name)
    return list(names.values())
