"""The bytes of a text file → its text, in pieces or in lines."""

from __future__ import annotations

import codecs
import io
import itertools
from collections.abc import Iterable, Iterator

from gpt2cli.config.shared import CorpusOptions
from gpt2cli.errors import BadDataError, shortened
from gpt2cli.text import encodings
from gpt2cli.text.sources import ReadingState, Source, read_bytes

# The longest line of a table or of JSON lines (characters).
MOST_LINE = 1 << 24


def read_text(
    source: Source, options: CorpusOptions, state: ReadingState, newline: str | None = None
) -> Iterator[str]:
    """Yields a file's text without a byte-order mark: in pieces of bounded size, or in lines.

    Args:
        source: the file.
        options: its encoding, and whether line ends are kept.
        state: takes note of what is read.
        newline: how a line ends, as `lines` takes it; None: pieces.

    Raises:
        BadDataError: bytes that the encoding does not have, or a line that is too long; says where.
    """
    text = decoded_pieces(source, options, state)
    return text if newline is None else lines(source, text, newline)


def decoded_pieces(source: Source, options: CorpusOptions, state: ReadingState) -> Iterator[str]:
    """Yields a file's text in pieces of bounded size, without a byte-order mark.

    Raises:
        BadDataError: bytes that the encoding does not have; the message says where.
    """
    decoder: codecs.IncrementalDecoder | io.IncrementalNewlineDecoder | None = None
    done, first = 0, True
    for chunk in itertools.chain(read_bytes(source, state), [b""]):
        if decoder is None:
            decoder = codecs.getincrementaldecoder(encodings.codec(options.encoding, chunk))()
            if not options.keep_line_ends:
                decoder = io.IncrementalNewlineDecoder(decoder, True)
        done += len(chunk)
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise undecodable(source, options.encoding, error, done) from error
        except UnicodeError as error:
            raise BadDataError(
                f"{source} is not {options.encoding.upper()} text: {shortened(error)}."
            ) from error
        if first and text:
            text, first = text.removeprefix("\ufeff"), False
        if text:
            yield text
    if isinstance(decoder, io.IncrementalNewlineDecoder):
        seen = decoder.newlines or ()
        if {"\r", "\r\n"}.intersection([seen] if isinstance(seen, str) else seen):
            state.converted.add(source)


def undecodable(
    source: Source, encoding: str, error: UnicodeDecodeError, done: int
) -> BadDataError:
    """Returns the error that names a byte that the encoding does not have.

    Args:
        source: the file.
        encoding: the encoding that was asked for.
        error: the decoder's.
        done: how many bytes have been read.
    """
    content = bytes(error.object)
    offset = done - len(content) + error.start
    return BadDataError(
        f"{source}: byte {offset:,} (0x{content[error.start]:02x}) is not {encoding.upper()} text. "
        + encodings.remedy(content, error.start)
    )


def lines(source: Source, pieces: Iterable[str], newline: str) -> Iterator[str]:
    r"""Yields text line by line, each with its end, whatever pieces it comes in.

    Args:
        source: the file, for messages.
        pieces: the text.
        newline: how a line ends, as for `open`: the empty text means \n, \r and \r\n alike.

    Raises:
        BadDataError: a line is too long for a row or a record.
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
