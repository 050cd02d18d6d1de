"""Named arrays ↔ a safetensors file, one tensor at a time and so in bounded memory.

The file is the length of a header (8 bytes, little-endian), the header in JSON, and the tensors;
source: the format's description in github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpt2cli.errors import BadDataError, MissingInputError
from gpt2cli.storage import atomic, bundle_reader
from gpt2cli.storage.bundle import Entry

TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "U8": "uint8"}
CODES = {name: code for code, name in TYPES.items()}
LENGTH_BYTES = 8
# The library refuses longer ones too.
LONGEST_HEADER_BYTES = 100_000_000
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
    """Returns where each tensor of a file lies.

    Raises:
        MissingInputError: there is no such file.
        BadDataError: it is cut, or no safetensors file.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(LENGTH_BYTES), "little")
            if length > LONGEST_HEADER_BYTES:
                raise BadDataError(f"{path} is damaged: its header would have {length:,} bytes.")
            header = json.loads(file.read(length))
        start = LENGTH_BYTES + length
        entries = {n: entry(v, start) for n, v in header.items() if n != METADATA}
    except FileNotFoundError as error:
        raise MissingInputError(f"{path} is missing.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadDataError(f"{path} cannot be read as safetensors: {error!r}.") from error
    needed = max((e.offset + e.size for e in entries.values()), default=start)
    if path.stat().st_size < needed:
        raise BadDataError(f"{path} is cut: {path.stat().st_size} bytes, and {needed} are needed.")
    return entries


def entry(facts: Mapping[str, Any], start: int) -> Entry:
    """Returns what the header says of one tensor."""
    begin, end = facts["data_offsets"]
    dtype = TYPES.get(facts["dtype"], f"type {facts['dtype']}")
    return Entry(dtype, tuple(map(int, facts["shape"])), 0, start + begin, end - begin)


def read_tensor(path: Path, found: Entry) -> Any:
    """Returns one tensor of a file; half precision comes as float32."""
    array = bundle_reader.typed(bundle_reader.read_bytes(path, found), found)
    return array.astype(np.float32, copy=False)
