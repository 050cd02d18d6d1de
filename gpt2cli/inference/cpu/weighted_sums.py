"""Sums of rows, each times a number of its own, that stay in registers; built for LLVM."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gpt2cli.inference.cpu.matmul_tiles import FLOAT, FUSED, LANES, NUMBER, PLACE, ArrayView, vector

# As many sums as are added to in the time of an addition.
SUMS = 4
WIDTH = SUMS * LANES


@intrinsic  # type: ignore[untyped-decorator]
def weighted_sum(_context: Any, shares: Any, rows: Any, corner: Any, found: Any) -> Any:
    """Sets WIDTH numbers of `found` to those of rows times their shares, added up row by row.

    Only for compiled loops.

    Args:
        shares: float32 (rows,).
        rows: float32 (rows, columns).
        corner: how many of the rows there are, and the first of the columns.
        found: float32 (columns,), the result.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        """Builds a loop over the rows, whose sums LLVM keeps in registers."""
        factors, matrix, into = (
            ArrayView(context, builder, signature.args[number], arguments[number])
            for number in (0, 1, 3)
        )
        count, column = cgutils.unpack_tuple(builder, arguments[2])
        kind = ir.VectorType(FLOAT, LANES)
        sums = [cgutils.alloca_once_value(builder, kind(None)) for _ in range(SUMS)]
        with cgutils.for_range(builder, count) as loop:
            share = builder.load(factors.item(loop.index))
            alone = builder.insert_element(kind(ir.Undefined), share, NUMBER(0))
            everywhere = builder.shuffle_vector(alone, alone, ir.VectorType(NUMBER, LANES)(None))
            begin = matrix.item(loop.index, column)
            for number, place in enumerate(sums):
                values = vector(builder, begin, PLACE(number * LANES), LANES)
                product = builder.fmul(values, everywhere, flags=FUSED)
                builder.store(builder.fadd(builder.load(place), product, flags=FUSED), place)
        for number, place in enumerate(sums):
            at = into.item(builder.add(column, PLACE(number * LANES)))
            stored = builder.store(builder.load(place), builder.bitcast(at, kind.as_pointer()))
            stored.align = 4
        return context.get_dummy_value()

    corners = types.UniTuple(types.int64, 2)
    return types.void(shares, rows, corners, found), generate
