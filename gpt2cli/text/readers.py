"""Files of every kind → documents, each a run of pieces of text or of tokens."""

from __future__ import annotations

import codecs
import dataclasses
import io
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from gpt2cli.errors import BadDataError, shortened
from gpt2cli.text import arrays, encodings, records, tables
from gpt2cli.text.sources import ARRAYS, Meter, Source, Sources, read_bytes

# A document's text in pieces (str), or its tokens (bytes, 16 bits each, little-endian).
Document = Iterable[str] | Iterable[bytes]
TABLES = frozenset({"csv", "tsv"})
RECORDS = frozenset({"json", "jsonl"})
# The longest line of a table or of JSON lines (characters).
MOST_LINE = 1 << 24
# How much of the first text a description shows (characters).
SHOWN = 60


@dataclasses.dataclass(frozen=True)
class Reading:
    r"""How the files are to be read.

    Attributes:
        vocab: the number of tokens in the vocabulary, which bounds token arrays.
        encoding: how text is written: a codec's name.
        csv_column: the column's name, or its number from 1; None: as it looks.
        csv_header: whether a csv begins with a row of names; None: as it looks.
        csv_delimiter: what stands between two cells; None: as it looks.
        text_field: where in a record of JSON the text is, `a.b` for one in another; None: as the
            first record tells.
        keep_line_ends: whether \r\n and \r stay; else they become \n.
    """

    vocab: int
    encoding: str = "utf-8"
    csv_column: str | None = None
    csv_header: bool | None = None
    csv_delimiter: str | None = None
    text_field: str | None = None
    keep_line_ends: bool = False

    def facts(self, sources: Sources) -> tuple[Any, ...]:
        """Returns what of it makes a difference to these sources."""
        kinds = {source.kind for source in sources.files}
        text = codecs.lookup(self.encoding).name if kinds - ARRAYS else None
        ends = "kept" if self.keep_line_ends else "converted"
        table = (self.csv_column, self.csv_header, self.csv_delimiter) if kinds & TABLES else None
        field = self.text_field if kinds & RECORDS else None
        return text, ends if text else None, table, field


def documents(source: Source, reading: Reading, meter: Meter) -> Iterator[Document]:
    """Yields a file's documents; each is to be read before the next.

    Raises:
        BadDataError: the file is not what its name or the options say; says where.
        MissingInputError: it cannot be read.
        DiskError: the disk fails.
    """
    if source.kind in ARRAYS:
        yield from arrays.documents(source, reading.vocab, meter)
    elif source.kind in TABLES:
        for cell in tables.cells(source, layout(source, reading), _lines(source, reading, meter)):
            yield (cell,)
    elif source.kind in RECORDS:
        for text in records.texts(_records(source, reading, meter), reading.text_field):
            yield (text if reading.keep_line_ends else converted(source, text, meter),)
    else:
        yield read_text(source, reading, meter)


def layout(source: Source, reading: Reading) -> tables.Layout:
    """Returns which column of a csv is text, and whether its first row is names.

    Raises:
        BadDataError: there is no such column, or the file is no csv.
    """
    found, header, delimiter = reading.csv_column, reading.csv_header, reading.csv_delimiter
    return tables.layout(source, _lines(source, reading, Meter()), found, header, delimiter)


def description(source: Source, reading: Reading) -> tuple[str, str] | None:
    """Returns what is taken of a file that has more than text, and how its first text begins.

    None for files that are nothing but text or tokens.

    Raises:
        BadDataError: the file is not what its name or the options say; says where.
    """
    if source.kind in TABLES:
        where = layout(source, reading)
        first = next(tables.cells(source, where, _lines(source, reading, Meter())), "")
        return str(where), shortened(first, SHOWN)
    if source.kind in RECORDS:
        found, again = itertools.tee(itertools.islice(_records(source, reading, Meter()), 1))
        first = next(records.texts(found, reading.text_field), "")
        return records.described(again, reading.text_field), shortened(first, SHOWN)
    return None


def read_text(source: Source, reading: Reading, meter: Meter | None = None) -> Iterator[str]:
    """Yields a file's text in pieces, whatever its size; a byte-order mark is left out.

    Raises:
        BadDataError: bytes that are not in that encoding; the message says where.
    """
    decoder: Any = None
    done, first = 0, True
    for chunk in itertools.chain(read_bytes(source, meter), [b""]):
        if decoder is None:
            made = codecs.getincrementaldecoder(encodings.codec(reading.encoding, chunk))()
            decoder = made if reading.keep_line_ends else io.IncrementalNewlineDecoder(made, True)
        done += len(chunk)
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise undecodable(source, reading.encoding, error, done) from error
        except UnicodeError as error:
            told = f"{source} is not {reading.encoding.upper()} text: {shortened(error)}."
            raise BadDataError(told) from error
        if first and text:
            text, first = text.removeprefix("\ufeff"), False
        if text:
            yield text
    if meter is not None and {"\r", "\r\n"} & ends_of(decoder):
        meter.converted.add(source)


def ends_of(decoder: Any) -> set[str]:
    """Returns the line ends that a decoder has converted."""
    found = getattr(decoder, "newlines", None) or ()
    return {found} if isinstance(found, str) else set(found)


def converted(source: Source, text: str, meter: Meter) -> str:
    r"""Returns a text from JSON, where line ends may be escaped, with each as \n."""
    if "\r" not in text:
        return text
    meter.converted.add(source)
    return encodings.one_end(text)


def undecodable(
    source: Source, encoding: str, error: UnicodeDecodeError, done: int
) -> BadDataError:
    """Returns the error of a byte that is not in the encoding that was said.

    Args:
        source: the file.
        encoding: how it is said to be written.
        error: what the decoder found.
        done: how many bytes have been read.
    """
    content = bytes(error.object)
    offset = done - len(content) + error.start
    return BadDataError(
        f"{source}: byte {offset:,} (0x{content[error.start]:02x}) is not {encoding.upper()} text. "
        + encodings.remedy(content, error.start)
    )


def _lines(source: Source, reading: Reading, meter: Meter) -> Iterator[str]:
    return lines(source, read_text(source, reading, meter), "")


def _records(source: Source, reading: Reading, meter: Meter) -> records.Found:
    pieces = read_text(source, reading, meter)
    if source.kind == "json":
        return records.in_array(source, pieces)
    return records.in_lines(source, lines(source, pieces, "\n"))


def lines(source: Source, pieces: Iterable[str], newline: str) -> Iterator[str]:
    r"""Yields text line by line, each with its end, whatever pieces it comes in.

    Args:
        source: the file, for messages.
        pieces: the text.
        newline: where a line ends, as for `open`: the empty text is \n, \r and \r\n alike.

    Raises:
        BadDataError: a line is so long that it is none.
    """
    rest: list[str] = []
    size = 0
    for piece in pieces:
        rest.append(piece)
        size += len(piece)
        if "\n" in piece:
            *whole, last = io.StringIO("".join(rest), newline)
            yield from whole
            rest, size = [last], len(last)
        elif size > MOST_LINE:
            raise BadDataError(f"{source}: a line of over {MOST_LINE:,} characters.")
    yield from io.StringIO("".join(rest), newline)
