"""What GPT-2 computes with on a CPU: NumPy, whose BLAS reads weights at the speed of memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

# Queries are taken in blocks of this size, each against the keys up to its end.
QUERY_BLOCK = 256
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
        # A matrix that widens is read faster as it is in the checkpoint.
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

    def prepare(self, *, few: bool) -> None:
        """Begins to make ready what is needed: nothing.

        Args:
            few: whether more than one row at a time is multiplied.
        """

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

    def attend_prompt(self, mixed: Array, keys: Array, values: Array) -> Array:
        """Lets each position of a prompt attend to those before it and to itself.

        Args:
            mixed: (time, 3 * embed): queries, keys and values.
            keys: (heads, slots, head), of the prompt, set already.
            values: like keys.

        Returns:
            (time, embed).
        """
        heads, _, head = keys.shape
        time, embed = len(mixed), heads * head
        query = mixed[:, :embed].reshape(time, heads, head).transpose(1, 0, 2)
        query = query / np.float32(math.sqrt(head))  # (heads, time, head)
        found = [
            self.attend(query[:, start : start + QUERY_BLOCK], keys, values, start)
            for start in range(0, time, QUERY_BLOCK)
        ]
        whole = found[0] if len(found) == 1 else np.concatenate(found, axis=1)
        return whole.transpose(1, 0, 2).reshape(time, embed)

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
        block = query.shape[1]
        end = first + block
        scores = query @ keys[:, :end].transpose(0, 2, 1)  # (heads, block, end)
        if block > 1:
            scores[:, :, first:] += np.triu(np.full((block, block), -np.inf, np.float32), 1)
        scores -= scores.max(axis=-1, keepdims=True)
        shares = np.exp(scores, out=scores)
        shares /= shares.sum(axis=-1, keepdims=True)
        return np.asarray(shares @ values[:, :end])

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
