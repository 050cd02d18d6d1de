"""Rows of whole numbers as AMX's tile registers take them: by fours of bytes; built for LLVM."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gpt2cli.inference.cpu.amx_tiles import DEPTH, ROWS
from gpt2cli.inference.cpu.vectors import (
    BYTE,
    INDICES,
    PLACE,
    SHORT,
    ArrayView,
    array_views,
    build_highest,
    interleaved,
    is_zero,
    smaller,
    splat,
    store_at,
    vector_at,
)

# Up to this number of rows each thread splits for itself, as one group of one of these sizes: fewer
# would be loaded more slowly.
FEW = 8, 4


def packer(*counts: int) -> Any:
    """Returns what splits rows as registers take them, for some numbers of rows in a group."""

    @intrinsic  # type: ignore[untyped-decorator]
    def pack(_context: Any, whole: Any, halves: Any, place: Any) -> Any:
        """Splits a group of rows; only for compiled loops.

        Args:
            whole: int16 (up to ROWS, depth or more), the depth a multiple of DEPTH.
            halves: int32 (groups, 2, depth / 4 times wide), set at the group: of each row its next
                four high bytes, or low ones, and then of each row the four after those.
            place: the group; and how many rows each has, one of the counts. If there are fewer,
                the last one is there more than once.
        """

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            """Builds a loop over DEPTH numbers of each row, for each number of rows."""
            rows, into = array_views(context, builder, signature.args[:2], arguments[:2])
            group, wide = cgutils.unpack_tuple(builder, arguments[2])
            build_highest(
                builder,
                wide,
                counts,
                lambda count: build_split(builder, rows, count, (into, group)),
            )
            return context.get_dummy_value()

        return types.void(whole, halves, types.UniTuple(types.int64, 2)), generate

    return pack


def build_split(builder: Any, rows: ArrayView, count: int, target: tuple[ArrayView, Any]) -> None:
    """Builds what splits this number of rows into a group of halves; see `packer`."""
    into, group = target
    last = builder.sub(rows.shape[0], PLACE(1))
    lines = [rows.item(smaller(builder, PLACE(number), last)) for number in range(count)]
    depth = builder.udiv(builder.mul(into.shape[2], PLACE(4)), PLACE(count))
    with cgutils.for_range(builder, PLACE(2)) as loop:
        # The high bytes first.
        shift = builder.select(is_zero(builder, loop.index), SHORT(BYTE.width), SHORT(0))
        shifts = splat(builder, shift, DEPTH)
        with cgutils.for_range_slice(builder, PLACE(0), depth, PLACE(DEPTH)) as (place, _):
            fours = []
            for line in lines:
                kept = builder.ashr(vector_at(builder, builder.gep(line, [place]), DEPTH), shifts)
                narrow = builder.trunc(kept, ir.VectorType(BYTE, DEPTH))
                fours.append(builder.bitcast(narrow, INDICES))
            first = builder.mul(builder.udiv(place, PLACE(4)), PLACE(count))
            begin = into.item(group, loop.index, first)
            for number, vector in enumerate(interleaved(builder, fours)):
                store_at(builder, vector, begin, number)


# A few rows, and full groups of them.
pack_few, pack_many = packer(*FEW), packer(ROWS)
