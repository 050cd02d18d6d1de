"""What GPT-2 computes with on a CPU: NumPy, whose BLAS reads weights at the speed of memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

NORM_EPSILON = np.float32(1e-5)
Array = np.ndarray[Any, np.dtype[np.float32]]


class Matrix(Protocol):
    """Weights (columns, width)."""

    def times(self, x: Array, bias: Array | None = None) -> Array:
        """(many, width) → (many, columns)."""
        ...

    def rows(self, places: Sequence[int]) -> Array:
        """Returns float32 (places, width): what stands there."""
        ...


class PlainMatrix:
    """Weights in float32 for BLAS."""

    def __init__(self, rows: Array) -> None:
        """Takes (columns, width)."""
        columns, width = rows.shape
        # A matrix that widens is read faster as it lies in the checkpoint.
        self._rows = np.ascontiguousarray(rows) if width > columns else rows

    def times(self, x: Array, bias: Array | None = None) -> Array:
        """(many, width) → (many, columns)."""
        found = x @ self._rows.T
        if bias is not None:
            found += bias
        return np.asarray(found)

    def rows(self, places: Sequence[int]) -> Array:
        """Returns float32 (places, width): what stands there."""
        return self._rows[list(places)]


class Arithmetic:
    """GPT-2's arithmetic in NumPy, float32."""

    def prepare(self) -> None:
        """Begins to make ready what is needed: nothing."""

    def matrix(self, rows: Array) -> Matrix:
        """Returns weights (columns, width) as they are read fastest."""
        return PlainMatrix(rows)

    def norm(self, x: Array, gain: Array, bias: Array) -> Array:
        """(many, embed) → (many, embed) of mean 0 and variance 1, scaled and shifted."""
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = np.square(centred).mean(axis=-1, keepdims=True)
        return np.asarray(centred / np.sqrt(variance + NORM_EPSILON) * gain + bias)

    def gelu(self, x: Array) -> Array:
        """The tanh approximation of GELU, as gpt2.gelu."""
        inner = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x)))
        return np.asarray(0.5 * x * (1 + inner))

    def attend(self, query: Array, keys: Array, values: Array, first: int) -> Array:
        """Returns the values that scaled queries attend to, of a text's positions from `first` on.

        Args:
            query: (heads, block, head).
            keys: (heads, at least first + block, head), of the text from its beginning.
            values: like keys.
            first: the position of the first query.

        Returns:
            (heads, block, head).
        """
        end = first + query.shape[1]
        scores = query @ keys[:, :end].transpose(0, 2, 1)  # (heads, block, end)
        return np.asarray(self.shares(scores, first) @ values[:, :end])

    def attend_newest(self, mixed: Array, keys: Array, values: Array, seen: Any) -> Array:
        """Adds each text's newest position to its keys and values, and attends to all of them.

        Args:
            mixed: (texts, 3 * embed): queries, keys and values of the newest positions.
            keys: (texts, heads, slots, head).
            values: like keys.
            seen: int64 (texts,), how many positions each text has already.

        Returns:
            (texts, embed).
        """
        texts, heads, _, head = keys.shape
        found = np.empty((texts, heads, 1, head), np.float32)
        for text, (new, at) in enumerate(zip(mixed, seen, strict=True)):
            query, keys[text, :, at], values[text, :, at] = new.reshape(3, heads, head)
            query = query[:, None] / np.float32(math.sqrt(head))  # (heads, 1, head)
            found[text] = self.attend(query, keys[text], values[text], at)
        return found.reshape(texts, heads * head)

    def shares(self, scores: Array, first: int) -> Array:
        """(heads, block, end) → the same: how much of each position each of the block's sees.

        Args:
            scores: of a block of positions with all up to its end; used up.
            first: the position of the block's first.
        """
        block = scores.shape[1]
        if block > 1:
            scores[:, :, first:] += np.triu(np.full((block, block), -np.inf, np.float32), 1)
        scores -= scores.max(axis=-1, keepdims=True)
        shares = np.exp(scores, out=scores)
        shares /= shares.sum(axis=-1, keepdims=True)
        return shares
