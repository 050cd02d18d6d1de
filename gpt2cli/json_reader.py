"""JSON that others may have written: bounded in size and depth, and of the expected kind."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NoReturn, TypeAlias, TypeVar

from gpt2cli.errors import BadDataError, shortened
from gpt2cli.reading import opened

MEGABYTE = 1_000_000
# No file that this program reads nests deeper: config.json and tokenizer.json reach about 8.
MOST_DEPTH = 32
# How a file begins that Git has in place of a large one.
POINTER = b"version https://git-lfs"
POINTER_REASON = (
    "is a Git LFS pointer, not the file that it stands for. Fetch that with `git lfs pull`, or "
    "from where the model was published."
)

Kind = TypeVar("Kind")
# A value of JSON; what it holds is to be checked before it is used.
Json: TypeAlias = Any


def read(path: Path, kind: type[Kind] = dict, *, most: int = 64 * MEGABYTE) -> Kind:  # type: ignore[assignment]
    """Returns what a JSON file holds, at most `most` bytes, with this kind of value at its top.

    Raises BadDataError for whatever else is there, or an OSError.
    """
    return parse(content(path, most), shortened(path), kind)


def content(path: Path, most: int = 64 * MEGABYTE) -> bytes:
    """Returns what a regular file holds, if that is not more than `most` bytes.

    Raises BadDataError for other files, or an OSError.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise BadDataError(f"{shortened(path)} has {size:,} bytes; at most {most:,} are read.")
        return file.read(most + 1)


def parse(content: bytes | str, where: str, kind: type[Kind] = dict) -> Kind:  # type: ignore[assignment]
    """Returns the value of a JSON text, with or without a byte order mark.

    Raises BadDataError, which begins with `where`, if it is not JSON, holds NaN or infinity, is too
    deep, or not of this kind.
    """
    if is_pointer(content):
        raise BadDataError(f"{where} {POINTER_REASON}")
    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
        value = json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise BadDataError(f"{where} cannot be read as JSON: it nests too deep.") from None
    except ValueError as error:
        raise BadDataError(f"{where} is not JSON: {shortened(error)}.") from error
    if depth(value) > MOST_DEPTH:
        raise BadDataError(f"{where} cannot be read as JSON: it nests too deep.")
    if not isinstance(value, kind):
        raise BadDataError(f"{where} holds a JSON {NAMES[type(value)]}, not {NAMES[kind]}.")
    return value


def is_pointer(content: bytes | str) -> bool:
    """Returns whether a file's beginning is that of a Git LFS pointer."""
    return content[: len(POINTER)] in (POINTER, POINTER.decode())


NAMES: dict[type, str] = {
    dict: "object",
    list: "array",
    str: "string",
    int: "number",
    float: "number",
    bool: "boolean",
    type(None): "null",
}


def depth(value: Json) -> int:
    """Returns how deep arrays and objects nest in a parsed value; a plain value has 0."""
    deepest, waiting = 0, [(value, 0)]
    while waiting:
        found, level = waiting.pop()
        deepest = max(deepest, level)
        if isinstance(found, (dict, list)) and level <= MOST_DEPTH:
            inner = found.values() if isinstance(found, dict) else found
            deepest = max(deepest, level + bool(found))
            waiting += [(part, level + 1) for part in inner if isinstance(part, (dict, list))]
    return deepest


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
