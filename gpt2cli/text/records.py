"""The texts in JSON: a record a line, or an array of records, read one at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import regex

from gpt2cli import json_reader
from gpt2cli.errors import BadDataError, shortened
from gpt2cli.text.sources import Source
from gpt2cli.text.tables import TEXT_NAMES

FIELD = "text"
# The longest record (characters).
MOST_RECORD = 1 << 24
SPACE = regex.compile(r"[ \t\r\n]*")
# Nothing but a string can lack more than this of being whole JSON so far (characters).
NEAR_END = 16

Found = Iterator[tuple[str, Any]]


def in_lines(source: Source, lines: Iterable[str]) -> Found:
    """Yields each line's record, and where it is; empty lines are left out.

    Raises:
        BadDataError: a line is no JSON, or nests too deep; says which.
    """
    name = str(source)
    for number, line in enumerate(lines, start=1):
        if line.strip():
            where = f"{name}, line {number}"
            try:
                value = json.loads(line)
            except RecursionError:
                raise BadDataError(
                    f"{where}: no JSON that can be read: it nests too deep."
                ) from None
            except ValueError as error:
                raise BadDataError(f"{where}: no JSON ({shortened(error)}).") from error
            opened = line.count("[") + line.count("{")
            yield where, bounded(value, opened, where)


def in_array(source: Source, pieces: Iterable[str]) -> Found:
    """Yields the records of a .json, and where each is: those of an array, or one after another.

    Raises:
        BadDataError: it is no JSON, or a record is too long or nests too deep; says which.
    """
    text = Text(source, pieces)
    text.skip(SPACE)
    array = text.begins("[")
    if array:
        text.at += 1
        text.skip(SPACE)
        if text.begins("]"):
            text.at += 1
            text.check_end()
            return
    name, number = str(source), 0
    while array or not text.begins(""):
        number += 1
        where = f"{name}, record {number}"
        yield where, text.value(where)
        if array and text.comma_or_end(where):
            text.check_end()
            return
        text.skip(SPACE)


class Text:
    """A text of JSON, of which no more than a record is held.

    Attributes:
        at: how far it is read in what is held.
    """

    def __init__(self, source: Source, pieces: Iterable[str]) -> None:
        self._source, self._pieces = source, iter(pieces)
        self._held, self.at = "", 0
        self._decode = json.JSONDecoder().raw_decode

    def _more(self) -> bool:
        """Takes up at least as much again as is held; returns whether there was more."""
        parts, size = [self._held[self.at :]], 0
        while size <= len(parts[0]) and (piece := next(self._pieces, "")):
            parts.append(piece)
            size += len(piece)
        self._held, self.at = "".join(parts), 0
        return size > 0

    def skip(self, what: regex.Pattern[str]) -> None:
        """Goes beyond what is to be passed over, to something else or the end."""
        self._pass(what)
        while self.at == len(self._held) and self._more():
            self._pass(what)

    def _pass(self, what: regex.Pattern[str]) -> None:
        if found := what.match(self._held, self.at):
            self.at = found.end()

    def begins(self, letter: str) -> bool:
        """Returns whether this letter comes next; an empty one: whether nothing does."""
        return self._held[self.at : self.at + 1] == letter

    def value(self, where: str) -> Any:
        """Returns the next value.

        Raises:
            BadDataError: there is none, or it is too long or nests too deep.
        """
        while True:
            try:
                value, end = self._decode(self._held, self.at)
                # A number may go on in the next piece.
                if end < len(self._held) or not self._more():
                    opened = sum(self._held.count(each, self.at, end) for each in "[{")
                    self.at = end
                    return bounded(value, opened, where)
                continue
            except RecursionError:
                raise BadDataError(
                    f"{where}: no JSON that can be read: it nests too deep."
                ) from None
            except ValueError as error:
                if len(self._held) - self.at > MOST_RECORD:
                    raise BadDataError(
                        f"{where}: a record of over {MOST_RECORD:,} characters. Write one record a "
                        "line: .jsonl."
                    ) from error
                if not self._is_cut(error) or not self._more():
                    raise BadDataError(f"{where}: no JSON ({shortened(error)}).") from error

    def _is_cut(self, error: ValueError) -> bool:
        """Returns whether a value may be whole where more of the text is held."""
        if not isinstance(error, json.JSONDecodeError):
            return False
        near_end = error.pos >= len(self._held) - NEAR_END
        return near_end or error.msg.startswith("Unterminated string")

    def comma_or_end(self, where: str) -> bool:
        """Goes beyond the comma behind a record; returns whether the array ends instead.

        Raises:
            BadDataError: neither is there.
        """
        self.skip(SPACE)
        letter = self._held[self.at : self.at + 1]
        if letter not in (",", "]"):
            raise BadDataError(f"{where}: no JSON (neither a comma nor the array's end follows).")
        self.at += 1
        return letter == "]"

    def check_end(self) -> None:
        """Raises BadDataError where something follows."""
        self.skip(SPACE)
        if not self.begins(""):
            raise BadDataError(f"{self._source}: no JSON (something follows its array).")


def bounded(value: Any, opened: int, where: str) -> Any:
    """Returns a value of JSON that nests no deeper than is of use.

    Args:
        value: the value.
        opened: how many brackets were opened, in strings too; it cannot nest deeper.
        where: where it is, for messages.

    Raises:
        BadDataError: it nests deeper.
    """
    most = json_reader.MOST_DEPTH
    if opened > most and json_reader.depth(value) > most:
        raise BadDataError(f"{where}: no JSON that can be read: it nests too deep.")
    return value


def field_of(value: Any, given: str | None) -> str:
    """Returns the field that holds the text: the one given, or the first of a telling name."""
    there = value if isinstance(value, dict) else {}
    known = (name for name in TEXT_NAMES if isinstance(there.get(name), (str, list)))
    return given or next(known, FIELD)


def texts(found: Found, field: str | None) -> Iterator[str]:
    """Yields the texts of records; a list of them is one after another.

    Args:
        found: the records, and where each is; one may be a text itself.
        field: the field that holds the text, `a.b` for one in another; None: as the first tells.

    Raises:
        BadDataError: a record lacks the text; says which.
    """
    chosen: str | None = None
    for where, record in found:
        if isinstance(record, str) and field is None:
            values = [record]
        else:
            chosen = chosen or field_of(record, field)
            values = looked_up(record, chosen, where)
        for text in values:
            yield checked(text, chosen or "the text", where)


def described(found: Found, field: str | None) -> str:
    """Returns where the texts are in records, by the first of them."""
    record = next(found, ("", None))[1]
    if record is None:
        return "no records"
    if isinstance(record, str) and field is None:
        return "every record is a text"
    return f"the text is field {shortened(repr(field_of(record, field)), 40)} of each record"


def looked_up(record: Any, field: str, where: str) -> list[Any]:
    """Returns what is in a field of a record, or in those of each in a list.

    Raises:
        BadDataError: there is no such field.
    """
    if isinstance(record, dict) and field in record:
        return several(record[field])
    found = [record]
    for part in field.split("."):
        inner = []
        for value in found:
            if not isinstance(value, dict) or part not in value:
                told = shortened(", ".join(record)) if isinstance(record, dict) else ""
                there = told or f"no fields, as no object: {shown(record)}"
                name = shortened(repr(field))
                raise BadDataError(f"{where} has no {name}, but {there}. Give its --text-field.")
            inner += several(value[part])
        found = inner
    return found


def several(value: Any) -> list[Any]:
    """Returns the elements of a list, or of a column as pandas writes it; others as one."""
    if isinstance(value, dict) and value and all(key.isdecimal() for key in value):
        return list(value.values())
    return value if isinstance(value, list) else [value]


def checked(text: Any, field: str, where: str) -> str:
    """Returns a text.

    Raises:
        BadDataError: it is something else, or holds half a character.
    """
    if not isinstance(text, str):
        name = shortened(repr(field))
        raise BadDataError(f"{where}: {name} is {shown(text)}, and not text.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        name, lone = shortened(repr(field)), f"U+{ord(text[error.start]):04X}"
        raise BadDataError(f"{where}: {name} holds {lone}, half a character.") from error
    return text


def shown(value: Any) -> str:
    """Returns the beginning of a value of JSON, for a message."""
    return shortened(json.dumps(value, ensure_ascii=False), 40)
