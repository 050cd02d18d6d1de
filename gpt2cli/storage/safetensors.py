"""Named arrays ↔ a safetensors file, one tensor at a time and so in bounded memory.

The file is the length of a header (8 bytes, little-endian), the header in JSON, and the tensors;
source: the format's description in github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from gpt2cli import json_reader, reading
from gpt2cli.arrays import Array
from gpt2cli.errors import BadDataError, shortened
from gpt2cli.files import atomic
from gpt2cli.storage import bundle, bundle_reader
from gpt2cli.storage.bundle import Entry

TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "U8": "uint8"}
TYPE_BYTES = {"uint8": 1, **bundle.TYPE_BYTES}
CODES = {name: code for code, name in TYPES.items()}
LENGTH_BYTES = 8
# The library takes up to 100 MB; the largest GPT-2 has 70 kB.
LONGEST_HEADER_BYTES = 10_000_000
ALIGNMENT_BYTES = 8
METADATA = "__metadata__"


def write(
    path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str, arrays: Iterable[Any]
) -> None:
    """Writes arrays of one type, in the order of their names and shapes, as they come."""
    header: dict[str, Any] = {METADATA: {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + math.prod(shape) * np.dtype(dtype).itemsize
        header[name] = {"dtype": CODES[dtype], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % ALIGNMENT_BYTES)
    atomic.before("write", path)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(LENGTH_BYTES, "little") + text)
        for shape, array in zip(shapes.values(), arrays, strict=True):
            file.write(np.ascontiguousarray(array.reshape(shape), dtype).data)


def read_header(path: Path) -> dict[str, Entry]:
    """Returns where each tensor of a file is.

    Raises MissingInputError if it cannot be read, BadDataError if it is cut or of another kind.
    """
    where = shortened(path)
    with reading.needed(path), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(max(LENGTH_BYTES, len(json_reader.POINTER)))
        json_reader.refuse_pointer(start, where)
        length = int.from_bytes(start[:LENGTH_BYTES], "little")
        if len(start) < LENGTH_BYTES or not 0 < length <= LONGEST_HEADER_BYTES:
            raise BadDataError(f"{where} cannot be read as safetensors: it has no header.")
        begin = LENGTH_BYTES + length
        if begin > size:
            raise cut(where, size, begin)
        file.seek(LENGTH_BYTES)
        header: dict[str, Any] = json_reader.parse(file.read(length), f"The header of {where}")
    entries = {n: entry(n, v, begin, path) for n, v in header.items() if n != METADATA}
    needed = check_places(entries, begin, where)
    if size < needed:
        raise cut(where, size, needed)
    return entries


def cut(where: str, size: int, needed: int) -> BadDataError:
    """Returns the error of a file that is too short."""
    return BadDataError(f"{where} is cut: {size:,} bytes, and {needed:,} are needed.")


def entry(name: str, facts: object, start: int, path: Path) -> Entry:
    """Returns what the header says of one tensor; raises BadDataError if it says what cannot be."""
    where, found = shortened(path), facts if isinstance(facts, dict) else {}
    shape, places, kind = found.get("shape"), found.get("data_offsets"), found.get("dtype")
    if (
        not (isinstance(kind, str) and are_sizes(shape) and are_sizes(places))
        or len(places) != 2
        or places[0] > places[1]
    ):
        raise BadDataError(
            f"{where} cannot be read as safetensors: its header does not say of "
            f"{shortened(name)} what type, shape and place it has."
        )
    dtype, (begin, end) = TYPES.get(kind, f"type {shortened(kind, 20)}"), places
    size = end - begin
    needed = math.prod(shape) * TYPE_BYTES[dtype] if dtype in TYPE_BYTES else size
    if size != needed:
        has = f"{shortened(name)} has {size:,} bytes"
        raise BadDataError(f"{where}: {has}, and its type and shape {needed:,}.")
    return Entry(dtype=dtype, shape=tuple(shape), file=path, offset=start + begin, size=size)


def are_sizes(values: object) -> TypeGuard[list[int]]:
    """Returns whether these are a few whole numbers that can be lengths or places."""
    return (
        isinstance(values, list)
        and len(values) <= bundle.MOST_DIMENSIONS
        and all(type(value) is int and 0 <= value < bundle.FARTHEST for value in values)
    )


def check_places(entries: Mapping[str, Entry], begin: int, where: str) -> int:
    """Returns where the last tensor ends; raises BadDataError if two overlap or leave a hole."""
    end = begin
    for name, found in sorted(entries.items(), key=lambda item: (item[1].offset, item[1].size)):
        if found.offset != end:
            what = "overlaps the tensor" if found.offset < end else "leaves a hole"
            raise BadDataError(f"{where}: {shortened(name)} {what} before it.")
        end += found.size
    return end


def read_tensor(found: Entry) -> Array:
    """Returns one tensor of a file, float32; raises BadDataError if the file is shorter by now."""
    content = bundle_reader.read_bytes(found)
    if len(content) < found.size:
        raise cut(shortened(found.file), len(content), found.size)
    return bundle_reader.single(bundle_reader.typed(content, found))
