"""Tokens drawn from many rows of logits, compiled by Numba."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from gpt2cli.inference.cpu.kernels import SUMS, ZERO, power
from gpt2cli.runtime.numba import jit

# The highest number is looked for in this number of columns.
COLUMNS = 64
# This many shares are added up before any of them is looked at.
SUMMED = 256


@jit(parallel=True)
def draw_all(filtered: Any, uniforms: Any, tokens: Any) -> None:
    """Sets int64 (rows,) to a token drawn from each row, as sampling.draw does.

    Logits are float32 (rows, vocab), and used up; random numbers float64 (rows,), from 0 up to 1.
    """
    for row in prange(len(filtered)):
        to_powers(filtered[row])
        tokens[row] = drawn(filtered[row], uniforms[row])


@jit()
def highest(numbers: Any) -> Any:
    """float32 (vocab,) → the highest; NaN behind the first one is passed over.

    Of many columns first, which processors do at once; one after another they would wait.
    """
    found = np.full(COLUMNS, numbers[0], np.float32)
    rows = len(numbers) // COLUMNS
    for row in range(rows):
        for column in range(COLUMNS):
            found[column] = max(found[column], numbers[row * COLUMNS + column])
    for place in range(rows * COLUMNS, len(numbers)):
        found[0] = max(found[0], numbers[place])
    most = found[0]
    for column in range(1, COLUMNS):
        most = max(most, found[column])
    return most


@jit(fastmath=SUMS)
def to_powers(logits: Any) -> None:
    """float32 (vocab,) → e to the power of each less the highest, in place."""
    most = highest(logits)
    for token in range(len(logits)):
        logits[token] = power(logits[token] - most)


@jit()
def drawn(shares: Any, uniform: Any) -> Any:
    """Returns the token in whose stretch of the sum of shares (vocab,) a number falls."""
    ends = np.empty((len(shares) + SUMMED - 1) // SUMMED)
    end = 0.0
    for block in range(len(ends)):
        end += total(shares[block * SUMMED : (block + 1) * SUMMED])
        ends[block] = end
    aim, block = uniform * end, 0
    while block < len(ends) - 1 and not ends[block] > aim:
        block += 1
    end, last = ends[block - 1] if block else 0.0, 0
    for token in range(block * SUMMED, min((block + 1) * SUMMED, len(shares))):
        if shares[token] > 0:
            end, last = end + shares[token], token
            if end > aim:
                break
    return last


@jit(fastmath=SUMS)
def total(shares: Any) -> Any:
    """Returns the sum of float32 (some,), in float64."""
    found = 0.0
    for token in range(len(shares)):
        found += shares[token]
    return found


@jit(parallel=True)
def take_nats(logits: Any, tokens: Any, found: Any) -> None:
    """Sets float64 (rows,) to the log-probability (nats) of each row's token, int64 (rows,)."""
    for row in prange(len(logits)):
        most, total = powers(logits[row])
        found[row] = logits[row, tokens[row]] - most - np.log(total)


@jit(fastmath=SUMS)
def powers(logits: Any) -> Any:
    """float32 (vocab,) → the highest, and the sum of e to the power of each less the highest."""
    most, found = highest(logits), ZERO
    for token in range(len(logits)):
        found += power(logits[token] - most)
    return most, found
