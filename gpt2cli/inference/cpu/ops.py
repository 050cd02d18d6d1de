"""What GPT-2 computes with on a CPU: compiled loops for few rows, BLAS for many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import from_dtype, get_num_threads, types

from gpt2cli.arrays import Array
from gpt2cli.inference.cpu import (
    amx_tiles,
    attention_kernels,
    kernels,
    matmul_tiles,
    vectors,
    weighted_sums,
)
from gpt2cli.network.rounding import quantize_rows, to_bfloat16_bits
from gpt2cli.runtime import numba
from gpt2cli.runtime.hardware import cores

NORM_EPSILON = np.float32(1e-5)
# Products with more rows than this are bound by arithmetic: BLAS does them best.
FEW_ROWS = 128
# As many rows of int16 stay in the second cache while columns of int8 come by.
ROW_BLOCK = 256
# A shorter prompt is not worth another loop.
LONG_PROMPT = 64
# BLAS takes queries in blocks of this many, each against the keys up to its end.
QUERY_BLOCK = 256
# Rows that are this many bytes apart, or a multiple, push each other out of the first cache.
SAME_PLACE = 4096
CACHE_LINE = 64

# What weights are stored as, by precision.
STORED: dict[str, Any] = {
    "float32": np.float32,
    "bfloat16": kernels.BFLOAT16_BITS,
    "float16": kernels.FLOAT16_BITS,
    "int8": np.int8,
}

# Precisions of which a second row, of zeros, makes a single one faster: it is widened for both in
# fewer instructions. Measured with AVX-512.
PAIRED = {"bfloat16"} if vectors.LANES == 16 else set()

# Precisions of which a whole tile of rows reads memory faster than a part of one, so that zeros
# fill it. Measured with AVX-512.
FILLED = {"float32"} if vectors.LANES == 16 else set()

# The time of a pass over one token, then over up to 2, 4, 6, … 16 of them, as shares of the first:
# measured on two cores with AVX-512, GPT-2 124M, 200 tokens before. They depend on how fast memory
# is; these are between those of 31 and of 46 GB/s, and guesses by them are good with both.
PASS_COSTS: dict[str, tuple[float, ...]] = {
    "float32": (1.0, 1.1, 1.15, 1.16, 1.4, 1.55, 1.7, 1.9, 2.05),
    "bfloat16": (1.0, 1.0, 1.09, 1.36, 1.75, 2.05, 2.4, 2.8, 3.15),
    "float16": (1.0, 1.06, 1.16, 1.43, 1.85, 2.2, 2.55, 2.95, 3.3),
    "int8": (1.0, 1.0, 1.1, 1.33, 1.68, 2.0, 2.33, 2.7, 3.0),
}
# The same of int8 with AMX, on two cores of an Intel Xeon.
AMX_COSTS = 1.0, 1.01, 1.07, 1.16, 1.23, 1.36, 1.45, 1.54, 1.63


class Matrix:
    """Weights by their columns, stored in a precision.

    Attributes:
        precision: float32, bfloat16, float16 or int8.
    """

    def __init__(self, columns: Array, precision: str) -> None:
        """Takes float32 (columns, width), and the precision in which they are stored."""
        self.precision, self._width = precision, columns.shape[1]
        self._scale = np.ones(len(columns), np.float32)
        self._no_bias = np.zeros(len(columns), np.float32)
        self._by_amx, self._pieces = uses_amx(precision), get_num_threads()
        step = vectors.PAIR if precision == "int8" else vectors.LANES
        missing = -self._width % (amx_tiles.DEPTH if self._by_amx else step)
        if missing:
            columns = np.pad(columns, ((0, 0), (0, missing)))
        # Compiled code knows arrays that may be written to; these are, but nobody does.
        columns = np.require(columns, np.float32, ["C", "W"])
        if precision == "int8":
            narrow, self._scale = quantize_rows(columns)
        elif precision == "float16":
            narrow = columns.astype(np.float16).view(STORED[precision])
        elif precision == "bfloat16":
            narrow = to_bfloat16_bits(columns)
        else:
            # Copying would take longer than it saves: memory sets the speed.
            self._stored = columns
            return
        self._stored = empty(narrow.shape, narrow.dtype)
        self._stored[:] = narrow

    def times(self, x: Array, bias: Array | None = None) -> Array:
        """(rows, width) → (rows, columns)."""
        bias = self._no_bias if bias is None else bias
        least = amx_tiles.ROWS if self._by_amx else matmul_tiles.BLOCK
        is_narrow = len(self._stored) < least
        if self.precision == "int8" and not is_narrow:
            return self._int8_times(x, bias)
        if len(x) > FEW_ROWS or is_narrow:
            found = x @ self._dequantized(slice(None)).T
            found += bias
            return np.asarray(found)
        rows = self._padded(x)
        found = np.empty((len(rows), len(self._stored)), np.float32)
        kernels.skinny_gemm(rows, self._stored, self._scale, bias, found)
        return found[: len(x)]

    def _int8_times(self, x: Array, bias: Array) -> Array:
        """Does the same in whole numbers, which for any number of rows is faster than BLAS."""
        found = np.empty((len(x), len(self._stored)), np.float32)
        line = self._scale, bias
        for start in range(0, len(x), ROW_BLOCK):
            part, into = x[start : start + ROW_BLOCK], found[start : start + ROW_BLOCK]
            if self._by_amx:
                kernels.int8_gemm_amx(part, self._stored, line, into, self._pieces)
            else:
                kernels.int8_gemm(part, self._stored, *line, into)
        return found

    def rows(self, places: Sequence[int]) -> Array:
        """Returns float32 (places, width): the rows at some places."""
        return self._dequantized(list(places))

    def _padded(self, x: Array) -> Array:
        """Returns rows as compiled loops do them best: one, or pairs; as wide as the matrix."""
        many, width = x.shape
        is_line = many == 1 and self.precision not in PAIRED
        missing = 0 if is_line else many % 2
        if self.precision in FILLED and not is_line:
            missing = max(missing, matmul_tiles.TILE_ROWS - many)
        crowded = many > 1 and x.strides[0] % SAME_PLACE == 0
        if not missing and not crowded and width == self._stored.shape[1]:
            return x
        rows = np.zeros((many + missing, self._stored.shape[1] + vectors.LANES), np.float32)
        rows[:many, :width] = x
        return rows

    def _dequantized(self, places: Any) -> Array:
        """Returns the rows at some places as float32."""
        stored = self._stored[places, : self._width]
        if self.precision == "int8":
            return np.asarray(stored * self._scale[places][:, None])
        if self.precision == "float16":
            return np.asarray(stored.view(np.float16).astype(np.float32))
        if self.precision == "bfloat16":
            return np.asarray((stored.astype(np.uint32) << 16).view(np.float32))
        return np.asarray(stored)


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """Returns an array that begins where a cache line does, so that no register reads two."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(size + CACHE_LINE, np.uint8)
    first = -room.ctypes.data % CACHE_LINE
    return np.asarray(room[first : first + size].view(dtype).reshape(shape))


def new_cache(shape: tuple[int, int, int, int]) -> Array:
    """Returns room for keys or values, (rows, heads, slots, head), as compiled loops need it.

    A head's numbers are padded with zeros, and at least a block of slots is there.
    """
    rows, heads, slots, head = shape
    padded = head + -head % weighted_sums.WIDTH
    found = empty((rows, heads, max(slots, matmul_tiles.BLOCK), padded), np.float32)
    found[..., head:] = 0
    return found


def uses_amx(precision: str) -> bool:
    """Returns whether matrices in a precision are multiplied by AMX."""
    return precision == "int8" and amx_tiles.is_available()


def pass_costs(precision: str) -> tuple[float, ...]:
    """Returns what passes over several tokens cost on this processor, see PASS_COSTS."""
    return AMX_COSTS if uses_amx(precision) else PASS_COSTS[precision]


def prepare(precision: str) -> None:
    """Starts the threads that share the work, and begins to compile the loops that it needs."""
    kernels.wake(np.empty(cores(), np.int64))
    weights, counts = from_dtype(np.dtype(STORED[precision]))[:, ::1], types.int64[::1]
    vector, rows = types.float32[::1], types.float32[:, ::1]
    cache = types.float32[:, :, :, ::1]
    gemm = kernels.int8_gemm if precision == "int8" else kernels.skinny_gemm
    product: tuple[Any, tuple[Any, ...]] = gemm, (rows, weights, vector, vector, rows)
    if uses_amx(precision):
        line = types.UniTuple(vector, 2)
        product = kernels.int8_gemm_amx, (rows, weights, line, rows, types.int64)
    loops = [
        (kernels.norm, (rows, vector, vector, types.float32, rows)),
        product,
        (attention_kernels.attend_newest, (rows, cache, cache, counts, counts, rows)),
        (kernels.gelu, (rows,)),
    ]
    numba.compile_in_background(loops)


def norm(x: Array, gain: Array, bias: Array) -> Array:
    """(rows, embed) → (rows, embed) of mean 0 and variance 1, scaled and shifted."""
    found = np.empty_like(x)
    kernels.norm(x, gain, bias, NORM_EPSILON, found)
    return found


def gelu(x: Array) -> Array:
    """The tanh approximation of GELU, as gpt2.gelu; x is overwritten."""
    kernels.gelu(x)
    return x


def attend_newest(mixed: Array, keys: Array, values: Array, seen: Array, starts: Array) -> Array:
    """Returns (positions, embed); see `attention_kernels.attend_newest`."""
    found = np.empty((len(mixed), mixed.shape[1] // 3), np.float32)
    attention_kernels.attend_newest(mixed, keys, values, seen, starts, found)
    return found


def attend_prompt(mixed: Array, keys: Array, values: Array) -> Array:
    """Returns (time, embed); see `attention_kernels.attend_prompt`."""
    embed = mixed.shape[1] // 3
    if len(mixed) < LONG_PROMPT or embed < len(keys) * matmul_tiles.TILE_COLUMNS:
        return attend_by_blas(mixed, keys, values)
    found = np.empty((len(mixed), embed), np.float32)
    attention_kernels.attend_prompt(mixed, keys, values, found)
    return found


def attend_by_blas(mixed: Array, keys: Array, values: Array) -> Array:
    """Computes what `attend_prompt` does by NumPy; the arguments are the same."""
    time, embed, heads = len(mixed), mixed.shape[1] // 3, len(keys)
    head = embed // heads
    query = mixed[:, :embed].reshape(time, heads, head).transpose(1, 0, 2)
    query = query / np.float32(math.sqrt(head))  # (heads, time, head)
    found = np.empty((heads, time, head), mixed.dtype)
    for start in range(0, time, QUERY_BLOCK):
        end = min(start + QUERY_BLOCK, time)
        seen = keys[:, :end, :head].transpose(0, 2, 1)
        scores = query[:, start:end] @ seen  # (heads, block, end)
        later = np.full(2 * [end - start], -np.inf, np.float32)
        scores[:, :, start:] += np.triu(later, 1)
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        found[:, start:end] = scores @ values[:, :end, :head]
    return found.transpose(1, 0, 2).reshape(time, embed)
