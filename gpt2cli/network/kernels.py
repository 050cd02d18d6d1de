"""GPT-2's inner loops on a CPU, compiled by Numba: products with few rows, softmax, GELU, norm.

Matrices lie by their columns, (columns, width), each read from one end to the other; narrow ones
are widened in registers. Half precision comes as its bits, which Numba's arrays have no type for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

from gpt2cli.native import compiled

# Sums may be taken in any order and products fused with them; what is no number stays none.
SUMS = {"reassoc", "contract", "nsz"}
# The types of the bits of half precision.
FLOAT16_BITS, BFLOAT16_BITS = np.int16, np.uint16
# A tile of a product is so many rows by so many columns: as many sums as registers hold.
TILE_ROWS, TILE_COLUMNS = 4, 5
# So many bytes come from memory at once.
CACHE_LINE = 64

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
ONE_BITS, FRACTION_BITS = np.int32(0x3F800000), np.int32(23)


@compiled(parallel=True)
def wake(found: Any) -> None:
    """int64 (places,) → their numbers, found by all threads: they are there from now on."""
    for place in prange(len(found)):
        found[place] = place


@intrinsic  # type: ignore[untyped-decorator]
def wide(_context: Any, kind: Any) -> Any:
    """A weight of any kind → float32; for compiled loops alone."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        (value,) = arguments
        if kind == types.int16:
            return builder.fpext(builder.bitcast(value, ir.HalfType()), ir.FloatType())
        if kind == types.uint16:
            # The upper half of a float32.
            upper = builder.shl(builder.zext(value, ir.IntType(32)), ir.IntType(32)(16))
            return builder.bitcast(upper, ir.FloatType())
        return builder.sitofp(value, ir.FloatType()) if kind == types.int8 else value

    return types.float32(kind), generate


@intrinsic  # type: ignore[untyped-decorator]
def prefetch(_context: Any, array: Any) -> Any:
    """Asks memory for the beginning of an array, and does not wait for it."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        data = context.make_array(array)(context, builder, arguments[0]).data
        address = builder.bitcast(data, ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, number, number, number])
        function = get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        # To read it, into the second cache, as data.
        builder.call(function, [address, number(0), number(2), number(1)])
        return context.get_dummy_value()

    return types.void(array), generate


# With SUMS the rounding in here would be optimised away.
@compiled()
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


@compiled(fastmath=SUMS)
def dot(row: Any, column: Any) -> Any:
    """float32 (width,), and (width,) of any kind → the sum of their products."""
    total = ZERO
    for place in range(len(row)):
        total += row[place] * wide(column[place])
    return total


@compiled(parallel=True, fastmath=SUMS)
def one_row(row: Any, columns: Any, scale: Any, bias: Any, found: Any) -> None:
    """Multiplies a row by a matrix, at the speed at which memory gives it.

    Args:
        row: float32 (width,).
        columns: (columns, width), of any kind.
        scale: float32 (columns,), what each column is multiplied by.
        bias: float32 (columns,), what is added then.
        found: float32 (columns,), the result.
    """
    for column in prange(len(columns)):
        found[column] = dot(row, columns[column]) * scale[column] + bias[column]


@compiled(parallel=True, fastmath=SUMS)
def few_rows(rows: Any, columns: Any, scale: Any, bias: Any, found: Any) -> None:
    """Multiplies up to some dozens of rows by a matrix, which is read once.

    Args:
        rows: float32 (many, width).
        columns: (columns, width), of any kind.
        scale: float32 (columns,), what each column is multiplied by.
        bias: float32 (columns,), what is added then.
        found: float32 (many, columns), the result.
    """
    many, width = rows.shape
    for part in prange((len(columns) + TILE_COLUMNS - 1) // TILE_COLUMNS):
        first = part * TILE_COLUMNS
        some = min(TILE_COLUMNS, len(columns) - first)
        # While these columns are multiplied, memory gives the next, a share with every tile.
        next_weights = columns[first + some : first + some + TILE_COLUMNS].reshape(-1)
        share = (len(next_weights) * TILE_ROWS + many - 1) // many
        widened = np.empty((TILE_COLUMNS, width), np.float32)
        for column in range(some):
            for place in range(width):
                widened[column, place] = wide(columns[first + column, place])
        # Tiles need all their columns and rows; what is left is taken one by one.
        tiled = many - many % TILE_ROWS if some == TILE_COLUMNS else 0
        for row in range(0, tiled, TILE_ROWS):
            start = row // TILE_ROWS * share
            fetch(next_weights, start, min(start + share, len(next_weights)))
            tile(rows, row, widened, width, found[row:, first:])
        for row in range(tiled, many):
            for column in range(some):
                found[row, first + column] = dot(rows[row], widened[column])
        for row in range(many):
            for column in range(first, first + some):
                found[row, column] = found[row, column] * scale[column] + bias[column]


@compiled()
def fetch(weights: Any, start: Any, end: Any) -> None:
    """Calls for a stretch of weights (many,), of any kind, that is needed soon.

    To slice them for each is slow enough that memory need not be waited for.
    """
    for place in range(start, end, CACHE_LINE // weights.itemsize):
        prefetch(weights[place:])


@compiled(fastmath=SUMS)
def tile(rows: Any, row: Any, columns: Any, depth: Any, found: Any) -> None:
    """Sets (4, 5) of found: four rows from `row` on by five columns, as far as their depth.

    Twenty sums stay in registers; what is loaded once is used four or five times.

    Args:
        rows: float32 (many, at least depth).
        row: the first of four.
        columns: float32 (at least 5, at least depth).
        depth: how much of them is multiplied.
        found: float32 (at least 4, at least 5).
    """
    row0, row1, row2, row3 = rows[row], rows[row + 1], rows[row + 2], rows[row + 3]
    column0, column1, column2, column3, column4 = (
        columns[0], columns[1], columns[2], columns[3], columns[4],
    )  # fmt: skip
    a0 = a1 = a2 = a3 = a4 = b0 = b1 = b2 = b3 = b4 = ZERO
    c0 = c1 = c2 = c3 = c4 = d0 = d1 = d2 = d3 = d4 = ZERO
    for place in range(depth):
        a, b, c, d = row0[place], row1[place], row2[place], row3[place]
        weight = column0[place]
        a0, b0, c0, d0 = a0 + a * weight, b0 + b * weight, c0 + c * weight, d0 + d * weight
        weight = column1[place]
        a1, b1, c1, d1 = a1 + a * weight, b1 + b * weight, c1 + c * weight, d1 + d * weight
        weight = column2[place]
        a2, b2, c2, d2 = a2 + a * weight, b2 + b * weight, c2 + c * weight, d2 + d * weight
        weight = column3[place]
        a3, b3, c3, d3 = a3 + a * weight, b3 + b * weight, c3 + c * weight, d3 + d * weight
        weight = column4[place]
        a4, b4, c4, d4 = a4 + a * weight, b4 + b * weight, c4 + c * weight, d4 + d * weight
    sums = ((a0, a1, a2, a3, a4), (b0, b1, b2, b3, b4), (c0, c1, c2, c3, c4), (d0, d1, d2, d3, d4))
    for place in range(TILE_ROWS):
        for column in range(TILE_COLUMNS):
            found[place, column] = sums[place][column]


@compiled(fastmath=SUMS)
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


@compiled()
def gelu(x: Any) -> None:
    """float32 (many, width) → the same, in place; the tanh approximation, as gpt2.gelu."""
    for row in range(x.shape[0]):
        for place in range(x.shape[1]):
            value = x[row, place]
            inner = GELU_SCALE * (value + GELU_CUBE * value * value * value)
            x[row, place] = value / (ONE + power(inner))


@compiled(fastmath=SUMS)
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
