"""Markers like `<|startoftext|>` in texts to continue that the model has no token for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import regex

from gpt2cli.errors import shortened
from gpt2cli.text.batches import Tokens
from gpt2cli.text.tokenizer import Tokenizer

MARKER = regex.compile(r"<\|[^\s<>|]{1,40}\|>")
# How much of a corpus is looked at (tokens).
LOOKED_AT = 1 << 20


def remarks(
    texts: Iterable[str], tokenizer: Tokenizer, trained: Tokens | None = None
) -> Iterator[str]:
    """Yields a line for each marker that is not a token of the model, nor in what it is trained on.

    gpt-2-simple writes `<|startoftext|>` before each row of a csv; gpt2cli and OpenAI don't, and a
    model that never saw it takes it for plain letters.
    """
    seen = None if trained is None else trained[:LOOKED_AT].tobytes()
    for marker in dict.fromkeys(found for text in texts for found in MARKER.findall(text)):
        tokens = tokenizer.encode(marker, special=True)
        if len(tokens) > 1 and not (seen and tokenizer.pack(tokens) in seen):
            yield (
                f"{shortened(marker)} is not a token of this model, but {len(tokens)} of plain "
                "text. Unless it was trained on texts with it, as by gpt-2-simple on a csv, leave "
                "it out: a text begins by itself."
            )
