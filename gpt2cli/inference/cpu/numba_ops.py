"""What GPT-2 computes with on a CPU with Numba: weights of any precision, many texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import from_dtype, types

from gpt2cli.inference.cpu import attention_kernels, kernels, matmul_tiles
from gpt2cli.inference.cpu.ops import NORM_EPSILON, Arithmetic, Array
from gpt2cli.network.rounding import quantize_rows, to_bfloat16_bits
from gpt2cli.runtime import numba
from gpt2cli.runtime.hardware import cores

# Products with more rows than this are bound by arithmetic: BLAS does them best.
FEW_ROWS = 128
# A shorter prompt is not worth another loop.
LONG_PROMPT = 64
# Rows that are a multiple of this many bytes apart push each other out of the first cache.
SAME_PLACE = 4096

# What weights are held as, by precision.
HELD: dict[str, Any] = {
    "float32": np.float32,
    "bfloat16": kernels.BFLOAT16_BITS,
    "float16": kernels.FLOAT16_BITS,
    "int8": np.int8,
}


class NativeMatrix:
    """Weights by their columns, held in a precision.

    Attributes:
        kind: float32, bfloat16, float16 or int8.
    """

    def __init__(self, rows: Array, kind: str) -> None:
        """Takes float32 (columns, width), and the precision in which they are held."""
        self.kind, self._width = kind, rows.shape[1]
        self._scale = np.ones(len(rows), np.float32)
        self._no_bias = np.zeros(len(rows), np.float32)
        missing = -self._width % matmul_tiles.LANES
        if missing:
            rows = np.pad(rows, ((0, 0), (0, missing)))
        # Compiled code knows arrays that may be written to; these are, but nobody does.
        rows = np.require(rows, np.float32, ["C", "W"])
        if kind == "int8":
            self._held, self._scale = quantize_rows(rows)
        elif kind == "float16":
            self._held = rows.astype(np.float16).view(HELD[kind])
        elif kind == "bfloat16":
            self._held = to_bfloat16_bits(rows)
        else:
            self._held = rows

    def times(self, x: Array, bias: Array | None = None) -> Array:
        """(many, width) → (many, columns)."""
        bias = self._no_bias if bias is None else bias
        if len(x) > FEW_ROWS or len(self._held) < matmul_tiles.TILE_COLUMNS:
            found = x @ self._wide(slice(None)).T
            found += bias
            return np.asarray(found)
        rows = self._laid(x)
        found = np.empty((len(rows), len(self._held)), np.float32)
        multiply = kernels.one_row if len(x) == 1 else kernels.few_rows
        multiply(rows, self._held, self._scale, bias, found)
        return found[: len(x)]

    def _laid(self, x: Array) -> Array:
        """Returns rows as compiled loops need them: in whole tiles, and as wide as what is held."""
        many, width = x.shape
        missing = -many % matmul_tiles.TILE_ROWS if many > 1 else 0
        crowded = many > 1 and x.strides[0] % SAME_PLACE == 0
        if not missing and not crowded and width == self._held.shape[1]:
            return x
        rows = np.zeros((many + missing, self._held.shape[1] + matmul_tiles.LANES), np.float32)
        rows[:many, :width] = x
        return rows

    def rows(self, places: Sequence[int]) -> Array:
        """Returns float32 (places, width): what stands there."""
        return self._wide(list(places))

    def _wide(self, places: Any) -> Array:
        """Returns the rows at some places as float32."""
        held = self._held[places, : self._width]
        if self.kind == "int8":
            return np.asarray(held * self._scale[places][:, None])
        if self.kind == "float16":
            return np.asarray(held.view(np.float16).astype(np.float32))
        if self.kind == "bfloat16":
            return np.asarray((held.astype(np.uint32) << 16).view(np.float32))
        return np.asarray(held)


class NativeArithmetic(Arithmetic):
    """GPT-2's arithmetic by compiled loops; products of many rows by NumPy's BLAS."""

    def __init__(self, kind: str = "float32") -> None:
        """Takes in which precision weights are held."""
        self._kind = kind

    def prepare(self, *, few: bool) -> None:
        """Begins to compile what is needed, and starts the threads that share the work."""
        kernels.wake(np.empty(cores(), np.int64))
        numba.compile_in_background(needed(HELD[self._kind], few=few))

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

    def attend_prompt(self, mixed: Array, keys: Array, values: Array) -> Array:
        """Lets each position of a prompt attend to those before it and to itself."""
        if len(mixed) < LONG_PROMPT or keys.shape[-1] < matmul_tiles.TILE_COLUMNS:
            return super().attend_prompt(mixed, keys, values)
        found = np.empty((len(mixed), mixed.shape[1] // 3), np.float32)
        attention_kernels.attend_prompt(mixed, keys, values, found)
        return found

    def attend_newest(self, mixed: Array, keys: Array, values: Array, seen: Any) -> Array:
        """Adds each text's newest position to its keys and values, and attends to all of them."""
        found = np.empty((len(mixed), mixed.shape[1] // 3), np.float32)
        attention_kernels.attend_newest(mixed, keys, values, seen, found)
        return found


def needed(held: Any, *, few: bool) -> list[tuple[Any, tuple[Any, ...]]]:
    """Returns the loops that decoding needs, each with the types of what it takes.

    Args:
        held: NumPy's type of the weights, or of their bits.
        few: whether products with a few rows are among them.
    """
    weights, counts = from_dtype(np.dtype(held))[:, ::1], types.int64[::1]
    vector, rows = types.float32[::1], types.float32[:, ::1]
    cache = types.float32[:, :, :, ::1]
    products = [kernels.one_row, *([kernels.few_rows] if few else [])]
    return [
        (kernels.norm, (rows, vector, vector, types.float32, rows)),
        *((loop, (rows, weights, vector, vector, rows)) for loop in products),
        (attention_kernels.attend_newest, (rows, cache, cache, counts, rows)),
        (kernels.gelu, (rows,)),
    ]
