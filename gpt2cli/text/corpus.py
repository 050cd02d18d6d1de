"""Documents → one memory-mapped token file, in bounded memory; compiled loops use all cores."""

from __future__ import annotations

import bisect
import hashlib
import itertools
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import regex

from gpt2cli.errors import BadDataError
from gpt2cli.runtime.hardware import cores
from gpt2cli.text import readers
from gpt2cli.text.added import AddedTokens
from gpt2cli.text.arrays import TOKEN_TYPE
from gpt2cli.text.readers import Document, Reading
from gpt2cli.text.sources import Meter, Sources, content_hash
from gpt2cli.text.tokenizer import Tokenizer

# What stands behind the tokens in a token file: their SHA-256.
SEAL_BYTES = hashlib.sha256().digest_size
# Characters that are encoded at once, at least.
CHUNK = 1 << 20
# More threads than this gain little: reading the corpus is the work of one.
MOST_THREADS = 4
# A corpus smaller than this is encoded before compiled loops would have been loaded (bytes).
WORTH_COMPILING = 4_000_000
# No word spans the place between these: a word begins at most with one space, and letters, or
# digits, go on to the last.
SAFE_CUT = regex.compile(r"\S(?=\s)|\p{L}(?=\P{L})|\p{N}(?=\P{N})")
# The same where a token may stand only between what are no letters.
LONELY_CUT = regex.compile(r"[\p{P}\p{S}--\p{Pc}](?=\s)", regex.V1)
# The longest stretch without such a place (characters): all of it is held.
MOST_WORD = 1 << 24
# How far back from a chunk's end a place to cut is looked for first (characters).
NEAR_END = 1000


def name(sources: Sources, reading: Reading, tokenizer: Tokenizer) -> str:
    """Returns the name of a corpus's token file; what gives the same tokens has the same name."""
    digest = content_hash(sources, tokenizer.fingerprint, reading.facts(sources))
    return f"tokens-{digest[:16]}.u16"


def write_tokens(
    sources: Sources,
    reading: Reading,
    tokenizer: Tokenizer,
    file: BinaryIO,
    meter: Meter | None = None,
) -> Generator[int, None, None]:
    """Writes each document's tokens, each followed by the end-of-text token, in 16 bits each.

    The memory taken does not depend on the corpus's size. The tokens are those that the whole
    text would have in one piece, however many threads make them. A meter that is given notes
    what was changed.

    Yields:
        How much has been read (bytes as they lie on the disk).

    Raises:
        BadDataError: a file is not what its name or the options say; says where.
    """
    meter = meter or Meter()
    found = (each for source in sources.files for each in readers.documents(source, reading, meter))
    pieces = chunks(bordered(found, tokenizer), tokenizer.added, meter)
    if sources.size() >= WORTH_COMPILING:
        tokenizer.compile()
    for packed in encoded(pieces, tokenizer):
        file.write(packed)
        yield meter.done


def encoded(pieces: Iterable[str | bytes], tokenizer: Tokenizer) -> Iterator[bytes]:
    """Yields the packed tokens of each piece, in order; pieces of bytes are tokens already.

    Compiled loops run in threads, one a core; Python's encode in this thread.
    """

    def encode(piece: str | bytes) -> bytes:
        return tokenizer.encode_packed(piece, special=True) if isinstance(piece, str) else piece

    count = min(cores(), MOST_THREADS)
    if not tokenizer.is_compiled or count == 1:
        yield from map(encode, pieces)
        return
    waiting: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(count) as pool:
        for piece in pieces:
            waiting.append(pool.submit(encode, piece))
            yield waiting.popleft().result() if len(waiting) > count else b""
        while waiting:
            yield waiting.popleft().result()


def bordered(documents: Iterable[Document], tokenizer: Tokenizer) -> Iterator[str | bytes]:
    """Yields the pieces of all documents, with the tokenizer's `end` after each that is not empty.

    A document that ends with it already gets no second one.
    """
    border = tokenizer.pack([tokenizer.end_of_text])
    for document in documents:
        text, tokens = "", b""
        for piece in document:
            if isinstance(piece, str):
                text = (text + piece)[-len(tokenizer.end) :]
            else:
                tokens = piece[-len(border) :]
            yield piece
        if (text or tokens) and text != tokenizer.end and tokens != border:
            yield tokenizer.end


def chunks(
    pieces: Iterable[str | bytes], added: AddedTokens, meter: Meter | None = None
) -> Iterator[str | bytes]:
    """Yields the same in larger or smaller pieces whose tokens, joined, are those of the whole.

    Tokens are passed on as they are. The meter knows which file is read, for messages.

    Raises:
        BadDataError: no word in it ends.
    """
    held: list[str] = []
    size, wanted = 0, CHUNK
    for piece in pieces:
        if isinstance(piece, bytes):
            yield from filter(None, ["".join(held)])
            yield piece
            held, size = [], 0
            continue
        held.append(piece)
        size += len(piece)
        if size >= wanted:
            whole = "".join(held)
            at = last_cut(whole, added)
            yield from filter(None, [whole[:at]])
            held, size = [whole[at:]], len(whole) - at
            if size > MOST_WORD:
                where = meter.source if meter and meter.source else "The text"
                raise BadDataError(f"{where} has a word of over {MOST_WORD:,} characters: no text.")
            # Where nothing can be cut, look again when there is twice as much.
            wanted = max(CHUNK, 2 * size)
    yield from filter(None, ["".join(held)])


def last_cut(text: str, added: AddedTokens) -> int:
    """Returns the last place in a text where it can be cut without changing its tokens, or 0.

    Args:
        text: what more text may follow.
        added: the tokens that no cut may go through.
    """
    spans = added.spans(text)
    starts = [start for start, _, _ in spans]
    stops = [*itertools.accumulate((stop for _, stop, _ in spans), max)]
    # What begins later may be the beginning of a token.
    end = len(text) - added.longest + 1

    def is_safe(place: int) -> bool:
        before = bisect.bisect_left(starts, place) - 1
        return place <= end and (before < 0 or stops[before] <= place)

    cut = LONELY_CUT if added.are_lonely else SAFE_CUT
    for start in (max(0, len(text) - NEAR_END), 0):
        places = [match.end() for match in cut.finditer(text, start)]
        if not added.are_lonely:
            places = sorted([*places, *(stop for stop in stops if stop > start)])
        if found := next(filter(is_safe, reversed(places)), 0):
            return found
    return 0


def open_tokens(path: Path) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Returns a sealed token file as uint16 (tokens,), read from disk where it is looked at."""
    count = (path.stat().st_size - SEAL_BYTES) // TOKEN_TYPE.itemsize
    if count <= 0:
        return np.empty(0, TOKEN_TYPE)
    return np.memmap(path, TOKEN_TYPE, mode="r", shape=(count,))


def seal(path: Path) -> None:
    """Appends the SHA-256 of what a token file holds."""
    digest = hash_of(path, path.stat().st_size)
    with path.open("ab") as file:
        file.write(digest)


def is_whole(path: Path) -> bool:
    """Returns whether a sealed token file is as it was written."""
    size = path.stat().st_size - SEAL_BYTES
    if size < 0:
        return False
    with path.open("rb") as file:
        file.seek(size)
        return file.read() == hash_of(path, size)


def hash_of(path: Path, size: int) -> bytes:
    """Returns the SHA-256 of a file's first bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while size > 0 and (part := file.read(min(size, CHUNK))):
            digest.update(part)
            size -= len(part)
    return digest.digest()
