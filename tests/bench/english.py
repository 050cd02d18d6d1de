"""Text with the words of English and the shape of its sentences, as much of it as is wanted.

There is no large English text in this repository. The words are those that OpenAI's vocabulary has
as one token, the frequent ones often and the rare ones rarely (Zipf's law), and now and then one
made of two: so new words keep coming, as they do in real texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.models import REAL_VOCABULARY

# Words at once; of a hundred, how many are made of two.
PIECE, COMPOUNDS = 200_000, 2
ENDS = np.array(["", ",", ".", "?", "!", ";", ".\n\n", "\u2019s", ":", " \u2013"])
SHARES = np.array([0.83, 0.07, 0.055, 0.005, 0.005, 0.005, 0.008, 0.01, 0.006, 0.006])


def words() -> Any:
    """Returns the vocabulary's words that stand after a space, frequent ones first."""
    tokens: dict[str, int] = json.loads((REAL_VOCABULARY / "encoder.json").read_text("utf-8"))
    ordered = sorted(tokens, key=tokens.__getitem__)
    later = [token[1:] for token in ordered if token[0] == "Ġ"]
    return np.array([word for word in later if word.isascii() and word.isalpha()])


def pieces(seed: int = 0) -> Iterator[str]:
    """Yields text without end; the same seed gives the same text."""
    known, noise = words(), np.random.default_rng(seed)
    weights = 1 / (np.arange(len(known)) + 2.7)
    weights /= weights.sum()
    while True:
        drawn = noise.choice(known, PIECE, p=weights).astype(object)
        made = noise.integers(0, PIECE, PIECE * COMPOUNDS // 100)
        drawn[made] += noise.choice(known, len(made)).astype(object)
        yield " ".join(drawn + noise.choice(ENDS, PIECE, p=SHARES).astype(object))


def write(path: Path, size: int, begin: str = "") -> None:
    """Writes a text of so many characters: what is given first, and then what is made."""
    with path.open("w", encoding="utf-8") as file:
        written = file.write(begin[:size])
        made = pieces()
        while written < size:
            written += file.write(next(made)[: size - written])
