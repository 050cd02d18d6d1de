"""The settings of `gpt2cli evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gpt2cli.config.shared import CorpusOptions, ReadingOptions, SourceOptions
from gpt2cli.options import option


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(CorpusOptions, ReadingOptions, SourceOptions):
    """Judge how well a run, or a base model, predicts a text.

    Every token is judged once, in overlapping windows, so that it has others before it.

    Examples:
        gpt2cli evaluate held-out.txt
        gpt2cli evaluate held-out.txt --model-name 124M --format jsonl
        gpt2cli evaluate held-out.txt --per-token > tokens.jsonl
    """

    group = "Output"
    stride: int | None = option(
        None,
        "Tokens from one window to the next; the tokens before them serve only as context.",
        least=1,
        unset="half of the model's window",
        group="Batch",
    )
    batch_size: int = option(1, "Windows computed at once.", least=1, group="Batch")
    format: Literal["text", "jsonl"] = option(
        "text", "text: a line for people; jsonl: a line of JSON."
    )
    per_token: bool = option(
        False,
        "Prints a line of JSON for each token instead: its id, piece, log-probability and rank.",
    )
