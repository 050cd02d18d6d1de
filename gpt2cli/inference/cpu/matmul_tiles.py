"""A tile of a product: some rows by some columns, whose sums stay in registers; built for LLVM.

LLVM makes such a loop from Numba's code too, but without prefetching. Sums are taken
in the same order in tiles of every shape: a row has the same products by itself and among others.
"""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

FLOAT, HALF, BYTE = ir.FloatType(), ir.HalfType(), ir.IntType(8)
SHORT, NUMBER, PLACE = ir.IntType(16), ir.IntType(32), ir.IntType(64)
# To read it, into the second cache, as data.
SOON = NUMBER(0), NUMBER(2), NUMBER(1)
# A product and the sum that it is added to may be rounded once.
FUSED = ("contract",)


def registers() -> tuple[int, int, int, int]:
    """Returns how many floats a register holds, and what sums of products they hold at once.

    Those are a tile's rows and columns, and the columns of a single row. Narrow registers
    give a sum less in the time of an addition: then one after another is slower than memory.
    """
    features = binding.get_host_cpu_features()
    if features.get("avx512bw"):
        return 16, 4, 6, 1
    if platform.machine() in ("aarch64", "arm64"):
        return 4, 4, 6, 4
    # Half as many registers.
    return 8 if features.get("avx2") else 4, 2, 6, 4


LANES, TILE_ROWS, TILE_COLUMNS, LINE_COLUMNS = registers()
HALF_ROWS = TILE_ROWS // 2
INDICES = ir.VectorType(NUMBER, LANES)
# Whole numbers of 16 bits are multiplied two a lane; what does so on an x86 processor, by lanes.
PAIR = 2 * LANES
PAIR_PRODUCTS = {16: "avx512.pmaddw.d.512", 8: "avx2.pmadd.wd", 4: "sse2.pmadd.wd"}


def of_shape(high: int, wide: int, *, near: bool = False) -> Any:
    """Returns what multiplies `high` rows by `wide` columns; only for compiled loops.

    If the columns are `near`, in a cache, those to come are not prefetched.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def multiply(_context: Any, rows: Any, columns: Any, corner: Any, line: Any, found: Any) -> Any:
        """Sets a tile of `found` to products that are scaled and shifted.

        Args:
            rows: float32 (many, at least depth); or int16, if the columns are int8.
            columns: (many, depth), of any kind; the depth is a multiple of LANES, or of PAIR.
            corner: the first row and the first column of the tile.
            line: float32 (columns,) twice: what each column is multiplied by, and what is added;
                and float32 (rows,), what each row is multiplied by, if they are int16. Empty: the
                products are left as they are.
            found: float32 (rows, columns), the result.
        """

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            """Builds a tile: its sums, and what sets `found` to them."""
            left, right, into = (
                ArrayView(context, builder, signature.args[number], arguments[number])
                for number in (0, 1, 4)
            )
            row, column = cgutils.unpack_tuple(builder, arguments[2])
            line = [
                ArrayView(context, builder, kind, array)
                for kind, array in zip(
                    signature.args[3], cgutils.unpack_tuple(builder, arguments[3]), strict=True
                )
            ]
            # If one column at a time is fast enough, the hardware prefetches the next one.
            here = row, left.shape[0], high
            ahead = None if near or wide == 1 else prefetch_plan(builder, right, wide, here)
            rows, columns = left.rows(row, high), right.rows(column, wide)
            sums = dot_products(builder, rows, columns, ahead, right)
            store_products(builder, sums, (row, column), line, into)
            return context.get_dummy_value()

        corners = types.UniTuple(types.int64, 2)
        return types.void(rows, columns, corners, line, found), generate

    return multiply


def store_products(
    builder: Any, sums: Any, corner: tuple[Any, Any], line: list[Any], into: Any
) -> None:
    """Builds what sets a tile to its sums, scaled and shifted; see `multiply`."""
    for number, totals in enumerate(sums):
        row = builder.add(corner[0], PLACE(number))
        for place, total in enumerate(totals):
            column, found = builder.add(corner[1], PLACE(place)), total
            if line:
                factors, shifts, *lengths = line
                found = builder.fmul(found, builder.load(factors.item(column)), flags=FUSED)
                for length in lengths:
                    found = builder.fmul(found, builder.load(length.item(row)), flags=FUSED)
                found = builder.fadd(found, builder.load(shifts.item(column)), flags=FUSED)
            builder.store(found, into.item(row, column))


class ArrayView:
    """A Numba array as it is in memory, for code that is being built.

    Attributes:
        kind: Numba's type of what it holds.
        shape: the sizes of its axes, in that code.
    """

    def __init__(self, context: Any, builder: Any, kind: Any, value: Any) -> None:
        there = context.make_array(kind)(context, builder, value)
        self.kind, self._builder = kind.dtype, builder
        self.shape = cgutils.unpack_tuple(builder, there.shape)
        self._strides = cgutils.unpack_tuple(builder, there.strides)
        self._begin = builder.bitcast(there.data, BYTE.as_pointer())
        self._held = context.get_value_type(kind.dtype)

    def item(self, *indices: Any) -> Any:
        """Returns the address of an item, or of the first one of a row."""
        at = self._begin
        for index, stride in zip(indices, self._strides, strict=False):
            at = self._builder.gep(at, [self._builder.mul(index, stride)])
        return self._builder.bitcast(at, self._held.as_pointer())

    def rows(self, first: Any, count: int) -> list[Any]:
        """Returns where each of `count` rows begins."""
        return [self.item(self._builder.add(first, PLACE(number))) for number in range(count)]


def prefetch_plan(
    builder: Any, columns: ArrayView, wide: int, at: tuple[Any, Any, int]
) -> tuple[Any, Any]:
    """Builds which part of the next columns is prefetched while these are multiplied.

    All rows that meet the same columns share in it evenly, so that memory is never idle and never
    waited for. A tile is `wide` columns, `at` its first row, how many rows there are, and how many
    a tile has. Returns how many numbers of each column to prefetch, and how far ahead they are.
    """
    depth, (row, many, high) = columns.shape[1], at
    steps, tiles = builder.udiv(depth, PLACE(LANES)), builder.udiv(many, PLACE(high))
    # Rounded up: the last tile's may be past the end.
    each = builder.udiv(builder.add(steps, builder.sub(tiles, PLACE(1))), tiles)
    count = builder.mul(each, PLACE(LANES))
    before = builder.mul(builder.udiv(row, PLACE(high)), count)
    return count, builder.add(builder.mul(depth, PLACE(wide)), before)


def dot_products(
    builder: Any,
    lefts: list[Any],
    rights: list[Any],
    ahead: tuple[Any, Any] | None,
    columns: ArrayView,
) -> Any:
    """Builds the sums of the products of each row with each column, given by where they begin.

    `ahead` is how much of each column of `columns` to prefetch, and how far ahead it is.
    """
    depth, whole = columns.shape[1], columns.kind == types.int8
    none = ir.VectorType(NUMBER if whole else FLOAT, LANES)(None)
    sums = [[cgutils.alloca_once_value(builder, none) for _ in rights] for _ in lefts]
    step = PAIR if whole else LANES
    add_products = add_pairs if whole else add_floats
    with cgutils.for_range_slice(builder, PLACE(0), depth, PLACE(step)) as (place, _):
        if ahead is not None:
            with builder.if_then(builder.icmp_unsigned("<", place, ahead[0])):
                for right in rights:
                    prefetch(builder, builder.gep(right, [builder.add(place, ahead[1])]))
        vectors = [vector(builder, left, place, step) for left in lefts]
        for number, right in enumerate(rights):
            weights = widened(builder, vector(builder, right, place, step), columns.kind)
            for row, numbers in enumerate(vectors):
                total = add_products(builder, builder.load(sums[row][number]), numbers, weights)
                builder.store(total, sums[row][number])
    return [horizontal_sums(builder, [floats(builder, each) for each in line]) for line in sums]


def add_floats(builder: Any, total: Any, numbers: Any, weights: Any) -> Any:
    """Adds the products of two vectors to a third one."""
    return builder.fadd(total, builder.fmul(numbers, weights, flags=FUSED), flags=FUSED)


def add_pairs(builder: Any, total: Any, numbers: Any, weights: Any) -> Any:
    """Adds the products of int16 to sums of int32, two to each; which two depends on the processor.

    LLVM makes one instruction of it for processors that have it.
    """
    if platform.machine() in ("x86_64", "AMD64"):
        kind = ir.FunctionType(INDICES, [numbers.type, weights.type])
        name = f"llvm.x86.{PAIR_PRODUCTS[LANES]}"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.add(total, builder.call(function, [numbers, weights]))
    for begin in (0, LANES):
        half = INDICES(list(range(begin, begin + LANES)))
        left, right = (
            builder.sext(builder.shuffle_vector(each, each.type(ir.Undefined), half), INDICES)
            for each in (numbers, weights)
        )
        total = builder.add(total, builder.mul(left, right))
    return total


def floats(builder: Any, total: Any) -> Any:
    """Loads sums as float32; whole ones could exceed their 32 bits if they were added up."""
    found = builder.load(total)
    if found.type == INDICES:
        return builder.sitofp(found, ir.VectorType(FLOAT, LANES))
    return found


def vector(builder: Any, begin: Any, place: Any, count: int) -> Any:
    """Loads this number of items from a place on."""
    at = builder.gep(begin, [place])
    found = builder.load(builder.bitcast(at, ir.VectorType(at.type.pointee, count).as_pointer()))
    # Rows begin wherever a number may be.
    found.align = 1
    return found


def widened(builder: Any, value: Any, kind: Any) -> Any:
    """Makes float32 of weights, and int16 of int8; half precision comes as its bits."""
    if kind == types.int16:
        floats = ir.VectorType(FLOAT, LANES)
        return builder.fpext(builder.bitcast(value, ir.VectorType(HALF, LANES)), floats)
    if kind == types.uint16:
        # The upper half of a float32.
        upper = builder.shl(builder.zext(value, INDICES), INDICES([16] * LANES))
        return builder.bitcast(upper, ir.VectorType(FLOAT, LANES))
    return builder.sext(value, ir.VectorType(SHORT, PAIR)) if kind == types.int8 else value


def prefetch(builder: Any, at: Any) -> None:
    """Prefetches an address without waiting for it; nothing need be there."""
    address = builder.bitcast(at, BYTE.as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [address.type, NUMBER, NUMBER, NUMBER])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    builder.call(function, [address, *SOON])


def horizontal_sums(builder: Any, vectors: list[Any]) -> list[Any]:
    """Adds up the numbers of each vector: its halves, and theirs, until there is one.

    Two vectors share each addition: both have one's halves and the other's, side by side.
    """
    part, count = LANES, len(vectors)
    while part > 1:
        part //= 2
        halves = [
            INDICES([first + n for first in range(begin, 2 * LANES, 2 * part) for n in range(part)])
            for begin in (0, part)
        ]
        # The last one of an odd number goes with itself.
        pairs = zip(vectors[::2], vectors[1::2] + vectors[-1:], strict=False)
        vectors = [
            builder.fadd(*(builder.shuffle_vector(*pair, half) for half in halves))
            for pair in pairs
        ]
    return [
        builder.extract_element(vectors[column // LANES], NUMBER(column % LANES))
        for column in range(count)
    ]


# What a single row is made of, of float32 and of whole numbers; as many products as registers hold,
# and half of those.
short_line, whole_line = of_shape(1, LINE_COLUMNS), of_shape(1, TILE_COLUMNS)
near_line = of_shape(1, TILE_COLUMNS, near=True)
tile, half_tile = of_shape(TILE_ROWS, TILE_COLUMNS), of_shape(HALF_ROWS, TILE_COLUMNS)
