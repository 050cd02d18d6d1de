"""What GPT-2 computes with on a CPU where Numba is there: weights of any precision, many texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpt2cli.network import kernels
from gpt2cli.network.arithmetic import NORM_EPSILON, Arithmetic, Array
from gpt2cli.network.rounding import quantised, upper_halves

# Products with more rows than this are bound by arithmetic: BLAS does them best.
FEW_ROWS = 64
# More scores than this are worth a second core.
MANY_SCORES = 1 << 16


class NativeMatrix:
    """Weights by their columns, held in a precision.

    Attributes:
        kind: float32, bfloat16, float16 or int8.
    """

    def __init__(self, rows: Array, kind: str) -> None:
        """Takes float32 (columns, width), and the precision in which they are held."""
        self.kind = kind
        self._scale = np.ones(len(rows), np.float32)
        self._no_bias = np.zeros(len(rows), np.float32)
        # Compiled code knows arrays that may be written to; these are, but nobody does.
        rows = np.require(rows, np.float32, ["C", "W"])
        if kind == "int8":
            self._held, self._scale = quantised(rows)
        elif kind == "float16":
            self._held = rows.astype(np.float16).view(kernels.FLOAT16_BITS)
        elif kind == "bfloat16":
            self._held = upper_halves(rows).view(kernels.BFLOAT16_BITS)
        else:
            self._held = rows

    def times(self, x: Array, bias: Array | None = None) -> Array:
        """(many, width) → (many, columns)."""
        bias = self._no_bias if bias is None else bias
        if len(x) > FEW_ROWS:
            found = x @ self._wide(slice(None)).T
            found += bias
            return np.asarray(found)
        found = np.empty((len(x), len(self._held)), np.float32)
        if len(x) == 1:
            kernels.one_row(x[0], self._held, self._scale, bias, found[0])
        else:
            kernels.few_rows(x, self._held, self._scale, bias, found)
        return found

    def rows(self, places: Sequence[int]) -> Array:
        """Returns float32 (places, width): what stands there."""
        return self._wide(list(places))

    def _wide(self, places: Any) -> Array:
        """Returns the rows at some places as float32."""
        held = self._held[places]
        if self.kind == "int8":
            return held * self._scale[places][:, None]
        if self.kind == "float16":
            return held.view(np.float16).astype(np.float32)
        if self.kind == "bfloat16":
            return (held.astype(np.uint32) << 16).view(np.float32)
        return held


class NativeArithmetic(Arithmetic):
    """GPT-2's arithmetic by compiled loops; products of many rows by NumPy's BLAS."""

    def __init__(self, kind: str = "float32") -> None:
        """Takes the precision in which weights are held: float32, bfloat16, float16 or int8."""
        self._kind = kind

    def matrix(self, rows: Array) -> NativeMatrix:
        """Returns weights (columns, width) as they are read fastest."""
        return NativeMatrix(rows, self._kind)

    def norm(self, x: Array, gain: Array, bias: Array) -> Array:
        """(many, embed) → (many, embed) of mean 0 and variance 1, scaled and shifted."""
        found = np.empty_like(x)
        kernels.norm(x, gain, bias, NORM_EPSILON, found)
        return found

    def gelu(self, x: Array) -> Array:
        """The tanh approximation of GELU, as gpt2.gelu; x is used up."""
        kernels.gelu(x)
        return x

    def attend_newest(self, mixed: Array, keys: Array, values: Array, seen: Any) -> Array:
        """Adds each text's newest position to its keys and values, and attends to all of them."""
        found = np.empty((len(mixed), mixed.shape[1] // 3), np.float32)
        kernels.attend_newest(mixed, keys, values, seen, found)
        return found

    def shares(self, scores: Array, first: int) -> Array:
        """(heads, block, end) → the same: how much of each position each of the block's sees."""
        if scores.size < MANY_SCORES:
            return super().shares(scores, first)
        kernels.causal_softmax(scores, first)
        return scores
