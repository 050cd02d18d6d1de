"""Text cut into words and each merged to tokens, compiled by Numba: as bpe.py does in Python."""

from __future__ import annotations

import functools
import sys

import numpy as np
import regex

from gpt2cli.arrays import Array, Integer
from gpt2cli.runtime.numba import jit
from gpt2cli.text.bpe import Words

# What a character is, as bpe.WORDS tells them apart.
OTHER, LETTER, NUMBER, SPACE = 0, 1, 2, 3
# Longer words (bytes) are merged in Python, by a heap in n log n.
LONGEST = 128
# An empty place in the table of pairs, and the rank of a pair that is not in it.
EMPTY, NEVER = np.int64(-1), np.int32(2**31 - 1)
# Knuth's multiplier for hashes, 2**64 over the golden ratio.
MULTIPLIER, HIGH_BITS = np.int64(-7046029254386353131), np.int64(32)
APOSTROPHE, BLANK = ord("'"), ord(" ")
S, T, M, D, L, R, V, E = b"stmdlrve"
# Runs of letters, of numbers and of white space, by the same library that cuts words elsewhere.
CLASSES = {
    LETTER: regex.compile(r"\p{L}+"),
    NUMBER: regex.compile(r"\p{N}+"),
    SPACE: regex.compile(r"\s+"),
}
# At most one place in this many of the table of pairs is taken.
PLACES_EACH = 3


class NativeWords:
    """Text to tokens as Words does it, several times faster; it may be used by many threads."""

    def __init__(self, words: Words) -> None:
        """Takes what knows the vocabulary."""
        self._words = words
        pairs = np.array(
            [(*pair, *ranked) for pair, ranked in words.pairs.items()], np.int32
        ).reshape(-1, 4)
        places = 1 << max(len(pairs) * PLACES_EACH, 2).bit_length()
        keys = np.full(places, EMPTY)
        ranks, joined = np.zeros((2, places), np.int32)
        fill(keys, ranks, joined, pairs)
        byte_tokens = np.array(words.byte_tokens, np.int32)
        self._tables = classes(), byte_tokens, keys, ranks, joined
        self._type = np.dtype("<u2" if words.size == 2 else "<u4")

    def encode(self, text: str) -> bytes:
        """Returns a text's tokens, packed; the same as Words.encode does."""
        content = np.frombuffer(bytearray(text.encode()), np.uint8)
        tokens = np.empty(len(content), np.int32)
        scratch = np.empty((2, LONGEST), np.int32)
        packed: list[bytes] = []
        begin: Integer = 0
        while begin < len(content):
            count, word, begin = encode_words(content, begin, self._tables, scratch, tokens)
            packed.append(tokens[:count].astype(self._type).tobytes())
            if word < begin:
                packed.append(self._words.merged(content[word:begin].tobytes()))
        return b"".join(packed)


@functools.cache
def classes() -> Array:
    """Returns what each character is, uint8 (characters,)."""
    # Half a surrogate pair is not a character, and the library is none the wiser.
    points = np.arange(sys.maxunicode + 1, dtype="<u4")
    everything = points.tobytes().decode("utf-32-le", errors="surrogatepass")
    found = np.full(len(points), OTHER, np.uint8)
    for kind, runs in CLASSES.items():
        for run in runs.finditer(everything):
            found[run.start() : run.end()] = kind
    return found


@jit()
def fill(keys: Array, ranks: Array, joined: Array, pairs: Array) -> None:
    """Fills a table of pairs with open addresses, from int32 (pairs, 4): left, right, rank, joined.

    Its keys are int64 (places,), a power of two and more than there are pairs, all EMPTY; ranks
    and joined tokens are int32 (places,).
    """
    for pair in range(len(pairs)):
        place = find_pair(keys, pairs[pair, 0], pairs[pair, 1])
        keys[place] = (np.int64(pairs[pair, 0]) << HIGH_BITS) | np.int64(pairs[pair, 1])
        ranks[place], joined[place] = pairs[pair, 2], pairs[pair, 3]


@jit()
def find_pair(keys: Array, left: Integer, right: Integer) -> Integer:
    """Returns where a pair is in the table, or the empty place where it would be."""
    key = (np.int64(left) << HIGH_BITS) | np.int64(right)
    last = len(keys) - 1
    place = ((key * MULTIPLIER) >> HIGH_BITS) & last
    while keys[place] != EMPTY and keys[place] != key:
        place = (place + 1) & last
    return place


@jit()
def encode_words(
    content: Array, begin: Integer, tables: tuple[Array, ...], scratch: Array, tokens: Array
) -> tuple[Integer, Integer, Integer]:
    """Encodes UTF-8, uint8 (bytes,), from a word's begin to the end, or to a word that is too long.

    The tables are `classes`, each byte's token, int32 (256,), and the table of pairs as `fill` has
    it; scratch is int32 (2, LONGEST), and the result goes to int32 (at least bytes - begin,).
    Returns the count of tokens; the begin of the word that is too long, or the end; its end.
    """
    classes, byte_tokens, keys, ranks, joined = tables
    count = 0
    while begin < len(content):
        end = word_end(content, begin, classes)
        size = end - begin
        if size > LONGEST:
            return count, begin, end
        for place in range(size):
            scratch[0, place] = byte_tokens[content[begin + place]]
        for place in range(merge(scratch, size, keys, ranks, joined)):
            tokens[count] = scratch[0, place]
            count += 1
        begin = end
    return count, begin, begin


@jit()
def merge(scratch: Array, size: Integer, keys: Array, ranks: Array, joined: Array) -> Integer:
    """Joins neighbours as bpe.merge does; returns how many tokens are left.

    The first row of scratch, int32 (2, at least size), holds the tokens, which are joined; the
    second is room for ranks. The table of pairs is as `fill` fills it.
    """
    tokens, of_pairs = scratch[0], scratch[1]
    for place in range(size - 1):
        of_pairs[place] = rank(keys, ranks, tokens[place], tokens[place + 1])
    while size > 1:
        best = 0
        for place in range(1, size - 1):
            if of_pairs[place] < of_pairs[best]:
                best = place
        if of_pairs[best] == NEVER:
            break
        tokens[best] = joined[find_pair(keys, tokens[best], tokens[best + 1])]
        size -= 1
        for place in range(best + 1, size):
            tokens[place], of_pairs[place - 1] = tokens[place + 1], of_pairs[place]
        if best > 0:
            of_pairs[best - 1] = rank(keys, ranks, tokens[best - 1], tokens[best])
        if best < size - 1:
            of_pairs[best] = rank(keys, ranks, tokens[best], tokens[best + 1])
    return size


@jit()
def rank(keys: Array, ranks: Array, left: Integer, right: Integer) -> Integer:
    """Returns a pair's rank, or NEVER."""
    place = find_pair(keys, left, right)
    return NEVER if keys[place] == EMPTY else ranks[place]


@jit()
def word_end(content: Array, begin: Integer, classes: Array) -> Integer:
    """Returns where the word that begins at a place ends, as bpe.WORDS cuts them."""
    size = contraction(content, begin)
    if size:
        return begin + size
    kind, after = character(content, begin, classes)
    if content[begin] == BLANK and after < len(content):
        following, beyond = character(content, after, classes)
        if following != SPACE:
            kind, after = following, beyond
    last = begin
    while after < len(content):
        following, beyond = character(content, after, classes)
        if following != kind:
            break
        last, after = after, beyond
    # Of several spaces before a word the last is the word's, or stands alone.
    if kind == SPACE and after < len(content) and last > begin:
        return last
    return after


@jit()
def contraction(content: Array, begin: Integer) -> Integer:
    """Returns how many bytes a contraction has that begins at a place, as 's or 'll; or 0."""
    if content[begin] != APOSTROPHE or begin + 1 == len(content):
        return 0
    first = content[begin + 1]
    if first in (S, T, M, D):
        return 2
    second = content[begin + 2] if begin + 2 < len(content) else 0
    if (first in (R, V) and second == E) or (first == L and second == L):
        return 3
    return 0


@jit()
def character(content: Array, begin: Integer, classes: Array) -> tuple[Integer, Integer]:
    """Returns what the character at a place is, and where the next one begins."""
    first = np.int64(content[begin])
    if first < 0x80:
        return classes[first], begin + 1
    size = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
    point = first & (0x7F >> size)
    for place in range(begin + 1, begin + size):
        point = (point << 6) | (np.int64(content[place]) & 0x3F)
    return classes[point], begin + size
