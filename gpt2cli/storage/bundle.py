"""What a checkpoint holds, read from its index without TensorFlow.

The index of a TensorFlow tensor bundle is a LevelDB table (blocks of keys with shared prefixes)
whose values are BundleEntryProto messages; sources: tensorflow/core/protobuf/tensor_bundle.proto
and LevelDB's doc/table_format.md.
"""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gpt2cli import json_reader, reading
from gpt2cli.errors import BadDataError, MissingInputError, shortened
from gpt2cli.files import paths
from gpt2cli.hparams import LORA_A, LORA_SCALE, HParams
from gpt2cli.storage import crc32c

FOOTER_BYTES = 48
TABLE_MAGIC = 0xDB4775248B80FB57
# A block is followed by its compression (0: none) and a CRC-32C.
BLOCK_TRAILER_BYTES = 5
# TensorFlow's DataType numbers.
TYPES = {1: "float32", 2: "float64", 3: "int32", 9: "int64", 14: "bfloat16", 19: "float16"}
TYPE_BYTES = {"float32": 4, "float64": 8, "int32": 4, "int64": 8, "bfloat16": 2, "float16": 2}
FLOATS = ("float32", "float16", "bfloat16", "float64")
# A number of this many bytes is longer than any.
MOST_VARINT_BYTES = 10
MOST_INDEX_BYTES, MOST_SHARDS, MOST_DIMENSIONS, FARTHEST = 1 << 26, 10_000, 8, 1 << 48
LONGEST_NAME_BYTES = 4096
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """The place of one tensor: in which file, from which byte on, and how many.

    `dtype` is NumPy's name of its type, or `type N` if no GPT-2 has that type; `crc` is masked.
    """

    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    size: int
    crc: int = 0


def read_index(prefix: Path) -> tuple[dict[str, Entry], int]:
    """Returns the tensors of a checkpoint by name, and the number of its data files.

    Raises MissingInputError if there is no index, BadDataError if the file is none.
    """
    path = paths.index_file(prefix)
    try:
        table = reading.content(path, MOST_INDEX_BYTES)
    except FileNotFoundError as error:
        raise MissingInputError(f"{shortened(path)} is missing.") from error
    json_reader.refuse_pointer(table, shortened(path))
    try:
        entries = {key.decode(): value for key, value in table_items(table)}
        shards = message(entries.pop("")).get(1, [1])[0]
        if type(shards) is not int or not 1 <= shards <= MOST_SHARDS:
            raise ValueError("its number of data files cannot be")
        found = {name: entry(value, prefix, shards) for name, value in entries.items()}
    except (ValueError, KeyError, IndexError, TypeError, struct.error) as error:
        raise BadDataError(
            f"{shortened(path)} is damaged: it is not the index of a TensorFlow checkpoint "
            f"({shortened(error)})."
        ) from error
    return found, shards


def entry(value: bytes, prefix: Path, shards: int) -> Entry:
    """Returns what a BundleEntryProto says; raises as `message`, or ValueError if it cannot be."""
    fields = message(value)
    number, shard, offset, size = (fields.get(field, [0])[0] for field in (1, 3, 4, 5))
    dims = message(fields.get(2, [b""])[0]).get(2, [])
    shape = tuple(message(dim).get(1, [0])[0] for dim in dims)
    crc = fields.get(6, [b""])[0]
    numbers = (number, shard, offset, size, *shape)
    if not all(type(n) is int and n < FARTHEST for n in numbers) or len(shape) > MOST_DIMENSIONS:
        raise ValueError("a tensor's type, shape or place cannot be")
    dtype = TYPES.get(number, f"type {number}")
    if dtype in TYPE_BYTES and size != math.prod(shape) * TYPE_BYTES[dtype]:
        raise ValueError("a tensor's bytes are not those of its type and shape")
    file, masked = paths.data_file(prefix, shard, shards), int.from_bytes(crc, "little")
    return Entry(dtype=dtype, shape=shape, file=file, offset=offset, size=size, crc=masked)


def table_items(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields the keys and values of a LevelDB table."""
    footer = table[-FOOTER_BYTES:]
    if len(footer) < FOOTER_BYTES or struct.unpack("<Q", footer[-8:])[0] != TABLE_MAGIC:
        raise ValueError("its last eight bytes are not a table's")
    # The place and size of a block of no use here, and then those of the index of blocks.
    _, _, offset, size = varints(footer, 4)
    read = 0
    for _, handle in block_items(table, offset, size):
        start, length = varints(handle, 2)
        read += length
        if read > len(table):
            raise ValueError("its blocks are more than it has room for")
        yield from block_items(table, start, length)


def block_items(table: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yields the keys and values of one block of a table."""
    end = offset + size
    block, trailer = table[offset:end], table[end : end + BLOCK_TRAILER_BYTES]
    if len(trailer) < BLOCK_TRAILER_BYTES or trailer[0] != 0:
        raise ValueError(f"its block at {offset} is cut or compressed")
    if crc32c.masked(block + trailer[:1]) != int.from_bytes(trailer[1:], "little"):
        raise ValueError(f"its block at {offset} has the wrong checksum")
    restarts = struct.unpack("<I", block[-4:])[0]
    at, end, key = 0, size - 4 * (restarts + 1), b""
    while at < end:
        shared, at = varint(block, at)
        unshared, at = varint(block, at)
        length, at = varint(block, at)
        if shared + unshared > LONGEST_NAME_BYTES:
            raise ValueError("a name in it is too long")
        key = key[:shared] + block[at : at + unshared]
        at += unshared
        yield key, block[at : at + length]
        at += length


def varints(data: bytes, count: int) -> Iterator[int]:
    """Yields as many numbers of variable length as bytes begin with."""
    at = 0
    for _ in range(count):
        value, at = varint(data, at)
        yield value


def message(data: bytes) -> dict[int, list[Any]]:
    """Returns the fields of a protocol buffer message by number: whole numbers and bytes."""
    fields: dict[int, list[Any]] = {}
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        kind = tag & 7
        value: int | bytes
        if kind == 0:
            value, at = varint(data, at)
        else:
            length, at = (4, at) if kind == 5 else (8, at) if kind == 1 else varint(data, at)
            value, at = data[at : at + length], at + length
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Returns a number of variable length, and where the next field begins."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift >= 7 * MOST_VARINT_BYTES:
            raise ValueError("a number is too long")


def rank(entries: Mapping[str, Entry]) -> int:
    """Returns the rank of the adapters that a checkpoint holds; 0 if it holds none."""
    shapes = (entry.shape for name, entry in entries.items() if name.endswith(LORA_A))
    return next((shape[-1] for shape in shapes if shape), 0)


def check_weights(prefix: Path, hparams: HParams) -> None:
    """Checks that a checkpoint holds a GPT-2's weights whole; other tensors in it are left alone.

    If it holds adapters, the weights beside which they were trained must be there too. Raises
    MissingInputError if a file is missing; BadDataError if one is cut, or a weight is missing or of
    the wrong shape or type.
    """
    entries, shards = read_index(prefix)
    shapes = hparams.shapes()
    if LORA_SCALE in entries:
        check_weights(paths.base(prefix), hparams)
        shapes = hparams.lora_shapes(rank(entries))
    check_tensors(shortened(prefix), entries, shapes, paths.HPARAMS)
    for shard in range(shards):
        check_length(paths.data_file(prefix, shard, shards), entries)


def check_tensors(
    where: str, entries: Mapping[str, Entry], shapes: Mapping[str, Shape], demanded_by: str
) -> None:
    """Raises BadDataError if a weight is missing, of another shape than it must be, or no float."""
    for name, shape in shapes.items():
        found, what = entries.get(name), f"{where}: {name} is"
        if found is None:
            raise BadDataError(f"{where} lacks the weight {name} that {demanded_by} demands.")
        if found.shape != shape:
            demand = f"{demanded_by} demands {shape}"
            raise BadDataError(f"{what} {found.dtype} {found.shape}; {demand}.")
        if found.dtype not in FLOATS:
            known = ", ".join(FLOATS)
            raise BadDataError(f"{what} {found.dtype}; weights are read from {known}.")


def check_length(path: Path, entries: Mapping[str, Entry]) -> None:
    """Checks that a data file is there and reaches to the end of its last tensor."""
    ends = [entry.offset + entry.size for entry in entries.values() if entry.file == path]
    if not path.is_file():
        raise MissingInputError(f"{shortened(path)} is missing.")
    size = path.stat().st_size
    if size < max(ends, default=0):
        with path.open("rb") as file:
            json_reader.refuse_pointer(file.read(len(json_reader.POINTER)), shortened(path))
        raise BadDataError(f"{shortened(path)} is cut: {size} bytes, and {max(ends)} are needed.")


def check_sums(prefix: Path) -> None:
    """Raises BadDataError at a tensor whose checksum is wrong; the files must be long enough."""
    for name, found in read_index(prefix)[0].items():
        with found.file.open("rb") as file:
            file.seek(found.offset)
            if crc32c.masked(file.read(found.size)) != found.crc:
                raise BadDataError(f"{found.file} is damaged at {name}: its checksum is wrong.")
