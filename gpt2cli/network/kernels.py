"""GPT-2's inner loops on a CPU, compiled by Numba: products with few rows, attention, GELU.

Matrices lie by their columns, (columns, width), each read from one end to the other; narrow ones
are widened in registers. Half precision comes as its bits, which Numba's arrays have no type for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import from_dtype, prange, types
from numba.extending import intrinsic

from gpt2cli.native import compiled

# Sums may be taken in any order and products fused with them; what is no number stays none.
SUMS = {"reassoc", "contract", "nsz"}
# The types of the bits of half precision.
FLOAT16_BITS, BFLOAT16_BITS = np.int16, np.uint16
# A tile of a product is so many rows by so many columns: as many sums as registers hold.
TILE_ROWS, TILE_COLUMNS = 4, 5

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


def needed(held: Any, *, few: bool) -> list[tuple[Any, tuple[Any, ...]]]:
    """Returns the loops that decoding needs, each with the types of what it takes.

    Args:
        held: NumPy's type of the weights, or of their bits.
        few: whether products with a few rows are among them.
    """
    weights, counts = from_dtype(np.dtype(held))[:, ::1], types.int64[::1]
    vector, rows = types.float32[::1], types.float32[:, ::1]
    cache = types.float32[:, :, :, ::1]
    loops: list[tuple[Any, tuple[Any, ...]]] = [
        (norm, (rows, vector, vector, types.float32, rows)),
        (one_row, (vector, weights, vector, vector, vector)),
        (attend_newest, (rows, cache, cache, counts, rows)),
        (gelu, (rows,)),
    ]
    return [(few_rows, (rows, weights, vector, vector, rows)), *loops] if few else loops


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
        widened = np.empty((TILE_COLUMNS, width), np.float32)
        for column in range(some):
            for place in range(width):
                widened[column, place] = wide(columns[first + column, place])
        # Tiles need all their columns and rows; what is left is taken one by one.
        tiled = many - many % TILE_ROWS if some == TILE_COLUMNS else 0
        for row in range(0, tiled, TILE_ROWS):
            tile(rows, row, widened, width, found[row:, first:])
        for row in range(tiled, many):
            for column in range(some):
                found[row, first + column] = dot(rows[row], widened[column])
        for row in range(many):
            for column in range(first, first + some):
                found[row, column] = found[row, column] * scale[column] + bias[column]


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


@compiled(parallel=True, fastmath=SUMS)
def attend_newest(mixed: Any, keys: Any, values: Any, seen: Any, found: Any) -> None:
    """Adds each text's newest position to its keys and values, and attends to all of them.

    Args:
        mixed: float32 (texts, 3 * embed): queries, keys and values of the newest positions.
        keys: float32 (texts, heads, slots, head).
        values: like keys.
        seen: int64 (texts,), how many positions each text has already.
        found: float32 (texts, embed), the result.
    """
    texts, heads = values.shape[:2]
    for job in prange(texts * heads):
        text, number = job // heads, job % heads
        pair = keys[text, number], values[text, number]
        attend(mixed[text], number, pair, seen[text] + 1, found[text])


@compiled(fastmath=SUMS)
def attend(mixed: Any, number: Any, pair: Any, end: Any, found: Any) -> None:
    """The same for one text and one head, by its number.

    Args:
        mixed: float32 (3 * embed,).
        number: the head.
        pair: float32 (slots, head) twice: the head's keys and values.
        end: how many positions there are with the newest.
        found: float32 (embed,), of which the head's part is set.
    """
    keys, values = pair
    embed, head, first = len(found), keys.shape[1], number * keys.shape[1]
    scale = np.float32(1 / np.sqrt(np.float32(head)))
    scores, query, sums = (
        np.empty(end, np.float32),
        np.empty(head, np.float32),
        np.empty(head, np.float32),
    )
    for place in range(head):
        query[place] = mixed[first + place] * scale
        keys[end - 1, place] = mixed[embed + first + place]
        values[end - 1, place] = mixed[2 * embed + first + place]
        sums[place] = ZERO
    for slot in range(end):
        total = ZERO
        for place in range(head):
            total += query[place] * keys[slot, place]
        scores[slot] = total
    softmax(scores, end)
    for slot in range(end):
        share = scores[slot]
        for place in range(head):
            sums[place] += share * values[slot, place]
    for place in range(head):
        found[first + place] = sums[place]


@compiled(parallel=True, fastmath=SUMS)
def attend_prompt(mixed: Any, keys: Any, values: Any, found: Any) -> None:
    """Lets each position of a prompt attend to those before it and to itself.

    Args:
        mixed: float32 (time, 3 * embed), of which the queries are taken; at least 4 positions.
        keys: float32 (heads, slots, head), of the prompt; a head has at least 5.
        values: like keys.
        found: float32 (time, embed), the result.
    """
    for number in prange(len(keys)):
        attend_head(mixed, number, keys[number], values[number], found)


@compiled(fastmath=SUMS)
def attend_head(mixed: Any, number: Any, keys: Any, values: Any, found: Any) -> None:
    """The same for one head, by its number; four queries at a time."""
    time, head = len(found), keys.shape[1]
    turned = np.empty((2, head, time), np.float32)
    for slot in range(time):
        for place in range(head):
            turned[0, place, slot] = keys[slot, place]
            turned[1, place, slot] = values[slot, place]
    scale, at = np.float32(1 / np.sqrt(np.float32(head))), number * head
    scores, queries = (
        np.empty((TILE_ROWS, time), np.float32),
        np.empty((TILE_ROWS, head), np.float32),
    )
    for start in range(0, time, TILE_ROWS):
        # The last four may have been among those before.
        first = min(start, time - TILE_ROWS)
        end = first + TILE_ROWS
        for row in range(TILE_ROWS):
            for place in range(head):
                queries[row, place] = mixed[first + row, at + place] * scale
        pair_product(queries, 0, turned[0], end, scores)
        pair_product(queries, 2, turned[0], end, scores)
        for row in range(TILE_ROWS):
            softmax(scores[row, :end], first + row + 1)
        for column in range(0, head, TILE_COLUMNS):
            place = min(column, head - TILE_COLUMNS)
            tile(
                scores, 0, turned[1, place : place + TILE_COLUMNS], end, found[first:, at + place :]
            )


@compiled(fastmath=SUMS)
def pair_product(left: Any, row: Any, right: Any, end: Any, found: Any) -> None:
    """Sets rows `row` and `row + 1` of found, up to `end`: those of left times right.

    Args:
        left: float32 (rows, depth).
        row: the first of two rows.
        right: float32 (depth, columns).
        end: how many columns are wanted.
        found: float32 (rows, columns).
    """
    depth, next_row = left.shape[1], row + 1
    found[row, :end], found[next_row, :end] = ZERO, ZERO
    fours = depth - depth % 4
    for k in range(0, fours, 4):
        a0, a1, a2, a3 = left[row, k], left[row, k + 1], left[row, k + 2], left[row, k + 3]
        b0, b1 = left[next_row, k], left[next_row, k + 1]
        b2, b3 = left[next_row, k + 2], left[next_row, k + 3]
        for place in range(end):
            c0, c1 = right[k, place], right[k + 1, place]
            c2, c3 = right[k + 2, place], right[k + 3, place]
            found[row, place] += a0 * c0 + a1 * c1 + a2 * c2 + a3 * c3
            found[next_row, place] += b0 * c0 + b1 * c1 + b2 * c2 + b3 * c3
    for k in range(fours, depth):
        for place in range(end):
            found[row, place] += left[row, k] * right[k, place]
            found[next_row, place] += left[next_row, k] * right[k, place]


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
