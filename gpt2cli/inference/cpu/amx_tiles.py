"""Products of whole numbers in AMX's tile registers, which newer x86 processors have; for LLVM.

A register holds a block of 16 columns of int8 as they are in memory, 64 numbers of each; another
one as many of 16 rows. So as soon as a block has come from memory its products with 16 rows are
done. Registers multiply bytes: rows of int16 come as two halves, whose sums are put together.

While a block is multiplied the sums of the one before are stored: nothing would be read while the
last products are waited for.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gpt2cli.inference.cpu.vectors import (
    BYTE,
    FLOATS,
    FUSED,
    LANES,
    NUMBER,
    PLACE,
    ArrayView,
    array_views,
    features,
    interleaved,
    is_zero,
    prefetch,
    smaller,
    splat,
    store_at,
    vector_at,
)
from gpt2cli.runtime.hardware import may_use_amx

# What a register holds: this number of rows or columns, this number of bytes of each.
ROWS, DEPTH = 16, 64
# How many bytes ahead memory is read; and those that come at a time.
AHEAD, CACHE_LINE = 18 * 1024, 64
# After this number of bytes of each column the sums of the block before are there.
LATE = 2 * DEPTH
# Registers by their numbers. Blocks use two sets in turn: sums of the rows' high and low bytes, and
# the columns. The last two hold the rows.
SETS, COLUMNS, HIGH, LOW = ((0, 1, 4), (2, 3, 5)), (4, 5), 6, 7
# The places in Intel's configuration of its version, of the bytes of each register's rows, and of
# their number.
VERSION, WIDTHS, HEIGHTS = 0, 16, 48
HIGH_BYTE = 256.0


def is_available() -> bool:
    """Returns whether the processor has the registers and the system lets them be used."""
    return LANES == ROWS and bool(features().get("amx-int8")) and may_use_amx()


@intrinsic  # type: ignore[untyped-decorator]
def fetch(_context: Any, columns: Any, block: Any) -> Any:
    """Prefetches what `blocks` reads first, from a block on; only for compiled loops."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        """Builds a loop over as much as is read ahead."""
        (matrix,) = array_views(context, builder, signature.args[:1], arguments[:1])
        begin = matrix.item(builder.mul(arguments[1], PLACE(ROWS)))
        size = PLACE(AHEAD)
        with cgutils.for_range_slice(builder, PLACE(0), size, PLACE(CACHE_LINE)) as (place, _):
            prefetch(builder, builder.gep(begin, [place]))
        return context.get_dummy_value()

    return types.void(columns, block), generate


@intrinsic  # type: ignore[untyped-decorator]
def blocks(_context: Any, halves: Any, columns: Any, part: Any, line: Any, found: Any) -> Any:
    """Multiplies rows by some blocks of ROWS columns; only for compiled loops.

    Args:
        halves: rows that are split, see `amx_rows.packer`.
        columns: int8 (ROWS or more, depth), the depth a multiple of DEPTH.
        part: the first block, the end of them, and how many rows a group has. The last block of
            all may have columns of the one before.
        line: float32 (columns,) twice, what each column is multiplied by and what is added; and
            float32 (rows,), what each row is multiplied by.
        found: float32 (rows, columns), set at the blocks' columns.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        """Builds a loop over the products of a block and a group, two of them at a time."""
        kinds = signature.args
        halves, columns = array_views(context, builder, kinds[:2], arguments[:2])
        line = array_views(context, builder, kinds[3], arguments[3])
        (found,) = array_views(context, builder, kinds[4:], arguments[4:])
        first, end, wide = cgutils.unpack_tuple(builder, arguments[2])
        configure(builder, wide)
        product = Product(
            builder=builder, halves=halves, columns=columns, wide=wide, line=line, into=found
        )
        product.build_all(first, builder.mul(builder.sub(end, first), halves.shape[0]))
        call(builder, "tilerelease")
        return context.get_dummy_value()

    three = types.UniTuple(types.int64, 3)
    return types.void(halves, columns, three, line, found), generate


@dataclasses.dataclass(kw_only=True)
class Product:
    """What multiplies groups of rows by blocks of columns, while code is being built.

    Attributes:
        builder: builds it.
        halves: an argument of `blocks`, as are columns and line.
        wide: how many rows a group has.
        into: the result.
    """

    builder: Any
    halves: ArrayView
    columns: ArrayView
    wide: Any
    line: list[ArrayView]
    into: ArrayView

    def __post_init__(self) -> None:
        """Finds room for sums."""
        # Of the set that is stored first, and of the other: the sums of high bytes and of low ones,
        # int32 (columns, ROWS) each.
        self._sums = cgutils.alloca_once(self.builder, NUMBER, 4 * ROWS * ROWS)
        # float32 (ROWS, columns).
        self._turned = cgutils.alloca_once(self.builder, FLOATS, ROWS)

    def build_all(self, first: Any, count: Any) -> None:
        """Builds what finds this number of products, from a block's first one on.

        Each round finds two, and sets the result to the second of the round before and the first
        of its own; one more round sets the last.
        """
        builder = self.builder
        last = builder.sub(count, PLACE(1))
        end, step = builder.add(count, PLACE(2)), PLACE(2)
        with cgutils.for_range_slice(builder, PLACE(0), end, step) as (number, _):
            # If there is no second one, the first is done twice.
            before, one, other = (
                self._corner(first, smaller(builder, each, last))
                for each in (builder.sub(number, PLACE(1)), number, builder.add(number, PLACE(1)))
            )
            is_round = builder.icmp_unsigned("<", number, count)
            with builder.if_else(is_round) as (then, otherwise):
                with then:
                    self._add_up(0, one)
                    self._add_up(1, other)
                with otherwise:
                    self._keep(1)
            # There is none before the first round, and none of its own in the last.
            from_which = builder.select(is_zero(builder, number), PLACE(1), PLACE(0))
            up_to = builder.select(is_round, PLACE(2), PLACE(1))
            with cgutils.for_range_slice(builder, from_which, up_to, PLACE(1)) as (which, _):
                is_before = is_zero(builder, which)
                corner = [
                    builder.select(is_before, *pair) for pair in zip(before, one, strict=True)
                ]
                self._set(which, corner)

    def _corner(self, first: Any, number: Any) -> tuple[Any, Any]:
        """Returns the group and the first column of a product, by its number from a block on."""
        builder, groups = self.builder, self.halves.shape[0]
        block = builder.add(first, builder.udiv(number, groups))
        last = builder.sub(self.columns.shape[0], PLACE(ROWS))
        column = smaller(builder, builder.mul(block, PLACE(ROWS)), last)
        return builder.urem(number, groups), column

    def _add_up(self, number: int, corner: tuple[Any, Any]) -> None:
        """Builds the sums of a set; those of the other set are kept meanwhile."""
        builder, (group, column), (high, low, weights) = self.builder, corner, SETS[number]
        depth = self.columns.shape[1]
        begin = self.columns.item(column)
        halves = [
            builder.bitcast(self.halves.item(group, PLACE(half)), BYTE.as_pointer())
            for half in range(2)
        ]
        call(builder, "tilezero", BYTE(high))
        call(builder, "tilezero", BYTE(low))
        # Only the first rows wait for memory.
        is_first = builder.icmp_unsigned("==", group, PLACE(0))
        late = smaller(builder, PLACE(LATE), builder.sub(depth, PLACE(DEPTH)))
        with cgutils.for_range_slice(builder, PLACE(0), depth, PLACE(DEPTH)) as (place, _):
            with builder.if_then(builder.icmp_unsigned("==", place, late)):
                self._keep(1 - number)
            with builder.if_then(is_first):
                self._prefetch(begin, place)
            call(builder, "tileloadd64", BYTE(weights), builder.gep(begin, [place]), depth)
            for register, half in zip((HIGH, LOW), halves, strict=True):
                at = builder.gep(half, [builder.mul(place, self.wide)])
                stride = builder.mul(self.wide, PLACE(4))
                call(builder, "tileloadd64", BYTE(register), at, stride)
            call(builder, "tdpbssd", BYTE(high), BYTE(weights), BYTE(HIGH))
            call(builder, "tdpbsud", BYTE(low), BYTE(weights), BYTE(LOW))

    def _keep(self, number: int) -> None:
        """Builds what stores the sums of a set."""
        for half, register in enumerate(SETS[number][:2]):
            place = 2 * (1 - number) + half
            at = self.builder.gep(self._sums, [NUMBER(place * ROWS * ROWS)])
            address = self.builder.bitcast(at, BYTE.as_pointer())
            call(self.builder, "tilestored64", BYTE(register), address, PLACE(4 * ROWS))

    def _set(self, which: Any, corner: Any) -> None:
        """Builds what sets the result to sums that were stored, scaled and shifted."""
        builder, (group, column) = self.builder, corner
        begin = builder.gep(self._sums, [builder.mul(which, PLACE(2 * ROWS * ROWS))])
        by_columns = []
        for number in range(ROWS):
            high, low = (
                builder.sitofp(vector_at(builder, builder.gep(begin, [NUMBER(place)])), FLOATS)
                for place in (number * ROWS, (ROWS + number) * ROWS)
            )
            upper = builder.fmul(high, FLOATS([HIGH_BYTE] * LANES), flags=FUSED)
            by_columns.append(builder.fadd(upper, low, flags=FUSED))
        for row, vector in enumerate(interleaved(builder, by_columns)):
            builder.store(vector, builder.gep(self._turned, [NUMBER(row)]))
        factors, shifts, lengths = self.line
        factor, shift = (vector_at(builder, each.item(column)) for each in (factors, shifts))
        first = builder.mul(group, PLACE(ROWS))
        many = smaller(builder, builder.sub(self.into.shape[0], first), PLACE(ROWS))
        with cgutils.for_range(builder, many) as loop:
            row = builder.add(first, loop.index)
            found = builder.load(builder.gep(self._turned, [loop.index]))
            for each in (factor, splat(builder, builder.load(lengths.item(row)))):
                found = builder.fmul(found, each, flags=FUSED)
            found = builder.fadd(found, shift, flags=FUSED)
            store_at(builder, found, self.into.item(row, column))

    def _prefetch(self, begin: Any, place: Any) -> None:
        """Builds the prefetching of as much as a register holds, in the order of memory."""
        builder = self.builder
        ahead = builder.add(PLACE(AHEAD), builder.mul(place, PLACE(ROWS)))
        for number in range(ROWS * DEPTH // CACHE_LINE):
            at = builder.add(ahead, PLACE(number * CACHE_LINE))
            prefetch(builder, builder.gep(begin, [at]))


def configure(builder: Any, wide: Any) -> None:
    """Builds what gives a thread the registers, for groups of this number of rows."""
    layout = cgutils.alloca_once_value(builder, ir.ArrayType(BYTE, DEPTH)(None))
    narrow = builder.trunc(builder.mul(wide, PLACE(4)), BYTE)
    values = {VERSION: BYTE(1)}
    for register in range(LOW + 1):
        values[WIDTHS + 2 * register] = BYTE(DEPTH) if register in COLUMNS else narrow
        values[HEIGHTS + register] = BYTE(ROWS)
    for place, value in values.items():
        builder.store(value, builder.gep(layout, [NUMBER(0), NUMBER(place)]))
    call(builder, "ldtilecfg", builder.bitcast(layout, BYTE.as_pointer()))


def call(builder: Any, name: str, *arguments: Any) -> None:
    """Builds an instruction of AMX, which has no result."""
    kind = ir.FunctionType(ir.VoidType(), [each.type for each in arguments])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.{name}")
    builder.call(function, arguments)
