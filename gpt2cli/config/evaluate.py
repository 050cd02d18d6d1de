"""What `gpt2cli evaluate` can be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gpt2cli.config.shared import CorpusOptions, ReadingOptions, SourceOptions
from gpt2cli.options import option


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(CorpusOptions, ReadingOptions, SourceOptions):
    """Judge how well a run, or a base model, predicts a text.

    Every token is judged once, in overlapping windows, so that it has others before it.
    """

    stride: int | None = option(
        None,
        "Tokens from one window to the next; the others before them are context alone [half of "
        "the model's window].",
        least=1,
    )
    batch_size: int = option(1, "Windows at once.", least=1)
    format: Literal["text", "jsonl"] = option("text", "A line for people, or one of JSON.")
