"""`gpt2cli download`: fetch base models, checked and resumable."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from gpt2cli.config.download import DownloadConfig
from gpt2cli.fetching import manifest, models
from gpt2cli.files.paths import placed_name
from gpt2cli.records import Record


def download(config: DownloadConfig) -> Iterator[Record]:
    """Makes each model's folder complete; yields what happens.

    Raises:
        UsageError: no model has one of the names; nothing has been fetched then.
        Gpt2cliError: a model cannot be fetched; those before it are complete.
    """
    # 117M and 124M are the same model.
    names = {manifest.true_name(name): placed_name(name) for name in config.models}
    for name in names:
        if name not in manifest.BUNDLED:
            manifest.find(name)
    for name in names.values():
        yield from models.fetch_pinned(
            name,
            config.model_dir,
            mirrors=config.mirror,
            verify=config.verify,
            bars=sys.stderr.isatty() and not config.quiet,
        )
