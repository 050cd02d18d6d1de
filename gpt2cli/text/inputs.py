"""The text files that a command names: found, and told how they are read."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

from gpt2cli.config.evaluate import EvaluateConfig
from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.config.shared import CorpusOptions
from gpt2cli.records import Notice, Progress
from gpt2cli.text import finding, readers
from gpt2cli.text.readers import Reading
from gpt2cli.text.sources import Skipped, Source, Sources

# How many of the files that are skipped are named without --verbose.
MOST_SKIPPED = 20


@dataclasses.dataclass(frozen=True)
class Texts:
    """The text files that the command line names.

    Attributes:
        training: what is trained on.
        held_out: what is validated on, or None.
    """

    training: Sources
    held_out: Sources | None

    def every(self) -> tuple[Source, ...]:
        """Returns the files that are read."""
        return self.training.files + (self.held_out.files if self.held_out else ())

    def skipped(self) -> Iterator[Skipped]:
        """Yields what was found in folders and is not read."""
        yield from self.training.skipped
        yield from self.held_out.skipped if self.held_out else ()


def pipes(config: FinetuneConfig | EvaluateConfig) -> Iterator[Progress]:
    """Yields a line for each pipe, terminal or stdin that `find` will wait for.

    Raises:
        MissingInputError: a file may not be looked at.
    """
    beside = config.val_dataset if isinstance(config, FinetuneConfig) else ()
    for source in finding.pipes((*config.dataset, *beside)):
        yield Progress(f"reading {source} to its end")


def find(config: FinetuneConfig | EvaluateConfig) -> Texts:
    """Returns the text files that the config names.

    Raises:
        MissingInputError: there are none, or one cannot be read.
        BadDataError: a file is binary.
        UsageError: stdin or a pipe is to be read twice.
    """
    beside = config.val_dataset if isinstance(config, FinetuneConfig) else ()
    finding.check_once((*config.dataset, *beside))
    own = own_folders(config)
    held_out = finding.find(beside, config.encoding, own) if beside else None
    return Texts(finding.find(config.dataset, config.encoding, own), held_out)


def own_folders(config: FinetuneConfig | EvaluateConfig) -> list[str]:
    """Returns the folders in which nothing is corpus: those of models and runs."""
    weights = [config.model_name]
    if isinstance(config, FinetuneConfig):
        weights.append(config.restore_from)
    paths = [path for path in weights if path and os.path.isdir(path)]  # noqa: PTH112
    return [config.model_dir, config.checkpoint_dir, *paths]


def remarks(config: CorpusOptions, texts: Texts, *, all_skipped: bool = False) -> Iterator[Notice]:
    """Yields what was skipped, and what is taken of tables and records.

    Args:
        config: how files are read.
        texts: the files.
        all_skipped: whether to name more than the first few of those that are skipped.

    Raises:
        BadDataError: a csv has no such column, or a file is not what its name says.
    """
    skipped = list(texts.skipped())
    told = skipped if all_skipped else skipped[:MOST_SKIPPED]
    yield from (Notice(str(each)) for each in told)
    if len(told) < len(skipped):
        yield Notice(f"skipped {len(skipped) - len(told):,} more; --verbose names them")
    reading = reading_of(config, 0)
    found: dict[str, list[tuple[Source, str]]] = {}
    for source in texts.every():
        if described := readers.description(source, reading):
            found.setdefault(described[0], []).append((source, described[1]))
    for taken, alike in found.items():
        (source, first), more = alike[0], len(alike) - 1
        begins = f"; the first begins: {first}" if first else ""
        yield Notice(f"{source}{f' and {more} more' if more else ''}: {taken}{begins}")


def reading_of(config: CorpusOptions, vocab: int) -> Reading:
    """Returns how the config wants files to be read, for a vocabulary of so many tokens."""
    return Reading(
        vocab,
        config.encoding,
        config.csv_column,
        config.csv_header,
        config.delimiter,
        config.text_field,
        config.keep_line_ends,
    )
