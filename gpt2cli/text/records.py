"""The documents in JSON: the texts of records, one a line or several in an array."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import regex

from gpt2cli import json_reader
from gpt2cli.errors import BadDataError, shortened
from gpt2cli.text.sources import TEXT_NAMES, Source

FIELD = "text"
# The longest record (characters).
MOST_RECORD = 1 << 24
WHITE_SPACE = " \t\r\n"
SPACE = regex.compile(rf"[{WHITE_SPACE}]*")
# Nothing but a string can lack more than this of being whole JSON so far (characters).
NEAR_END = 16

# Where each record is, for messages, and its value.
Records = Iterator[tuple[str, object]]


def description(record: object, field: str | None) -> str:
    """Returns where the texts are in records, by the first of them and the field that is given."""
    if isinstance(record, str) and field is None:
        return "every record is a text"
    return f"the text is field {shortened(repr(field_of(record, field)), 40)} of each record"


def records(source: Source, text: Iterable[str]) -> Records:
    """Yields the records in a file's text: pieces of a .json, else lines."""
    return in_array(source, text) if source.kind == "json" else in_lines(source, text)


def in_lines(source: Source, found: Iterable[str]) -> Records:
    """Yields each line's record; raises BadDataError for a line that is not JSON."""
    name, decode = str(source), json.JSONDecoder().raw_decode
    for number, line in enumerate(found, start=1):
        content = line.strip(WHITE_SPACE)
        if not content or content.isspace():
            continue
        where = f"{name}, line {number}"
        try:
            value, end = decode(content)
            if end < len(content):
                raise json.JSONDecodeError("Extra data", content, end)
        except RecursionError:
            raise too_deep(where) from None
        except ValueError as error:
            raise BadDataError(f"{where}: no JSON ({shortened(error)}).") from error
        check_depth(value, content.count("[") + content.count("{"), where)
        yield where, value


def in_array(source: Source, pieces: Iterable[str]) -> Records:
    """Yields the records of a .json: those of an array, or one after another.

    Raises BadDataError if it is not JSON, or a record is too long or nests too deep; says which.
    """
    text, name = JsonText(pieces), str(source)
    close = "]" if text.takes("[") else ""
    ended, number = text.takes(close), 0
    while not ended:
        number += 1
        where = f"{name}, record {number}"
        yield where, text.value(where)
        if close and text.takes(","):
            continue
        ended = text.takes(close)
        if close and not ended:
            raise BadDataError(f"{where}: no JSON (neither a comma nor the array's end follows).")
    if not text.takes(""):
        raise BadDataError(f"{name}: no JSON (something follows its array).")


class JsonText:
    """A text of JSON of any length; little more than one record of it is held."""

    def __init__(self, pieces: Iterable[str]) -> None:
        self._pieces = iter(pieces)
        # What is held, and how far it has been read.
        self._held, self._position = "", 0
        self._decode = json.JSONDecoder().raw_decode

    def _read_more(self) -> bool:
        """Takes at least as much again as is held; returns whether there was more."""
        parts, size = [self._held[self._position :]], 0
        while size <= len(parts[0]) and (piece := next(self._pieces, "")):
            parts.append(piece)
            size += len(piece)
        self._held, self._position = "".join(parts), 0
        return size > 0

    def _skip_space(self) -> None:
        """Moves to the next character that is not white space, or to the end."""
        while True:
            if found := SPACE.match(self._held, self._position):
                self._position = found.end()
            if self._position < len(self._held) or not self._read_more():
                return

    def takes(self, letter: str) -> bool:
        """Moves beyond a letter if it is what comes next; an empty one means the end."""
        self._skip_space()
        taken = self._held[self._position : self._position + 1] == letter
        self._position += len(letter) if taken else 0
        return taken

    def value(self, where: str) -> object:
        """Returns the next value; raises BadDataError if there is none, or it is too large."""
        self._skip_space()
        while True:
            try:
                value, end = self._decode(self._held, self._position)
            except RecursionError:
                raise too_deep(where) from None
            except ValueError as error:
                if len(self._held) - self._position > MOST_RECORD:
                    raise BadDataError(
                        f"{where}: a record of over {MOST_RECORD:,} characters. Write one record a "
                        "line: .jsonl."
                    ) from error
                if not self._is_cut(error) or not self._read_more():
                    raise BadDataError(f"{where}: no JSON ({shortened(error)}).") from error
                continue
            # A number may go on in the next piece.
            if end < len(self._held) or not self._read_more():
                opened = sum(self._held.count(each, self._position, end) for each in "[{")
                self._position = end
                check_depth(value, opened, where)
                return value

    def _is_cut(self, error: ValueError) -> bool:
        """Returns whether a value may be complete when more of the text is held."""
        if not isinstance(error, json.JSONDecodeError):
            return False
        near_end = error.pos >= len(self._held) - NEAR_END
        return near_end or error.msg.startswith("Unterminated string")


def too_deep(where: str) -> BadDataError:
    """Returns the error of a record that nests too deep."""
    return BadDataError(f"{where}: no JSON that can be read: it nests too deep.")


def check_depth(value: object, opened: int, where: str) -> None:
    """Raises BadDataError if a value nests too deep: never deeper than brackets were opened."""
    most = json_reader.MOST_DEPTH
    if opened > most and json_reader.depth(value) > most:
        raise too_deep(where)


def field_of(record: object, given: str | None) -> str:
    """Returns the field that holds the text: the given one, or the first with a usual name."""
    fields = record if isinstance(record, dict) else {}
    known = (name for name in TEXT_NAMES if isinstance(fields.get(name), (str, list)))
    return given or next(known, FIELD)


def texts(found: Records, field: str | None) -> Iterator[str]:
    """Yields the texts of records, which may be texts; a list of them is one text after another.

    They are in a field, `a.b` for one in another; None: the first record decides. Raises
    BadDataError for a record that lacks the text; says which.
    """
    chosen: str | None = None
    for where, record in found:
        if isinstance(record, str) and field is None:
            values: list[object] = [record]
        else:
            chosen = chosen or field_of(record, field)
            values = field_values(record, chosen, where)
        for text in values:
            yield checked_text(text, chosen or "the text", where)


def field_values(record: object, field: str, where: str) -> list[object]:
    """Returns what a record, or each in a list, has in a field; raises BadDataError if nothing."""
    if isinstance(record, dict) and field in record:
        return as_list(record[field])
    found = [record]
    for part in field.split("."):
        inner: list[object] = []
        for value in found:
            if not isinstance(value, dict) or part not in value:
                names = ", ".join(record) if isinstance(record, dict) else ""
                there = names or f"no fields, as no object: {json_shown(record)}"
                raise BadDataError(
                    f"{where} has no {shortened(repr(field))}, but {shortened(there)}. Give its "
                    "--text-field."
                )
            inner += as_list(value[part])
        found = inner
    return found


def as_list(value: object) -> list[object]:
    """Returns the elements of a list, or of a column as pandas writes it; another value as one."""
    if isinstance(value, dict) and value and all(key.isdecimal() for key in value):
        return list(value.values())
    return value if isinstance(value, list) else [value]


def checked_text(text: object, field: str, where: str) -> str:
    """Returns a text; raises BadDataError for anything else, or half a character."""
    if not isinstance(text, str):
        name = shortened(repr(field))
        raise BadDataError(f"{where}: {name} is {json_shown(text)}, and not text.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        name, half = shortened(repr(field)), f"U+{ord(text[error.start]):04X}"
        raise BadDataError(f"{where}: {name} holds {half}, half a character.") from error
    return text


def json_shown(value: object) -> str:
    """Returns the beginning of a value of JSON, for a message."""
    return shortened(json.dumps(value, ensure_ascii=False), 40)
