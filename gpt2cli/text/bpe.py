"""The tokens of words: merged when first seen, remembered, and looked up in bulk."""

from __future__ import annotations

import heapq
import itertools
import re
import struct

import regex

# How GPT-2 cuts text into words (openai/gpt-2, src/encoder.py): a merge never crosses a cut.
WORDS = regex.compile(r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
# `re` sees white space wherever `regex` does.
SPACES = re.compile(r"\s\s+")
# Stands for a space that is not alone; half a surrogate pair, it is in no text that has tokens.
HELD = "\ud800"
# What is remembered takes about 200 bytes an entry; beyond this a merge is done again.
REMEMBERED_WORDS = 1 << 18
REMEMBERED_PARTS = 1 << 17
LONGEST_REMEMBERED = 40

Pairs = dict[tuple[int, int], tuple[int, int]]


class Words(dict[str, bytes]):
    """The tokens of each word that was asked for, packed; a word is merged when first seen.

    Attributes:
        pairs: rank and joined token of each pair of tokens that may be joined.
        byte_tokens: the token of each byte.
        code: struct's letter for a packed token, little-endian: 16 bits if they are enough.
        size: bytes of a packed token.
    """

    def __init__(self, pairs: Pairs, byte_tokens: list[int], vocab: int) -> None:
        super().__init__()
        self.pairs, self.byte_tokens = pairs, byte_tokens
        self.code = "H" if vocab <= 1 << 16 else "I"
        self.size = struct.calcsize("<" + self.code)

    def pack(self, tokens: list[int]) -> bytes:
        """Returns tokens as little-endian bytes."""
        return struct.pack(f"<{len(tokens)}{self.code}", *tokens)

    def unpack(self, packed: bytes) -> list[int]:
        """Returns the tokens that were packed."""
        return list(struct.unpack(f"<{len(packed) // self.size}{self.code}", packed))

    def encode(self, text: str) -> bytes:
        """Returns a text's tokens, packed, one word after the other."""
        return b"".join(map(self.__getitem__, WORDS.findall(text)))

    def __missing__(self, word: str) -> bytes:
        packed = self.merged(word.encode())
        if len(self) < REMEMBERED_WORDS:
            self[word] = packed
        return packed

    def merged(self, word: bytes) -> bytes:
        """Returns a word's tokens, packed, without remembering them."""
        return self.pack(merge([self.byte_tokens[byte] for byte in word], self.pairs))


class Parts(dict[str, bytes]):
    """The tokens of what stands between two single spaces, with the first of the two.

    No word spans the place before a space that follows none; so text can be cut there, which
    is several times faster than WORDS, and most parts have been seen before.
    """

    def __init__(self, words: Words) -> None:
        super().__init__()
        self._words = words

    def encode(self, text: str) -> bytes:
        """Returns a text's tokens, packed; the same as Words.encode does."""
        if HELD in text:
            return self._words.encode(text)
        held = SPACES.sub(lambda spaces: spaces[0].replace(" ", HELD), text)
        first, *others = held.split(" ")
        start = self._words.encode(first.replace(HELD, " "))
        return start + b"".join(map(self.__getitem__, others))

    def __missing__(self, part: str) -> bytes:
        packed = self._words.encode(" " + part.replace(HELD, " "))
        if len(part) <= LONGEST_REMEMBERED and len(self) < REMEMBERED_PARTS:
            self[part] = packed
        return packed


def merge(tokens: list[int], pairs: Pairs) -> list[int]:
    """Joins neighbours, the pair of lowest rank first and leftmost among equals, until none fits.

    A heap of the pairs that fit and links between neighbours keep a word of n bytes at n log n.
    Takes a word's bytes as tokens, and uses them up.
    """
    following = [*range(1, len(tokens)), -1]
    previous = list(range(-1, len(tokens) - 1))
    heap = [
        (pairs[pair][0], at, *pair)
        for at, pair in enumerate(itertools.pairwise(tokens))
        if pair in pairs
    ]
    heapq.heapify(heap)
    while heap:
        _, at, left, right = heapq.heappop(heap)
        after = following[at]
        # An entry is stale when one of its two tokens has been joined to another since.
        if tokens[at] != left or after < 0 or tokens[after] != right:
            continue
        tokens[at], tokens[after] = pairs[left, right][1], -1
        following[at] = following[after]
        if following[at] >= 0:
            previous[following[at]] = at
        for start in (previous[at], at):
            if start >= 0 and following[start] >= 0:
                pair = tokens[start], tokens[following[start]]
                if pair in pairs:
                    heapq.heappush(heap, (pairs[pair][0], start, *pair))
    return [token for token in tokens if token >= 0]
