"""A checkpoint in TensorFlow's format, written one tensor at a time and so in bounded memory."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpt2cli.files import atomic, paths
from gpt2cli.storage import crc32c
from gpt2cli.storage.bundle import FOOTER_BYTES, TABLE_MAGIC, TYPES, Entry

NUMBERS = {name: number for number, name in TYPES.items()}
UNCOMPRESSED = b"\0"
# A protocol buffer's kinds of fields.
VARINT, BYTES, FIXED32 = 0, 2, 5


def write(
    prefix: Path, arrays: Iterable[tuple[str, Any]], raw: Mapping[str, tuple[Entry, bytes]] = {}
) -> None:
    """Writes `PREFIX.data-00000-of-00001` and then `PREFIX.index`.

    First the arrays, float32, as they come; then what is `raw`, of any type: what an index says of
    it, and its bytes.
    """
    entries = {}
    atomic.before("write", prefix)
    with paths.data_file(prefix).open("wb") as file:
        for name, array in arrays:
            data = np.ascontiguousarray(array, "<f4").reshape(-1).view(np.uint8).data
            entries[name] = entry_message(
                NUMBERS["float32"], array.shape, file.tell(), len(data), crc32c.masked(data)
            )
            file.write(data)
        for name, (old, content) in raw.items():
            number = int(old.dtype.removeprefix("type "))
            entries[name] = entry_message(number, old.shape, file.tell(), len(content), old.crc)
            file.write(content)
    # One data file, written by the first version of the format.
    header = field(1, VARINT, 1) + field(3, BYTES, field(1, VARINT, 1))
    atomic.write(paths.index_file(prefix), table({"": header, **entries}))


def entry_message(number: int, shape: Iterable[int], offset: int, size: int, crc: int) -> bytes:
    """Returns a BundleEntryProto."""
    dims = b"".join(field(2, BYTES, field(1, VARINT, length)) for length in shape)
    at = field(4, VARINT, offset) if offset else b""
    place = at + field(5, VARINT, size) + field(6, FIXED32, crc)
    return field(1, VARINT, number) + field(2, BYTES, dims) + place


def field(number: int, kind: int, value: int | bytes) -> bytes:
    """Returns one field of a protocol buffer."""
    tag = varint(number << 3 | kind)
    if isinstance(value, bytes):
        return tag + varint(len(value)) + value
    return tag + (struct.pack("<I", value) if kind == FIXED32 else varint(value))


def varint(value: int) -> bytes:
    """Returns a number in groups of seven bits, the lowest first."""
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def table(items: Mapping[str, bytes]) -> bytes:
    """Returns a LevelDB table of one block."""
    last = max(items).encode()
    items_block = block({name.encode(): items[name] for name in sorted(items)})
    meta_block = block({})
    handles = [varint(0) + varint(len(items_block) - 5)]
    handles.append(varint(len(items_block)) + varint(len(meta_block) - 5))
    index_block = block({last: handles[0]})
    handles.append(varint(len(items_block) + len(meta_block)) + varint(len(index_block) - 5))
    footer = (handles[1] + handles[2]).ljust(FOOTER_BYTES - 8, b"\0")
    return items_block + meta_block + index_block + footer + struct.pack("<Q", TABLE_MAGIC)


def block(items: Mapping[bytes, bytes]) -> bytes:
    """Returns a block of a table with its trailer; no key is shortened."""
    content, restarts = b"", []
    for key, value in items.items():
        restarts.append(len(content))
        content += varint(0) + varint(len(key)) + varint(len(value)) + key + value
    restarts = restarts or [0]
    content += struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts)) + UNCOMPRESSED
    return content + struct.pack("<I", crc32c.masked(content))
