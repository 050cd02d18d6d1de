"""The documents in a csv: its delimiter and header are found, and which column is text."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import regex

from gpt2cli.config.shared import CorpusOptions
from gpt2cli.errors import BadDataError, shortened
from gpt2cli.text.sources import TEXT_NAMES, Source

# How many rows show whether the first is a header, and which column is text.
SNIFFED_ROWS = 20
SNIFFED_LINES = 80
SNIFFED_CHARACTERS = 1 << 20
# The longest row: as much as ten novels (characters).
MOST_ROW = 1 << 24
DELIMITERS = ",\t;|"
# What Excel writes in the first line of a csv.
SEPARATOR = regex.compile(r'sep=([^"\w\r\n\0])\r?\n?', regex.IGNORECASE)
# A column's name is one or two words that begin with a letter.
NAME = regex.compile(r"[\p{L}_][\p{L}\p{M}\p{N}_.-]{0,39}( [\p{L}\p{N}_.-]{1,40})?|Unnamed: \d+")
NUMBER = regex.compile(r"[+-]?\d+([.,]\d+)*")
# Long, but nothing to read: numbers, dates, addresses, hashes.
NO_TEXT = regex.compile(r"[\d\s.,:;/+TZ-]*|\w+://\S*|[0-9a-fA-F-]{16,}")
USUAL_NAMES = {
    *("author", "category", "class", "date", "id", "index", "label", "likes", "name", "target"),
    *("title", "url", *TEXT_NAMES),
}
Rows = Sequence[Sequence[str]]
NumberedRow = tuple[int, list[str]]
Part = TypeVar("Part")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """The layout of a csv: the column of the text, from 0, and whether the first row is names."""

    column: int
    header: bool
    delimiter: str = ","
    first: Sequence[str] = ("",)

    @property
    def name(self) -> str:
        """The column's name for a message, or its number from 1 if there is no header."""
        return shortened(repr(self.first[self.column]), 40) if self.header else f"{self.column + 1}"

    @property
    def names(self) -> str:
        """The first row for a message."""
        return shortened(", ".join(map(repr, self.first)))

    def __str__(self) -> str:
        header = "the first row is a header" if self.header else "no header"
        between = "" if self.delimiter == "," else f", its delimiter is {self.delimiter!r}"
        columns = f" of {len(self.first)}" if len(self.first) > 1 else ""
        return f"{header}{between}, the text is column {self.name}{columns}"


def text_cells(
    source: Source, found: Iterable[str], options: CorpusOptions
) -> tuple[Layout, Iterator[str]]:
    """Returns where the text is in the lines of a csv, and the text of each row.

    Raises BadDataError if they are not a csv, or lack the column; says where.
    """
    delimiter, rest = options.delimiter, iter(found)
    begin = first_of(rest, SNIFFED_LINES, len)
    if begin and (named := SEPARATOR.fullmatch(begin[0])):
        delimiter = delimiter or named[1]
        del begin[0]
    delimiter = delimiter or sniffed_delimiter(source, begin)
    numbered = rows(source, itertools.chain(begin, rest), delimiter)
    first = first_of(numbered, SNIFFED_ROWS, lambda row: sum(map(len, row[1])))
    # An empty file among others does not stop the reading.
    layout = Layout(column=0, header=False)
    if first:
        names = [row for _, row in first]
        layout = text_column(source, names, options.csv_column, options.csv_header)
    layout = dataclasses.replace(layout, delimiter=delimiter)
    return layout, cells(source, layout, itertools.chain(first, numbered))


def rows(source: Source, found: Iterable[str], delimiter: str) -> Iterator[NumberedRow]:
    """Yields the number of each row's last line, and the row; empty lines are left out.

    Raises BadDataError if the quotes don't fit, or a row is too long; says in which line.
    """
    taken = 0

    def counted() -> Iterator[str]:
        """Yields the lines; raises csv.Error if a row has too many characters."""
        nonlocal taken
        for line in found:
            taken += len(line)
            if taken > MOST_ROW:
                raise csv.Error(f"a row of over {MOST_ROW:,} characters")
            yield line

    csv.field_size_limit(MOST_ROW)
    reader = csv.reader(counted(), strict=True, delimiter=delimiter)
    try:
        for row in reader:
            taken = 0
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise BadDataError(
            f"{source}, line {reader.line_num}: no csv ({shortened(error)}). "
            'A quote within a quoted text is written twice: "".'
        ) from error


def first_of(parts: Iterable[Part], count: int, size: Callable[[Part], int]) -> list[Part]:
    """Returns the first `count` parts, or fewer if they are long."""
    found, total = [], 0
    for part in itertools.islice(parts, count):
        found.append(part)
        total += size(part)
        if total > SNIFFED_CHARACTERS:
            break
    return found


def text_column(source: Source, first: Rows, column: str | None, header: bool | None) -> Layout:
    """Returns in which column the text is, and whether the first of these rows is names."""
    names = first[0]
    number = int(column) if column and column.isdecimal() and len(column) < 10 else 0
    # A number is a number, even if a cell of the first row happens to be it.
    may_be_name = header or (header is None and not (column or "").isdecimal())
    if column is not None and column in names and may_be_name:
        return Layout(column=names.index(column), header=True, first=names)
    place = wordiest(first[1:] or first) if column is None else number - 1
    header = looks_like_header(first, place) if header is None else header
    if column is None:
        place = named_as_text(names, first[1:], place) if header else wordiest(first)
    layout = Layout(column=place, header=header, first=names)
    if column is not None and not 1 <= number <= len(names):
        raise BadDataError(
            f"{source} has no column {shortened(repr(column))}; its first row has {layout.names}. "
            "Give --csv-column one of them, or a number from 1."
        )
    return layout


def sniffed_delimiter(source: Source, found: Sequence[str]) -> str:
    """Returns the delimiter that cuts lines into the same number of cells, the usual one first."""
    usual = "\t" if source.kind == "tsv" else ","
    best, most = usual, (False, 1)
    for delimiter in dict.fromkeys(usual + DELIMITERS):
        cut: list[list[str]] = []
        # The rows before one that is damaged.
        with contextlib.suppress(BadDataError):
            cut.extend(row for _, row in rows(source, found, delimiter))
        widths = {len(row) for row in cut}
        score = (has_names(cut[0]), len(cut[0])) if len(widths) == 1 else most
        if score > most:
            best, most = delimiter, score
    return best


def has_names(row: Sequence[str]) -> bool:
    """Returns whether cells look like the names of columns; an index column has none."""
    found = [cell.strip() for cell in row]
    named = all(NAME.fullmatch(cell) or not cell for cell in found)
    return named and any(found) and len(set(found)) == len(found)


def columns_of(below: Rows) -> list[tuple[str, ...]]:
    """Returns the cells of each column."""
    return list(itertools.zip_longest(*below, fillvalue=""))


def wordiest(below: Rows) -> int:
    """Returns the column with the longest text on average; the first if there is none."""
    sizes = [
        sum(len(cell) for cell in cells if not NO_TEXT.fullmatch(cell[:1000]))
        for cells in columns_of(below)
    ]
    return sizes.index(max(sizes)) if sizes else 0


def named_as_text(names: Sequence[str], below: Rows, guess: int) -> int:
    """Returns the column whose name says that it is text, or the one that looks like text."""
    columns = columns_of(below)
    known = [name.strip().casefold() for name in names]
    last = [regex.split(r"[\s_.-]", name)[-1] for name in known]
    for spelled in (known, last):
        for wanted in TEXT_NAMES:
            if wanted in spelled:
                place = spelled.index(wanted)
                cells = columns[place] if place < len(columns) else ()
                # A column of numbers holds how many texts there are, and no text.
                if not cells or not all(NO_TEXT.fullmatch(cell[:1000]) for cell in cells):
                    return place
    return guess if guess < len(names) else 0


def looks_like_header(first: Rows, column: int) -> bool:
    """Returns whether the first of these rows is names rather than text.

    Its cells look like names, and either one of them is a usual name for a column, or the cells
    below are of another kind: numbers, or longer text.
    """
    names, *below = first
    if not has_names(names):
        return False
    if any(name.strip().casefold() in USUAL_NAMES for name in names):
        return True
    columns = columns_of(below)
    numbers = any(all(NUMBER.fullmatch(cell.strip()) for cell in cells) for cells in columns)
    texts = columns[column] if column < len(columns) else ()
    longer = sum(not NAME.fullmatch(cell.strip()) for cell in texts)
    return numbers or 2 * longer > len(texts)


def cells(source: Source, layout: Layout, found: Iterator[NumberedRow]) -> Iterator[str]:
    """Yields each row's text; raises BadDataError for a row that lacks it or has too many cells."""
    column, width = layout.column, len(layout.first)
    for line, row in itertools.islice(found, int(layout.header), None):
        if column >= len(row):
            raise BadDataError(
                f"{source}, line {line}: the row has {len(row)} cells, none for {layout.name}."
            )
        if len(row) > width and any(row[width:]):
            raise BadDataError(
                f"{source}, line {line}: the row has {len(row)} cells, and the first row "
                f"{width}. A text with {layout.delimiter!r} in it needs quotes around it; "
                "or give another --csv-delimiter."
            )
        yield row[column]
