"""Files of every format → documents: texts, arrays of tokens, conversations."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator

from gpt2cli.chat_template import Conversation
from gpt2cli.config.shared import CorpusOptions
from gpt2cli.errors import shortened
from gpt2cli.records import Notice
from gpt2cli.text import arrays, conversations, records, tables
from gpt2cli.text.decoding import read_text
from gpt2cli.text.sources import ARRAYS, RECORDS, ReadingState, Source

# A document's text in pieces (str), its tokens (bytes, 16 bits each, little-endian), or messages.
Document = Iterable[str] | Iterable[bytes] | Conversation
TABLES = frozenset({"csv", "tsv"})
# How much of the first text a remark shows (characters).
SHOWN = 60


def documents(
    source: Source, options: CorpusOptions, vocab: int, state: ReadingState
) -> Iterator[Document]:
    """Yields a file's documents; each must be read before the next.

    Args:
        source: the file.
        options: how it is read.
        vocab: the number of tokens in the vocabulary, which bounds arrays of tokens.
        state: takes note of what is read.

    Raises:
        BadDataError: the file is not what its name or the options say; says where.
        MissingInputError: it cannot be read.
        DiskError: the disk fails.
    """
    if source.kind in ARRAYS:
        yield from arrays.token_documents(source, vocab, state)
    elif source.kind in TABLES:
        yield from zip(tables.documents(source, options, state))
    elif conversations.are_in(source, options):
        yield from conversations.documents(source, options, state)
    elif source.kind in RECORDS:
        yield from zip(records.documents(source, options, state))
    else:
        yield read_text(source, options, state)


def remarks(files: Iterable[Source], options: CorpusOptions) -> Iterator[Notice]:
    """Yields what is taken of tables and records, with the beginning of the first text.

    Raises:
        BadDataError: a csv lacks the column, or a file is not what its name says.
    """
    found: dict[str, list[tuple[Source, str]]] = {}
    for source in files:
        if source.kind in TABLES | RECORDS:
            taken, first = description(source, options)
            found.setdefault(taken, []).append((source, shortened(first, SHOWN)))
    for taken, alike in found.items():
        (source, first), more = alike[0], len(alike) - 1
        begins = f"; the first begins: {first}" if first else ""
        yield Notice(f"{source}{f' and {more} more' if more else ''}: {taken}{begins}")


def description(source: Source, options: CorpusOptions) -> tuple[str, str]:
    """Returns what is taken of a table or of records, and the first text."""
    if source.kind in TABLES:
        return tables.description(source, options)
    if conversations.are_in(source, options):
        return conversations.description(source, options)
    return records.description(source, options)


def relevant_options(files: Iterable[Source], options: CorpusOptions) -> tuple[object, ...]:
    """Returns the options that make a difference to these files: part of a token file's name."""
    kinds = {source.kind for source in files}
    text = codecs.lookup(options.encoding).name if kinds - ARRAYS else None
    ends = "kept" if options.keep_line_ends else "converted"
    table = (options.csv_column, options.csv_header, options.delimiter) if kinds & TABLES else None
    field = options.text_field if kinds & RECORDS else None
    return text, ends if text else None, table, field
