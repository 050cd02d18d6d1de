"""JSON that others may have written: bounded in size and depth, and of the expected kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn, TypeAlias, TypeVar

from gpt2cli.errors import BadDataError, shortened
from gpt2cli.reading import MOST_BYTES, content

# No file that this program reads nests deeper: config.json and tokenizer.json reach about 8.
MOST_DEPTH = 32
# How a file begins that Git has in place of a large one.
POINTER = b"version https://git-lfs"

Kind = TypeVar("Kind")
# A value of JSON; what it holds is to be checked before it is used.
Json: TypeAlias = Any


def read(path: Path, kind: type[Kind] = dict, *, most: int = MOST_BYTES) -> Kind:  # type: ignore[assignment]
    """Returns a JSON file's value, of this kind; raises BadDataError for others, or an OSError."""
    return parse(content(path, most), shortened(path), kind)


def parse(text: bytes | str, where: str, kind: type[Kind] = dict) -> Kind:  # type: ignore[assignment]
    """Returns the value of a JSON text, with or without a byte order mark.

    Raises BadDataError, which begins with `where`, if it is not JSON, holds NaN or infinity, is too
    deep, or not of this kind.
    """
    refuse_pointer(text, where)
    try:
        text = text if isinstance(text, str) else text.decode("utf-8-sig")
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


def refuse_pointer(begin: bytes | str, where: str) -> None:
    """Raises BadDataError if a file begins as what Git LFS leaves in place of a large one."""
    if begin[: len(POINTER)] in (POINTER, POINTER.decode()):
        raise BadDataError(
            f"{where} is a Git LFS pointer, not the file that it stands for. Fetch that with "
            "`git lfs pull`, or from where the model was published."
        )


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


def half_character(text: str) -> str:
    """Returns the half of a surrogate pair in a text, as `U+D83D`; "" if it has a UTF-8 form."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"U+{ord(text[error.start]):04X}"
    return ""


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
