"""The pieces that tokens stand for, as a person can read them."""

from __future__ import annotations

import ast

import pytest

from gpt2cli.text.tokenizer import Tokenizer, quoted_piece, whole_text


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b" cat", '" cat"'),
        (b"\n\t\r\x00\x7f", r'"\n\t\r\x00\x7f"'),
        (b'"\\', r'"\"\\"'),
        ("é日🎉".encode(), '"é日🎉"'),
        (b"\xe2\x82", r'"\xe2\x82"'),
        (b"a\xa9b", r'"a\xa9b"'),
        ("\u00a0\u200b\u0085\u3000\U000e0001".encode(), r'"\u00a0\u200b\u0085\u3000\U000e0001"'),
        (b"\x1b[31m", r'"\x1b[31m"'),
        (b"", '""'),
    ],
)
def test_a_piece_is_shown_on_one_line(content: bytes, shown: str) -> None:
    assert quoted_piece(content) == shown


def test_every_token_of_the_real_vocabulary_is_shown_and_can_be_told_apart(
    tokenizer: Tokenizer,
) -> None:
    pieces = [tokenizer.decode_bytes([number]) for number in range(tokenizer.vocab)]
    shown = [quoted_piece(piece) for piece in pieces]
    assert all(line.isprintable() for line in shown)
    assert len(set(shown)) == len(set(pieces)) == tokenizer.vocab
    for piece, line in zip(pieces, shown, strict=True):
        # Python reads the same notation.
        if (text := whole_text(piece)) is not None:
            assert ast.literal_eval(line) == text
        elif line.isascii():
            assert ast.literal_eval(f"b{line}") == piece
