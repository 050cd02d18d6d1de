"""The tokens of words, found by compiled loops."""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np
import regex

from gpt2cli.text import bpe_kernels
from gpt2cli.text.bpe import Words

# Runs of letters, of numbers and of white space, by the same library that cuts words elsewhere.
CLASSES = {
    bpe_kernels.LETTER: regex.compile(r"\p{L}+"),
    bpe_kernels.NUMBER: regex.compile(r"\p{N}+"),
    bpe_kernels.SPACE: regex.compile(r"\s+"),
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
        keys = np.full(places, bpe_kernels.EMPTY)
        ranks, joined = np.zeros((2, places), np.int32)
        bpe_kernels.fill(keys, ranks, joined, pairs)
        byte_tokens = np.array(words.byte_tokens, np.int32)
        self._tables = classes(), byte_tokens, keys, ranks, joined
        self._type = np.dtype("<u2" if words.size == 2 else "<u4")

    def encode(self, text: str) -> bytes:
        """Returns a text's tokens, packed; the same as Words.encode does."""
        content = np.frombuffer(bytearray(text.encode()), np.uint8)
        tokens = np.empty(len(content), np.int32)
        scratch = np.empty((2, bpe_kernels.LONGEST), np.int32)
        packed, begin = [], 0
        while begin < len(content):
            count, word, begin = bpe_kernels.encode(content, begin, self._tables, scratch, tokens)
            packed.append(tokens[:count].astype(self._type).tobytes())
            if word < begin:
                packed.append(self._words.merged(content[word:begin].tobytes()))
        return b"".join(packed)


@functools.cache
def classes() -> Any:
    """Returns what each character is, uint8 (characters,)."""
    # Half a surrogate pair is not a character, and the library is none the wiser.
    points = np.arange(sys.maxunicode + 1, dtype="<u4")
    everything = points.tobytes().decode("utf-32-le", errors="surrogatepass")
    found = np.full(len(points), bpe_kernels.OTHER, np.uint8)
    for kind, runs in CLASSES.items():
        for run in runs.finditer(everything):
            found[run.start() : run.end()] = kind
    return found
