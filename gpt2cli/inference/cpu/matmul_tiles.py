"""A tile of a product: some rows by some columns, whose sums stay in registers; built for LLVM.

LLVM makes such a loop from Numba's code too, but without prefetching. Sums are taken
in the same order in tiles of every shape: a row has the same products by itself and among others.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gpt2cli.inference.cpu.vectors import (
    FLOAT,
    FUSED,
    LANES,
    LINE_COLUMNS,
    NUMBER,
    PAIR,
    PLACE,
    TILES,
    ArrayView,
    add_floats,
    add_pairs,
    array_views,
    build_highest,
    floats,
    horizontal_sums,
    prefetch,
    vector_at,
    widened,
)

TILE_ROWS, TILE_COLUMNS = next(iter(TILES.items()))
# Products are computed by this number of columns, whole tiles of every shape.
BLOCK = 12
# The columns of a single row of whole numbers, and of rows that meet what is in a cache.
WIDE_LINE = 6


class Product:
    """The arrays of a product, for code that is being built.

    Attributes:
        left: rows, float32 (many, at least depth); or int16, if the columns are int8.
        right: columns, (many, depth), of any kind; the depth is a multiple of LANES, or of PAIR.
        line: float32 (columns,) twice: what each column is multiplied by, and what is added; and
            float32 (rows,), what each row is multiplied by, if they are int16. Empty: the products
            are left as they are.
        into: float32 (rows, columns), the result.
    """

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        """Takes Numba's values of rows, columns, a corner, the line and the result."""
        self._builder = builder
        self.left, self.right, self.into = (
            ArrayView(context, builder, signature.args[number], arguments[number])
            for number in (0, 1, 4)
        )
        self.line = array_views(context, builder, signature.args[3], arguments[3])

    def tile(self, corner: tuple[Any, Any], shape: tuple[int, int], soon: Any = None) -> None:
        """Builds a tile of a shape at a corner, its first row and column.

        Of the block to come as much of each column is prefetched as `soon` says.
        """
        rows, columns = self.left.rows(corner[0], shape[0]), self.right.rows(corner[1], shape[1])
        ahead = None
        if soon is not None:
            ahead = soon, self._builder.mul(self.right.shape[1], PLACE(BLOCK))
        sums = dot_products(self._builder, rows, columns, ahead, self.right)
        store_products(self._builder, sums, corner, self.line, self.into)


@intrinsic  # type: ignore[untyped-decorator]
def tile(_context: Any, rows: Any, columns: Any, corner: Any, line: Any, found: Any) -> Any:
    """Multiplies as many rows by columns that are in a cache as registers hold products.

    Only for compiled loops. The corner is the first row and the first column; see Product.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        """Builds a tile: its sums, and what sets `found` to them."""
        row, column = cgutils.unpack_tuple(builder, arguments[2])
        product = Product(context, builder, signature, arguments)
        product.tile((row, column), (TILE_ROWS, TILE_COLUMNS))
        return context.get_dummy_value()

    corners = types.UniTuple(types.int64, 2)
    return types.void(rows, columns, corners, line, found), generate


def of_blocks(*, near: bool = False) -> Any:
    """Returns what multiplies rows by BLOCK columns, as many rows at a time as a tile has.

    If the columns are `near`, in a cache, those to come are not prefetched.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def multiply(_context: Any, rows: Any, columns: Any, corner: Any, line: Any, found: Any) -> Any:
        """Sets the next rows of a block, whose corner is given, and returns how many those are.

        Only for compiled loops. See Product.
        """

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            """Builds tiles of every shape, of which the highest are taken."""
            product = Product(context, builder, signature, arguments)
            row, begin = cgutils.unpack_tuple(builder, arguments[2])
            is_first = builder.icmp_unsigned("==", row, PLACE(0))
            # The first rows that meet a block prefetch the next one.
            soon = builder.select(is_first, product.right.shape[1], PLACE(0))
            shapes = TILES | {1: LINE_COLUMNS}
            if near:
                # Two rows read a cache as fast as more do, and are sooner compiled.
                shapes = {2: WIDE_LINE, 1: WIDE_LINE}
            elif product.right.kind == types.int8:
                shapes[1] = WIDE_LINE

            def build(high: int) -> None:
                """Builds a loop over the tiles of this height."""
                wide, end = shapes[high], builder.add(begin, PLACE(BLOCK))
                with cgutils.for_range_slice(builder, begin, end, PLACE(wide)) as (column, _):
                    # If one column at a time is fast enough, the hardware prefetches the next one.
                    ahead = None if near or wide == 1 else soon
                    product.tile((row, column), (high, wide), ahead)

            return build_highest(builder, builder.sub(product.left.shape[0], row), shapes, build)

        corners = types.UniTuple(types.int64, 2)
        return types.int64(rows, columns, corners, line, found), generate

    return multiply


def store_products(
    builder: Any, sums: Any, corner: tuple[Any, Any], line: list[Any], into: Any
) -> None:
    """Builds what sets a tile to its sums, scaled and shifted; see Product."""
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
        rows = (vector_at(builder, builder.gep(left, [place]), step) for left in lefts)
        weights = (
            widened(builder, vector_at(builder, builder.gep(right, [place]), step), columns.kind)
            for right in rights
        )
        # The fewer stay in registers while the others come by.
        is_tall = len(lefts) > len(rights)
        held, passing = (list(weights), rows) if is_tall else (list(rows), weights)
        for come, one in enumerate(passing):
            for kept, other in enumerate(held):
                total = sums[come][kept] if is_tall else sums[kept][come]
                builder.store(add_products(builder, builder.load(total), one, other), total)
    return [horizontal_sums(builder, [floats(builder, each) for each in line]) for line in sums]


# Rows by a part of a matrix, and by a part of what is in a cache.
block, near_block = of_blocks(), of_blocks(near=True)
