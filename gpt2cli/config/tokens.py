"""The settings of `gpt2cli tokens`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from gpt2cli.config.sampling import SamplingOptions
from gpt2cli.config.shared import ReadingOptions, SourceOptions
from gpt2cli.errors import UsageError, shortened
from gpt2cli.options import argument, option

# What may stand between two ids, and around all of them.
BETWEEN_IDS = re.compile(r"[\s,;\[\]]+")
ID = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, kw_only=True)
class TokensConfig(SamplingOptions, ReadingOptions, SourceOptions):
    """Show the tokens of a text, or the text of tokens.

    The vocabulary is that of the run or model that is named; else that of the run, model or
    bundled model that is found first. Without TEXT, --file and --ids, stdin is read. Weights are
    read only for --probabilities and --next.

    Examples:
        gpt2cli tokens "Once upon a time" "Es war einmal"
        gpt2cli tokens --model-name 124M --ids 464,6290
        gpt2cli tokens --file poem.txt --format jsonl
        gpt2cli tokens "Once upon a" --model-name 124M --next 10 --top-k 5 --top-p 0.9
    """

    group = "Text"
    texts: tuple[str, ...] = argument("Texts to cut into tokens; -: stdin.", default=())
    file: tuple[str, ...] = option((), "File whose text is cut into tokens (repeatable).")
    ids: tuple[str, ...] = option(
        (), "Ids of tokens to decode, with commas or spaces between (repeatable)."
    )
    format: Literal["text", "jsonl"] = option(
        "text", "text: a line for people; jsonl: a line of JSON for each token."
    )
    probabilities: bool = option(
        False,
        "Shows each token's probability and rank, given what stands before it.",
        group="Sampling",
    )
    next: int = option(
        0,
        "Shows the N likeliest next tokens, before and after the filters below (0: none).",
        least=0,
        most=1000,
        group="Sampling",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ids and (self.texts or self.file):
            other = "TEXT" if self.texts else "--file"
            raise UsageError(f"--ids and {other} contradict each other; give one of them.")
        self.id_lists  # noqa: B018

    @property
    def id_lists(self) -> list[list[int]]:
        """The ids that are decoded, a list for each --ids; raises as `ids_in` does."""
        return [ids_in(given) for given in self.ids]


def ids_in(given: str) -> list[int]:
    """Returns the ids that a text lists; raises UsageError if they are not whole numbers."""
    words = [word for word in BETWEEN_IDS.split(given) if word]
    for word in words or [given]:
        if not ID.fullmatch(word):
            raise UsageError(
                f"--ids takes the numbers of tokens, as 464,6290, not '{shortened(word, 40)}'."
            )
    return [int(word) for word in words]
