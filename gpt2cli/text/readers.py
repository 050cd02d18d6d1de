"""Files of every kind → documents, each a run of pieces of text or of tokens."""

from __future__ import annotations

import codecs
import dataclasses
import io
import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

from gpt2cli.errors import BadDataError
from gpt2cli.text import arrays, tables
from gpt2cli.text.sources import Meter, Source, Sources, read_bytes

# A document's text in pieces (str), or its tokens (bytes, 16 bits each, little-endian).
Document = Iterable[str] | Iterable[bytes]


@dataclasses.dataclass(frozen=True)
class Reading:
    """How the files are to be read.

    Attributes:
        vocab: the number of tokens in the vocabulary, which bounds token arrays.
        encoding: how text is written: a codec's name.
        csv_column: the column's name, or its number from 1; None: the first.
        csv_header: whether a csv begins with a row of names; None: as it looks.
        text_field: where in a record of JSON the text lies.
    """

    vocab: int
    encoding: str = "utf-8"
    csv_column: str | None = None
    csv_header: bool | None = None
    text_field: str = "text"

    def facts(self, sources: Sources) -> tuple[Any, ...]:
        """Returns what of it makes a difference to these sources."""
        kinds = {source.kind for source in sources.files}
        text = codecs.lookup(self.encoding).name if kinds - {"npy", "npz"} else None
        table = (self.csv_column, self.csv_header) if "csv" in kinds else None
        return text, table, self.text_field if "jsonl" in kinds else None


def documents(source: Source, reading: Reading, meter: Meter) -> Iterator[Document]:
    """Yields a file's documents; each is to be read before the next.

    Raises:
        BadDataError: the file is not what its name or the options say; says where.
    """
    if source.kind in ("npy", "npz"):
        yield from arrays.documents(source, reading.vocab, meter)
    elif source.kind == "csv":
        for cell in tables.cells(source, layout(source, reading), _lines(source, reading, meter)):
            yield (cell,)
    elif source.kind == "jsonl":
        for text in records(source, reading, meter):
            yield (text,)
    else:
        yield read_text(source, reading.encoding, meter)


def layout(source: Source, reading: Reading) -> tables.Layout:
    """Returns which column of a csv is text, and whether its first row is names.

    Raises:
        BadDataError: there is no such column, or the file is no csv.
    """
    lines = _lines(source, reading, Meter())
    return tables.layout(source, lines, reading.csv_column, reading.csv_header)


def read_text(source: Source, encoding: str, meter: Meter | None = None) -> Iterator[str]:
    """Yields a file's text in pieces, whatever its size; a byte-order mark is left out.

    Raises:
        BadDataError: bytes that are not in that encoding; the message says where.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    done, first = 0, True
    for chunk in itertools.chain(read_bytes(source, meter), [b""]):
        done += len(chunk)
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            offset = done - len(error.object) + error.start
            raise BadDataError(
                f"{source}: byte {offset} (0x{error.object[error.start]:02x}) is not "
                f"{encoding.upper()} text. Say how it is written: --encoding latin-1, for example."
            ) from error
        except UnicodeError as error:
            raise BadDataError(f"{source} is not {encoding.upper()} text: {error}.") from error
        if first and text:
            text, first = text.removeprefix("\ufeff"), False
        if text:
            yield text


def _lines(source: Source, reading: Reading, meter: Meter) -> Iterator[str]:
    return lines(read_text(source, reading.encoding, meter), "")


def lines(pieces: Iterable[str], newline: str) -> Iterator[str]:
    r"""Yields text line by line, each with its end, whatever pieces it comes in.

    Args:
        pieces: the text.
        newline: where a line ends, as for `open`: the empty text is \n, \r and \r\n alike.
    """
    rest: list[str] = []
    for piece in pieces:
        rest.append(piece)
        if "\n" in piece:
            *whole, last = io.StringIO("".join(rest), newline)
            yield from whole
            rest = [last]
    yield from io.StringIO("".join(rest), newline)


def records(source: Source, reading: Reading, meter: Meter) -> Iterator[str]:
    """Yields the text of each line of JSON.

    Raises:
        BadDataError: a line is no JSON object or lacks the text; says which.
    """
    field = reading.text_field
    pieces = read_text(source, reading.encoding, meter)
    for number, line in enumerate(lines(pieces, "\n"), start=1):
        if not line.strip():
            continue
        where = f"{source}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadDataError(f"{where}: no JSON ({error}).") from error
        if not isinstance(record, dict) or field not in record:
            there = ", ".join(record) if isinstance(record, dict) else "no fields, as no object"
            raise BadDataError(f"{where} has no {field!r}, but {there}. Give its --text-field.")
        text = record[field]
        if not isinstance(text, str):
            raise BadDataError(f"{where}: {field!r} is {json.dumps(text)[:40]}, and not text.")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            lone = f"U+{ord(text[error.start]):04X}"
            raise BadDataError(f"{where}: {field!r} holds {lone}, half a character.") from error
        yield text
