"""Sums of rows, each times a number of its own, that stay in registers; built for LLVM."""

from __future__ import annotations

import itertools
from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gpt2cli.inference.cpu.vectors import (
    FLOATS,
    FUSED,
    LANES,
    PLACE,
    ArrayView,
    build_highest,
    splat,
    vector_at,
)

# As many sums of a line as are added to in the time of an addition.
SUMS = 4
WIDTH = SUMS * LANES
# How many lines share a row: two read a cache as fast as more do, and are sooner compiled.
LINES = 2, 1


@intrinsic  # type: ignore[untyped-decorator]
def weighted_sums(_context: Any, shares: Any, rows: Any, lines: Any, part: Any, found: Any) -> Any:
    """Adds rows times their shares, row by row, to WIDTH numbers of the next lines of `found`.

    Each line has shares of its own. Returns how many lines were taken. Only for compiled loops.

    Args:
        shares: float32 (lines, rows).
        rows: float32 (rows, columns).
        lines: the first line, and the end of them.
        part: the first row and the end of the rows, and the first column.
        found: float32 (lines, columns), the result.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        """Builds a loop over the rows for each number of lines."""
        factors, matrix, into = (
            ArrayView(context, builder, signature.args[number], arguments[number])
            for number in (0, 1, 4)
        )
        line, end = cgutils.unpack_tuple(builder, arguments[2])
        *span, column = cgutils.unpack_tuple(builder, arguments[3])

        def build(count: int) -> None:
            """Builds that of this number of lines."""
            lines = [builder.add(line, PLACE(number)) for number in range(count)]
            columns = [builder.add(column, PLACE(number * LANES)) for number in range(SUMS)]
            places = [[into.item(each, at) for at in columns] for each in lines]
            sums = [
                [cgutils.alloca_once_value(builder, vector_at(builder, at)) for at in each]
                for each in places
            ]
            with cgutils.for_range_slice(builder, *span, PLACE(1)) as (row, _):
                values = [vector_at(builder, matrix.item(row, at)) for at in columns]
                for each, totals in zip(lines, sums, strict=True):
                    add_share(builder, builder.load(factors.item(each, row)), values, totals)
            for at, total in zip(itertools.chain(*places), itertools.chain(*sums), strict=True):
                there = builder.bitcast(at, FLOATS.as_pointer())
                builder.store(builder.load(total), there).align = 4

        return build_highest(builder, builder.sub(end, line), LINES, build)

    pair, three = (types.UniTuple(types.int64, count) for count in (2, 3))
    return types.int64(shares, rows, pair, three, found), generate


def add_share(builder: Any, share: Any, values: list[Any], totals: list[Any]) -> None:
    """Adds vectors, times one number, to sums."""
    everywhere = splat(builder, share)
    for value, total in zip(values, totals, strict=True):
        product = builder.fmul(value, everywhere, flags=FUSED)
        builder.store(builder.fadd(builder.load(total), product, flags=FUSED), total)
