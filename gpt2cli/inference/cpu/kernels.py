"""GPT-2's inner loops on a CPU, compiled by Numba: products with few rows, softmax, GELU, norm.

Matrices are stored by columns, (columns, width), each read from one end to the other; narrow ones
are widened in registers. Half precision comes as its bits, which Numba's arrays have no type for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from gpt2cli.inference.cpu import amx_rows, amx_tiles
from gpt2cli.inference.cpu.amx_rows import FEW
from gpt2cli.inference.cpu.amx_tiles import ROWS
from gpt2cli.inference.cpu.matmul_tiles import BLOCK, block
from gpt2cli.inference.cpu.vectors import LANES, PAIR
from gpt2cli.network.rounding import INT8_MOST
from gpt2cli.runtime.numba import jit

# Sums may be taken in any order and products fused with them; NaN stays NaN.
SUMS = {"reassoc", "contract", "nsz"}
# The types of the bits of half precision.
FLOAT16_BITS, BFLOAT16_BITS = np.int16, np.uint16

ZERO, ONE = np.float32(0), np.float32(1)
# GELU's tanh is (1 - e) / (1 + e), e a power of minus twice this much of x and of its cube.
GELU_SCALE, GELU_CUBE = np.float32(-2 * np.sqrt(2 / np.pi)), np.float32(0.044715)
# Cephes' expf: the logarithm of 2 in two parts, and a polynomial for what is left.
LOG2_E, LN2_HIGH, LN2_LOW = map(np.float32, (1.44269504088896341, 0.693359375, -2.12194440e-4))
POLYNOMIAL = tuple(map(np.float32, (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3))) + tuple(
    map(np.float32, (4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1))
)
LEAST_POWER, MOST_POWER = np.float32(-87), np.float32(88)
# Adding it rounds a float32 to whole numbers, which then are its lowest bits.
ROUNDING = np.float32(1.5 * 2**23)
# The bits of a float32 without its sign, and those of the largest one there is.
MAGNITUDE, LARGEST_BITS = np.int32(0x7FFFFFFF), np.int32(0x7F7FFFFF)
INT16_MOST, INT32_MOST = 2**15 - 1, 2**31 - 1
# Of a row whose numbers are all smaller than this nothing is left.
LEAST_LENGTH = np.float32(1e-30)
# Of at least this number of rows threads share GELU.
SHARED_ROWS = 3
ONE_BITS, FRACTION_BITS = np.int32(0x3F800000), np.int32(23)


@jit(parallel=True)
def wake(found: Any) -> None:
    """int64 (places,) → their numbers, found by all threads: they are there from now on."""
    for place in prange(len(found)):
        found[place] = place


# With SUMS the rounding in here would be optimised away.
@jit(fastmath={"contract"})
def power(x: Any) -> Any:
    """float32 → e to the power of it, up to 88; of what is below -87 nothing is left."""
    within = min(max(x, LEAST_POWER), MOST_POWER)
    rounded = np.float32(within * LOG2_E + ROUNDING)
    whole = rounded - ROUNDING
    rest = within - whole * LN2_HIGH - whole * LN2_LOW
    a, b, c, d, e, f = POLYNOMIAL
    series = ((((a * rest + b) * rest + c) * rest + d) * rest + e) * rest + f
    exponent = np.int32((np.int32(rounded.view(np.int32)) << FRACTION_BITS) + ONE_BITS)
    found = (series * rest * rest + rest + ONE) * exponent.view(np.float32)
    return ZERO if x < LEAST_POWER else found


@jit(parallel=True)
def skinny_gemm(rows: Any, columns: Any, scale: Any, bias: Any, found: Any) -> None:
    """Multiplies some rows by a matrix, which is read once, at the speed of memory for the fewest.

    Args:
        rows: float32 (many, at least width).
        columns: (columns, width), of any kind, as many as a block has or more; the width is a
            multiple of LANES.
        scale: float32 (columns,), what each column is multiplied by.
        bias: float32 (columns,), what is added then.
        found: float32 (many, columns), the result.
    """
    for part in prange((len(columns) + BLOCK - 1) // BLOCK):
        # The last columns may have been among those before: they come to the same.
        column, row = min(part * BLOCK, len(columns) - BLOCK), 0
        while row < len(rows):
            row += block(rows, columns, (row, column), (scale, bias), found)


@jit(parallel=True)
def int8_gemm(rows: Any, columns: Any, scale: Any, bias: Any, found: Any) -> None:
    """Multiplies rows by a matrix of int8 in whole numbers: rows are rounded to 16 bits.

    Those need not be widened to float32, and two are multiplied in the time of one. The arguments
    are those of `skinny_gemm`, of any number of rows; the width is a multiple of PAIR.
    """
    whole, lengths = to_int16(rows, columns.shape[1])
    for part in prange((len(columns) + BLOCK - 1) // BLOCK):
        column, row = min(part * BLOCK, len(columns) - BLOCK), 0
        while row < len(rows):
            row += block(whole, columns, (row, column), (scale, bias, lengths), found)


@jit(parallel=True)
def int8_gemm_amx(rows: Any, columns: Any, line: Any, found: Any, pieces: int) -> None:
    """Does what `int8_gemm` does by AMX: several rows take hardly longer than one.

    There are at least ROWS columns; the width is a multiple of DEPTH. The line is the scale and the
    bias; work is shared in this number of pieces.
    """
    most, least = FEW
    few = len(rows) <= most
    wide = (least if len(rows) <= least else most) if few else ROWS
    scale, bias = line
    depth, groups = columns.shape[1], 0 if few else (len(rows) + ROWS - 1) // ROWS
    blocks = (len(columns) + ROWS - 1) // ROWS
    shared = np.empty((groups, 2, depth // 4 * wide), np.int32)
    factors = np.empty(len(rows), np.float32)
    if not few:
        for group in prange(groups):
            part = slice(group * ROWS, group * ROWS + ROWS)
            whole, factors[part] = to_int16(rows[part], depth)
            amx_rows.pack_many(whole, shared, (group, wide))
    for piece in prange(pieces):
        first, end = piece * blocks // pieces, (piece + 1) * blocks // pieces
        halves, lengths = shared, factors
        if few and first < end:
            # Each thread splits them for itself: memory is read meanwhile, and none waits.
            amx_tiles.fetch(columns, first)
            whole, lengths = to_int16(rows, depth)
            halves = np.empty((1, 2, depth // 4 * wide), np.int32)
            amx_rows.pack_few(whole, halves, (0, wide))
        if first < end:
            amx_tiles.blocks(halves, columns, (first, end, wide), (scale, bias, lengths), found)


@jit()
def to_int16(rows: Any, depth: int) -> Any:
    """Rounds rows to whole numbers, the largest of each to the most that sums of products bear.

    Args:
        rows: float32 (many, width).
        depth: how many products with int8 each row is part of, its width or more.

    Returns:
        int16 (many, more than depth), and float32 (many,): what they are to be multiplied by.
    """
    # Rows that are a power of two apart would push each other out of the first cache.
    whole = np.zeros((len(rows), depth + PAIR), np.int16)
    lengths = np.zeros(len(rows), np.float32)
    most = np.float32(min(INT16_MOST, INT32_MOST * LANES // (INT8_MOST * depth)))
    for row in range(len(rows)):
        # Compared as bits, which processors do for many at once; NaN is above all others.
        bits = np.int32(0)
        for place in range(rows.shape[1]):
            bits = max(bits, np.int32(np.float32(rows[row, place]).view(np.int32) & MAGNITUDE))
        largest = np.int32(bits).view(np.float32)
        if bits > LARGEST_BITS:
            lengths[row] = np.nan
        elif largest > LEAST_LENGTH:
            lengths[row] = largest / most
            for place in range(rows.shape[1]):
                whole[row, place] = np.int16(np.rint(rows[row, place] * (most / largest)))
    return whole, lengths


@jit(fastmath=SUMS)
def softmax(scores: Any, end: int) -> None:
    """float32 (slots,) → the same, in place: shares of the first `end`; the others have none."""
    most = scores[0]
    for slot in range(1, end):
        most = max(most, scores[slot])
    total = ZERO
    for slot in range(end):
        scores[slot] = power(scores[slot] - most)
        total += scores[slot]
    factor = ONE / total
    for slot in range(end):
        scores[slot] *= factor
    scores[end:] = ZERO


@jit(parallel=True)
def gelu(x: Any) -> None:
    """float32 (many, width) → the same, in place; the tanh approximation, as gpt2.gelu."""
    if len(x) < SHARED_ROWS:
        for row in range(len(x)):
            gelu_row(x[row])
    else:
        for row in prange(len(x)):
            gelu_row(x[row])


@jit()
def gelu_row(x: Any) -> None:
    """The same for one row."""
    for place in range(len(x)):
        value = x[place]
        inner = GELU_SCALE * (value + GELU_CUBE * value * value * value)
        x[place] = value / (ONE + power(inner))


@jit(fastmath=SUMS)
def norm(x: Any, gain: Any, bias: Any, epsilon: Any, found: Any) -> None:
    """float32 (many, embed) → (many, embed) of mean 0 and variance 1, scaled and shifted."""
    many, embed = x.shape
    for row in range(many):
        mean = ZERO
        for place in range(embed):
            mean += x[row, place]
        mean /= np.float32(embed)
        variance = ZERO
        for place in range(embed):
            variance += (x[row, place] - mean) ** 2
        factor = ONE / np.sqrt(variance / np.float32(embed) + epsilon)
        for place in range(embed):
            found[row, place] = (x[row, place] - mean) * factor * gain[place] + bias[place]
