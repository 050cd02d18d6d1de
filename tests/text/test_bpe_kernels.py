"""Words by compiled loops against bpe.py, which tiktoken judges."""

from __future__ import annotations

import itertools
import random
import sys

import pytest

from gpt2cli.text import bpe_kernels
from gpt2cli.text.bpe import Words
from gpt2cli.text.tokenizer import Tokenizer

CHOICE = random.Random(0)
LETTERS = ["a", "é", "ß", "Ж", "中", "\U00020000", "'", "s", "t", "re", "ll", "d", "v", "e"]
OTHERS = [
    "1",
    "٣",
    "½",
    " ",
    "  ",
    "\n",
    "\t",
    "\u3000",
    "\x85",
    "\x1c",
    ".",
    "!",
    "_",
    "😀",
    "\u0301",
]


@pytest.fixture(scope="module")
def words(tokenizer: Tokenizer) -> Words:
    return tokenizer._words


def test_all_short_texts_of_few_characters_are_cut_alike(words: Words) -> None:
    native = bpe_kernels.NativeWords(words)
    for size in range(5):
        for some in itertools.product(["a", "'", "s", "1", " ", "\n", ".", "é"], repeat=size):
            text = "".join(some)
            assert native.encode(text) == words.encode(text), repr(text)


def test_random_texts_are_encoded_alike(words: Words) -> None:
    native = bpe_kernels.NativeWords(words)
    for size in (1, 3, 10, 100, 1000) * 40:
        text = "".join(CHOICE.choices(LETTERS + OTHERS, k=size))
        assert native.encode(text) == words.encode(text), repr(text)
        points = (CHOICE.randrange(sys.maxunicode) for _ in range(size))
        text = "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)
        assert native.encode(text) == words.encode(text), repr(text)


def test_words_of_any_length_are_merged_alike(words: Words) -> None:
    native, longest = bpe_kernels.NativeWords(words), bpe_kernels.LONGEST
    for size in (*range(1, 40), longest - 1, longest, longest + 1, 3 * longest):
        for letters in ("a", "ab", "the", "é"):
            word = (letters * size)[:size]
            for text in (word, f"x {word} y", f"{word}\n{word}"):
                assert native.encode(text) == words.encode(text)


def test_vocabularies_of_any_size_are_served() -> None:
    text = "It's 10 o'clock,\n\n  and all is well. " * 3
    for size in (257, 260, 400):
        own = Words(*small(size))
        assert bpe_kernels.NativeWords(own).encode(text) == own.encode(text)
    wide = Words(own.pairs, own.byte_tokens, 1 << 17)
    found = bpe_kernels.NativeWords(wide).encode(text)
    assert found == wide.encode(text)
    assert len(found) == 2 * len(own.encode(text))


def small(size: int) -> tuple[dict[tuple[int, int], tuple[int, int]], list[int], int]:
    """Returns pairs that join bytes of English at random, the bytes' tokens, and the size."""
    pairs: dict[tuple[int, int], tuple[int, int]] = {}
    tokens = list(b"It's 10 o'clock, and all is well.")
    for token in range(256, size):
        pair = CHOICE.choice(tokens), CHOICE.choice(tokens)
        if pair not in pairs:
            pairs[pair] = len(pairs), token
            tokens.append(token)
    return pairs, list(range(256)), size
