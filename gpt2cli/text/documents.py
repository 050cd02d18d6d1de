"""Patterns → the files of a corpus, looked into → documents: texts, arrays, conversations."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence

from gpt2cli.chat_template import NAMES, Conversation
from gpt2cli.config.shared import CorpusOptions
from gpt2cli.errors import shortened
from gpt2cli.records import Notice, Record
from gpt2cli.text import arrays, conversations, finding, records, tables
from gpt2cli.text.decoding import normalized_line_ends, read_text
from gpt2cli.text.finding import CorpusFiles
from gpt2cli.text.sources import ARRAYS, RECORDS, TABLES, ReadingState, Source

# A document's text in pieces (str), its tokens (bytes, 16 bits each, little-endian), or messages.
Document = Iterable[str] | Iterable[bytes] | Conversation
# How a line ends in the formats that are read line by line, as `decoding.lines` takes it.
NEWLINES = {"csv": "", "tsv": "", "jsonl": "\n"}
# How much of the first text a remark shows (characters).
SHOWN = 60


@dataclasses.dataclass(frozen=True)
class Corpus(CorpusFiles):
    """The files of a corpus, looked into: whether some of them hold conversations."""

    has_conversations: bool = dataclasses.field(kw_only=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Content:
    """What is in a file, and which part of it; each document must be read before the next."""

    documents: Iterator[Document]
    taken: str = ""
    has_conversations: bool = False


def find_corpora(
    several: Iterable[Sequence[str]],
    options: CorpusOptions,
    own: Sequence[str | None] = (),
    *,
    all_skipped: bool = False,
) -> Generator[Record, None, list[Corpus]]:
    """Yields what is waited for, skipped and taken; returns the corpora that patterns name.

    Raises MissingInputError as `finding.find`, BadDataError if a file is not what its name or an
    option says, and UsageError if stdin or a pipe is named twice.
    """
    several = list(several)
    yield from finding.announce_streams(itertools.chain(*several))
    found = [finding.find(patterns, options.encoding, own) for patterns in several]
    every = functools.reduce(CorpusFiles.plus, found)
    yield from every.remarks(all_skipped=all_skipped)
    talks = yield from remarks(every.files, options)
    return [
        Corpus(each.files, each.skipped, has_conversations=not talks.isdisjoint(each.files))
        for each in found
    ]


def remarks(
    files: Iterable[Source], options: CorpusOptions
) -> Generator[Notice, None, set[Source]]:
    """Yields what is taken of tables and records, and how the first text begins.

    Returns the files that hold conversations; raises BadDataError as `content_of` does.
    """
    alike: dict[str, tuple[str, list[Source]]] = {}
    talks = set()
    for source in files:
        if source.kind in TABLES | RECORDS:
            content = content_of(source, options, 0, ReadingState())
            begin = begin_of(next(content.documents, ()))
            alike.setdefault(content.taken, (begin, []))[1].append(source)
            if content.has_conversations:
                talks.add(source)
    for taken, (begin, sources) in alike.items():
        begins = f"; the first begins: {begin}" if begin else ""
        yield Notice(f"{CorpusFiles(tuple(sources))}: {taken}{begins}")
    return talks


def begin_of(document: Document) -> str:
    """Returns how a text or a conversation begins, for a remark."""
    if isinstance(document, Conversation):
        first = document.messages[0]
        return shortened(f"{NAMES[first.role]} {first.content}", SHOWN)
    return shortened(next(iter(document), ""), SHOWN)


def content_of(source: Source, options: CorpusOptions, vocab: int, state: ReadingState) -> Content:
    """Returns what is in a file; nothing else asks what kind of file it is.

    The vocabulary's size bounds arrays of tokens; the state takes note of what is read. Raises
    BadDataError if the file is not what its name or the options say, and says where;
    MissingInputError or DiskError if it cannot be read.
    """
    if source.kind in ARRAYS:
        return Content(documents=arrays.token_documents(source, vocab, state))
    text = read_text(source, options, state, NEWLINES.get(source.kind))
    if source.kind in TABLES:
        layout, texts = tables.text_cells(source, text, options)
        return Content(documents=zip(texts), taken=str(layout))
    if source.kind not in RECORDS:
        return Content(documents=iter([text]))

    def normalized(text: str) -> str:
        """Returns a text of a record with the line ends that are asked for."""
        if options.keep_line_ends or "\r" not in text:
            return text
        state.converted.add(source)
        return normalized_line_ends(text)

    found = records.records(source, text)
    first = list(itertools.islice(found, 1))
    found = itertools.chain(first, found)
    if not first:
        return Content(documents=iter(()), taken="no records")
    record = first[0][1]
    if options.text_field is not None or not conversations.is_conversation(record):
        texts = map(normalized, records.texts(found, options.text_field))
        return Content(documents=zip(texts), taken=records.description(record, options.text_field))
    return Content(
        documents=conversations.documents(found, normalized),
        taken="every record is a conversation",
        has_conversations=True,
    )
