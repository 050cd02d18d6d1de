"""Registers and arrays as code that is being built for LLVM knows them."""

from __future__ import annotations

import functools
import platform
from collections.abc import Iterable
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils

FLOAT, HALF, BYTE = ir.FloatType(), ir.HalfType(), ir.IntType(8)
SHORT, NUMBER, PLACE = ir.IntType(16), ir.IntType(32), ir.IntType(64)
# To read it, into the second cache, as data.
SOON = NUMBER(0), NUMBER(2), NUMBER(1)
# A product and the sum that it is added to may be rounded once.
FUSED = ("contract",)


@functools.cache
def features() -> dict[str, bool]:
    """Returns the processor's features by LLVM's names."""
    return dict(binding.get_host_cpu_features())


def registers() -> tuple[int, dict[int, int], int]:
    """Returns how many floats a register holds, and what sums of products registers hold at once.

    Those are the columns of a tile by its rows, and the columns of a single row. Narrow registers
    give a sum less in the time of an addition: then one after another is slower than memory.
    """
    if features().get("avx512bw"):
        return 16, {6: 4, 4: 6, 2: 6}, 1
    if platform.machine() in ("aarch64", "arm64"):
        return 4, {6: 4, 4: 6, 2: 6}, 4
    # Half as many registers.
    return 8 if features().get("avx2") else 4, {4: 3, 2: 6}, 4


LANES, TILES, LINE_COLUMNS = registers()
INDICES, FLOATS = ir.VectorType(NUMBER, LANES), ir.VectorType(FLOAT, LANES)
# Whole numbers of 16 bits are multiplied two a lane; what does so on an x86 processor, by lanes.
PAIR = 2 * LANES
PAIR_PRODUCTS = {16: "avx512.pmaddw.d.512", 8: "avx2.pmadd.wd", 4: "sse2.pmadd.wd"}


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


def array_views(context: Any, builder: Any, kinds: Any, values: Any) -> list[ArrayView]:
    """Returns the arrays of a tuple, or some arguments, by Numba's types of them."""
    if not isinstance(values, (list, tuple)):
        values = cgutils.unpack_tuple(builder, values)
    return [
        ArrayView(context, builder, kind, value) for kind, value in zip(kinds, values, strict=True)
    ]


def build_highest(builder: Any, most: Any, counts: Iterable[int], build: Any) -> Any:
    """Builds what `build` does for each of some counts, and what takes the first that fits.

    The counts are in falling order, down to 1; `most` is how many there may be. Returns the one
    that was taken.
    """
    taken = cgutils.alloca_once_value(builder, PLACE(0))
    for count in counts:
        fits = builder.icmp_unsigned(">=", most, PLACE(count))
        free = builder.icmp_unsigned("==", builder.load(taken), PLACE(0))
        with builder.if_then(builder.and_(fits, free)):
            builder.store(PLACE(count), taken)
            build(count)
    return builder.load(taken)


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
        return builder.sitofp(found, FLOATS)
    return found


def vector_at(builder: Any, begin: Any, count: int = LANES) -> Any:
    """Loads this number of items from an address on, wherever that is."""
    kind = ir.VectorType(begin.type.pointee, count)
    found = builder.load(builder.bitcast(begin, kind.as_pointer()))
    found.align = 1
    return found


def widened(builder: Any, value: Any, kind: Any) -> Any:
    """Makes float32 of weights, and int16 of int8; half precision comes as its bits."""
    if kind == types.int16:
        return builder.fpext(builder.bitcast(value, ir.VectorType(HALF, LANES)), FLOATS)
    if kind == types.uint16:
        # The upper half of a float32.
        upper = builder.shl(builder.zext(value, INDICES), INDICES([16] * LANES))
        return builder.bitcast(upper, FLOATS)
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


def smaller(builder: Any, one: Any, other: Any) -> Any:
    """Returns the smaller one of two numbers."""
    return builder.select(builder.icmp_unsigned("<", one, other), one, other)


def is_zero(builder: Any, number: Any) -> Any:
    """Returns whether a number is 0."""
    return builder.icmp_unsigned("==", number, PLACE(0))


def store_at(builder: Any, vector: Any, address: Any, number: int = 0) -> None:
    """Stores a vector at an address, wherever that is, or this number of vectors after it."""
    begin = builder.bitcast(address, vector.type.as_pointer())
    builder.store(vector, builder.gep(begin, [NUMBER(number)]), align=4)


def splat(builder: Any, value: Any, count: int = LANES) -> Any:
    """Returns a vector of one number, this number of times."""
    kind = ir.VectorType(value.type, count)
    one = builder.insert_element(kind(ir.Undefined), value, NUMBER(0))
    return builder.shuffle_vector(one, one, ir.VectorType(NUMBER, count)(None))


def interleaved(builder: Any, vectors: list[Any]) -> list[Any]:
    """Returns the first number of each vector, then the second of each, …; as many vectors.

    They are a power of two. As many as they have numbers are transposed by it.
    """
    both = [
        INDICES([place + begin for place in range(LANES // 2) for begin in (first, first + LANES)])
        for first in (0, LANES // 2)
    ]
    half = len(vectors) // 2
    for _ in range(half.bit_length()):
        pairs = zip(vectors[:half], vectors[half:], strict=True)
        vectors = [builder.shuffle_vector(*pair, mask) for pair in pairs for mask in both]
    return vectors
