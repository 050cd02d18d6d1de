"""What decoding one token after another has in common, whatever computes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.random import Philox

Row = Sequence[int]


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The next token of each row.

    Attributes:
        tokens: the tokens.
        log_probabilities: of the tokens, as the model sees them without filters (nats).
    """

    tokens: list[int]
    log_probabilities: list[float]


def uniforms(seed: int, prompt: int, sample: int) -> Iterator[float]:
    """Yields the random numbers, from 0 up to 1, that choose a sample's tokens.

    They depend on nothing but the seed and on which sample of which prompt it is.
    """
    key = np.array([seed, (prompt << 32) | sample], np.uint64)
    generator = Philox(key=key)
    while True:
        # 24 bits, as many as float32 can tell apart below 1.
        yield (int(generator.random_raw()) >> 40) * 2.0**-24


def newer_half(row: Row, n_ctx: int, more: int = 0) -> list[int]:
    """Returns a row, or where the window cannot hold it and `more` the newer half of a window."""
    return list(row) if len(row) + more <= n_ctx else list(row[-max(n_ctx // 2, 1) :])
