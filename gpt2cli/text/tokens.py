"""Documents → tokens, in bounded memory."""

from __future__ import annotations

import bisect
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import regex

from gpt2cli import chat_template
from gpt2cli.chat_template import Conversation
from gpt2cli.config.shared import CorpusOptions
from gpt2cli.errors import BadDataError
from gpt2cli.runtime.hardware import cores
from gpt2cli.text.added import AddedTokens
from gpt2cli.text.batches import MaskBuilder
from gpt2cli.text.documents import Document, content_of
from gpt2cli.text.sources import ReadingState, Source
from gpt2cli.text.tokenizer import Tokenizer

# Characters that are encoded at once, at least.
CHUNK = 1 << 20
# More threads than this gain little: one thread reads the corpus.
MOST_THREADS = 4
# A corpus smaller than this is encoded before compiled loops would have been loaded (bytes).
WORTH_COMPILING = 4_000_000
# No word spans the place between these: a word begins with at most one space, and letters, or
# digits, go on to the last.
SAFE_CUT = regex.compile(r"\S(?=\s)|\p{L}(?=\P{L})|\p{N}(?=\P{N})")
# The same if an added token may stand only between characters that are not letters.
SINGLE_WORD_CUT = regex.compile(r"[\p{P}\p{S}--\p{Pc}](?=\s)", regex.V1)
# The longest stretch without such a place (characters): all of it is held.
MOST_WORD = 1 << 24
# How far back from a chunk's end a place to cut is looked for first (characters).
NEAR_END = 1000

# What is encoded at once: text, tokens already, or a whole conversation.
Piece = str | bytes | Conversation


def encode_corpus(
    files: Iterable[Source],
    options: CorpusOptions,
    tokenizer: Tokenizer,
    state: ReadingState,
    mask: MaskBuilder | None = None,
) -> Iterator[bytes]:
    """Yields each document's tokens in pieces, each document followed by the end-of-text token.

    Tokens have 16 bits each, little-endian. They are those that the whole text would have in one
    piece, however many threads make them. The memory taken does not depend on the corpus's size.
    Raises BadDataError if a file is not what its name or the options say; says where.

    The state says how much there is to read, and takes note of what was read; the mask takes note
    of which tokens count: of a conversation only the assistant's.
    """
    found = (
        document
        for source in files
        for document in content_of(source, options, tokenizer.vocab, state).documents
    )
    pieces = chunks(with_ends(found, tokenizer), tokenizer.added, state)
    if state.total >= WORTH_COMPILING:
        tokenizer.compile()
    for tokens, flags in encode_pieces(pieces, tokenizer):
        if mask is not None:
            mask.add(flags or b"\1" * (len(tokens) // 2))
        yield tokens


def with_ends(found: Iterable[Document], tokenizer: Tokenizer) -> Iterator[Piece]:
    """Yields the pieces of all documents, with the end of text after each that is not empty.

    A document that ends with it already gets no second one. A conversation is one piece.
    """
    end, size = tokenizer.end, len(tokenizer.end)
    packed_end = tokenizer.pack([tokenizer.end_of_text])
    for document in found:
        text, tokens = "", b""
        if isinstance(document, Conversation):
            yield document
            continue
        for piece in document:
            if isinstance(piece, str):
                # A piece may be shorter than the end of text.
                text = piece[-size:] if len(piece) >= size else (text + piece)[-size:]
            else:
                tokens = piece[-len(packed_end) :]
            yield piece
        if (text or tokens) and text != end and tokens != packed_end:
            yield end


def chunks(pieces: Iterable[Piece], added: AddedTokens, state: ReadingState) -> Iterator[Piece]:
    """Yields the same text cut between words, in chunks of a size that is quick to encode.

    No cut goes through an added token; tokens and conversations are passed on. Raises BadDataError
    for a word that is too long to be one, with the file that is being read.
    """
    held: list[str] = []
    size, wanted = 0, CHUNK
    for piece in pieces:
        if not isinstance(piece, str):
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
                where = state.source or "The text"
                raise BadDataError(f"{where} has a word of over {MOST_WORD:,} characters: no text.")
            # If nothing can be cut, look again when there is twice as much.
            wanted = max(CHUNK, 2 * size)
    yield from filter(None, ["".join(held)])


def last_cut(text: str, added: AddedTokens) -> int:
    """Returns the last place in a text at which a cut does not change its tokens, or 0.

    More text may follow; no cut may go through an added token.
    """
    spans = added.spans(text)
    starts = [start for start, _, _ in spans]
    stops = [*itertools.accumulate((stop for _, stop, _ in spans), max)]
    # What begins later may be the beginning of a token.
    end = len(text) - added.longest + 1

    def is_safe(place: int) -> bool:
        """Returns whether no match goes across a place."""
        before = bisect.bisect_left(starts, place) - 1
        return place <= end and (before < 0 or stops[before] <= place)

    cut = SINGLE_WORD_CUT if added.any_single_word else SAFE_CUT
    for start in (max(0, len(text) - NEAR_END), 0):
        places = [match.end() for match in cut.finditer(text, start)]
        if not added.any_single_word:
            places = sorted([*places, *(stop for stop in stops if stop > start)])
        if found := next(filter(is_safe, reversed(places)), 0):
            return found
    return 0


def encode_pieces(pieces: Iterable[Piece], tokenizer: Tokenizer) -> Iterator[tuple[bytes, bytes]]:
    """Yields the packed tokens of each piece, in order, and of a conversation which ones count.

    Compiled loops run in threads, one a core; without Numba this thread encodes.
    """

    def encode(piece: Piece) -> tuple[bytes, bytes]:
        """Returns a piece's packed tokens, and which of them count."""
        if isinstance(piece, bytes):
            return piece, b""
        if isinstance(piece, str):
            return tokenizer.encode_packed(piece, special=True), b""
        return encode_conversation(piece, tokenizer)

    count = min(cores(), MOST_THREADS)
    if not tokenizer.is_compiled or count == 1:
        yield from map(encode, pieces)
        return
    waiting: deque[Future[tuple[bytes, bytes]]] = deque()
    with ThreadPoolExecutor(count) as pool:
        try:
            for piece in pieces:
                waiting.append(pool.submit(encode, piece))
                yield waiting.popleft().result() if len(waiting) > count else (b"", b"")
            while waiting:
                yield waiting.popleft().result()
        finally:
            # After a signal the pieces that no thread has begun are left.
            pool.shutdown(wait=False, cancel_futures=True)


def encode_conversation(conversation: Conversation, tokenizer: Tokenizer) -> tuple[bytes, bytes]:
    """Returns a conversation's packed tokens, and a byte for each: 1 if the assistant writes it."""
    tokens, flags = b"", b""
    written = chat_template.parts(conversation.messages, tokenizer.end)
    for answers, same in itertools.groupby(written, lambda part: part.answers):
        packed = tokenizer.encode_packed("".join(part.text for part in same), special=True)
        tokens += packed
        flags += bytes([answers]) * (len(packed) // 2)
    return tokens, flags
