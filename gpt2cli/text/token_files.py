"""Tokens → a token file, or a temporary one; both are mapped, a small one held in memory."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import hashlib
import sys
import tempfile
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from gpt2cli import chat_template
from gpt2cli.config.shared import CorpusOptions
from gpt2cli.errors import BadDataError
from gpt2cli.files import atomic
from gpt2cli.progress import Received, told
from gpt2cli.records import Notice, Record
from gpt2cli.text import batches
from gpt2cli.text.arrays import TOKEN_TYPE
from gpt2cli.text.batches import LossMask, MaskBuilder, Tokens
from gpt2cli.text.documents import Corpus
from gpt2cli.text.finding import CorpusFiles
from gpt2cli.text.sources import (
    ARRAYS,
    READ_BYTES,
    RECORDS,
    TABLES,
    ReadingState,
    Source,
    read_errors,
    temporary_file_errors,
)
from gpt2cli.text.tokenizer import Tokenizer
from gpt2cli.text.tokens import encode_corpus

# A token file has 16 bits for a token.
MOST_TOKENS = 1 << 16
# Behind its tokens a token file has their SHA-256.
DIGEST_BYTES = hashlib.sha256().digest_size
# In the name of a token file with a loss mask: a bit a token, between its tokens and the digest.
MASKED = ".masked"
# A corpus smaller than this is encoded without a line of progress (bytes).
WORTH_A_BAR = 4_000_000
# Tokens that are read once are held in memory up to this size (bytes).
HELD_BYTES = 1 << 26


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoder:
    """Encodes files, which are read as the options say, into tokens."""

    options: CorpusOptions
    tokenizer: Tokenizer
    quiet: bool = False

    def __post_init__(self) -> None:
        """Raises BadDataError if the vocabulary is too large for token files."""
        if (vocab := self.tokenizer.vocab) > MOST_TOKENS:
            raise BadDataError(
                f"The vocabulary has {vocab:,} tokens; token files hold {MOST_TOKENS:,}."
            )

    def file_name(self, corpus: Corpus) -> str:
        """Returns the name of a corpus's token file: the same for what gives the same tokens."""
        facts = self.tokenizer.fingerprint, relevant_options(corpus.files, self.options)
        whole = hashlib.sha256(repr(facts).encode())
        if corpus.has_conversations:
            # What they are written as.
            whole.update(chat_template.CHAT_TEMPLATE.encode())
        for source in corpus.files:
            with read_errors(source), source.open() as file:
                digest = digest_of(file)
            whole.update(f"{source.kind} {source.gzipped} ".encode() + digest)
        return f"tokens-{whole.hexdigest()[:16]}{MASKED if self.has_mask(corpus) else ''}.u16"

    def has_mask(self, corpus: Corpus) -> bool:
        """Returns whether some tokens of a corpus do not count in the loss."""
        return self.options.loss_on == "assistant" and corpus.has_conversations

    def write(
        self, corpus: Corpus, file: IO[bytes], mask: MaskBuilder | None = None
    ) -> Iterator[Record]:
        """Writes a corpus's tokens, and yields how far it is; the mask takes those that count."""
        state = ReadingState(total=corpus.size())

        def written() -> Generator[Received, None, None]:
            """Writes tokens, and yields how far they are."""
            for packed in encode_corpus(corpus.files, self.options, self.tokenizer, state, mask):
                file.write(packed)
                yield Received(state.done, state.total)

        with contextlib.closing(written()) as received:
            if state.total >= WORTH_A_BAR:
                bars = not self.quiet and sys.stderr.isatty()
                yield from told(received, f"encoding {corpus}", bars)
            deque(received, 0)
        if state.converted:
            converted = CorpusFiles(tuple(sorted(state.converted, key=str)))
            yield Notice(
                f"line ends in {converted}: \\r\\n and \\r became \\n; --keep-line-ends keeps them"
            )

    def read_once(self, corpus: Corpus) -> Generator[Record, None, tuple[Tokens, LossMask | None]]:
        """Yields how far it is; returns a corpus's tokens and which count; leaves no file.

        More than HELD_BYTES of tokens are in an unnamed temporary file; raises DiskError if it has
        no room, and BadDataError as `documents.content_of`.
        """
        builder = MaskBuilder() if self.has_mask(corpus) else None
        with (
            temporary_file_errors(f"the tokens of {corpus}"),
            tempfile.SpooledTemporaryFile(HELD_BYTES) as file,
        ):
            yield from self.write(corpus, file, builder)
            mask = LossMask(np.frombuffer(builder.packed(), np.uint8)) if builder else None
            size = file.tell()
            if size > HELD_BYTES:
                shape = (size // TOKEN_TYPE.itemsize,)
                # What is mapped stays readable when the file is closed.
                return np.memmap(file, TOKEN_TYPE, mode="r", shape=shape), mask
            file.seek(0)
            return np.frombuffer(file.read(), TOKEN_TYPE), mask

    def token_file(self, corpus: Corpus, folder: Path) -> Generator[Record, None, Path]:
        """Yields how far it is; returns a corpus's token file, which is written unless it is there.

        Raises BadDataError if it is not text, or has fewer than two tokens; no file is left then.
        """
        path = folder / self.file_name(corpus)
        if path.exists():
            if is_intact(path):
                return path
            yield Notice(f"{path} is damaged; the text is encoded again.")
        mask = MaskBuilder() if self.has_mask(corpus) else None
        with atomic.disk_errors(path), atomic.whole_file(path) as aside:
            with aside.open("wb") as file:
                yield from self.write(corpus, file, mask)
                file.write(mask.packed() if mask else b"")
            append_digest(aside)
            batches.check_length(open_tokens(aside), str(corpus))
        return path


def relevant_options(files: Iterable[Source], options: CorpusOptions) -> tuple[object, ...]:
    """Returns the options that make a difference to these files: part of a token file's name."""
    kinds = {source.kind for source in files}
    text = codecs.lookup(options.encoding).name if kinds - ARRAYS else None
    ends = "kept" if options.keep_line_ends else "converted"
    table = (options.csv_column, options.csv_header, options.delimiter) if kinds & TABLES else None
    field = options.text_field if kinds & RECORDS else None
    return text, ends if text else None, table, field


def open_tokens(path: Path) -> Tokens:
    """Returns a token file as uint16 (tokens,), mapped into memory."""
    count = token_count(path)
    if count <= 0:
        return np.empty(0, TOKEN_TYPE)
    return np.memmap(path, TOKEN_TYPE, mode="r", shape=(count,))


def open_mask(path: Path) -> LossMask | None:
    """Returns which of a token file's tokens count in the loss, mapped; None: all do."""
    if MASKED not in path.name:
        return None
    start = token_count(path) * TOKEN_TYPE.itemsize
    size = path.stat().st_size - DIGEST_BYTES - start
    return LossMask(np.memmap(path, np.uint8, mode="r", offset=start, shape=(size,)))


def token_count(path: Path) -> int:
    """Returns how many tokens a token file has."""
    size = path.stat().st_size - DIGEST_BYTES
    if MASKED not in path.name:
        return size // TOKEN_TYPE.itemsize
    # Eight tokens and their bits take 17 bytes.
    eights, rest = divmod(size, 8 * TOKEN_TYPE.itemsize + 1)
    return 8 * eights + max(rest - 1, 0) // TOKEN_TYPE.itemsize


def append_digest(path: Path) -> None:
    """Appends the SHA-256 of what a token file holds."""
    with path.open("r+b") as file:
        file.write(digest_of(file))


def is_intact(path: Path) -> bool:
    """Returns whether a token file is as it was written."""
    size = path.stat().st_size - DIGEST_BYTES
    if size < 0:
        return False
    with path.open("rb") as file:
        return digest_of(file, size) == file.read()


def digest_of(file: IO[bytes], size: int = sys.maxsize) -> bytes:
    """Returns the SHA-256 of what an open file holds, or of so much of it as its first bytes."""
    digest = hashlib.sha256()
    while piece := file.read(min(READ_BYTES, size)):
        digest.update(piece)
        size -= len(piece)
    return digest.digest()
