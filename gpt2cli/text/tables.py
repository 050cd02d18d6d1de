"""The text in a csv: which column it is, whether the first row is names, and its cells."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence

import regex

from gpt2cli.errors import BadDataError
from gpt2cli.text.sources import Source

# How many rows tell whether the first is a header.
SNIFFED_ROWS = 20
# A column's name is one or two words that begin with a letter.
NAME = regex.compile(r"[\p{L}_][\p{L}\p{M}\p{N}_.-]{0,39}( [\p{L}\p{N}_.-]{1,40})?")
NUMBER = regex.compile(r"[+-]?\d+([.,]\d+)*")
USUAL_NAMES = {
    "body", "caption", "category", "comment", "content", "date", "description", "document", "id",
    "index", "label", "lyrics", "message", "name", "paragraph", "poem", "post", "quote", "review",
    "sentence", "sentences", "text", "texts", "title", "tweet", "tweets", "url",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the text lies in a csv.

    Attributes:
        column: the column's number, from 0.
        header: whether the first row is names.
        name: the column's name, or its number from 1 where there is no header.
    """

    column: int
    header: bool
    name: str

    def __str__(self) -> str:
        header = "the first row is a header" if self.header else "no header"
        return f"{header}, the text is column {self.name}"


def rows(source: Source, lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Yields the number of each row's last line, and the row; empty lines are left out.

    Raises:
        BadDataError: the quotes don't fit; says in which line.
    """
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(lines, strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise BadDataError(
            f"{source}, line {reader.line_num}: no csv ({error}). "
            'A quote within a quoted text is written twice: "".'
        ) from error


def layout(source: Source, lines: Iterable[str], column: str | None, header: bool | None) -> Layout:
    """Returns where the text lies.

    Args:
        source: the file, for messages.
        lines: its text.
        column: the column's name, or its number from 1; None: the first.
        header: whether the first row is names; None: as it looks, or as the column's name tells.

    Raises:
        BadDataError: there is no such column.
    """
    first = [row for _, row in itertools.islice(rows(source, lines), SNIFFED_ROWS)]
    if not first:
        # An empty file among others is no reason to stop.
        return Layout(0, False, "1")
    names = first[0]
    # A number is a number, even if a cell of the first row happens to be it.
    named = column in names and header is not False and (header or not column.isdecimal())
    if column is not None and named:
        return Layout(names.index(column), True, repr(column))
    number = 1 if column is None else int(column) if column.isdecimal() else 0
    if not 1 <= number <= len(names):
        there = ", ".join(map(repr, names))
        raise BadDataError(
            f"{source} has no column {column!r}; its first row has {there}. "
            "Give --csv-column one of them, or a number from 1."
        )
    found = looks_like_header(first, number - 1) if header is None else header
    return Layout(number - 1, found, repr(names[number - 1]) if found else str(number))


def looks_like_header(first: Sequence[Sequence[str]], column: int) -> bool:
    """Returns whether the first of these rows is names rather than text.

    It is where its cells look like names, and one of them is a usual name for a column, or the
    cells below are of another kind: numbers, or longer text.
    """
    names, *below = first
    if len(set(names)) < len(names) or not all(NAME.fullmatch(name.strip()) for name in names):
        return False
    if any(name.strip().casefold() in USUAL_NAMES for name in names):
        return True
    columns = list(itertools.zip_longest(*below, fillvalue=""))
    numbers = any(all(NUMBER.fullmatch(cell.strip()) for cell in cells) for cells in columns)
    texts = columns[column] if column < len(columns) else ()
    longer = sum(not NAME.fullmatch(cell.strip()) for cell in texts)
    return numbers or 2 * longer > len(texts)


def cells(source: Source, where: Layout, lines: Iterable[str]) -> Iterator[str]:
    """Yields the text of each row.

    Raises:
        BadDataError: a row has no such column; says in which line.
    """
    for index, (line, row) in enumerate(rows(source, lines)):
        if index == 0 and where.header:
            continue
        if where.column >= len(row):
            raise BadDataError(
                f"{source}, line {line}: the row has {len(row)} cells, none for {where.name}."
            )
        yield row[where.column]
