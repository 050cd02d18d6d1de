"""Markers that a model has no token for are told, where it was not trained on them either."""

from __future__ import annotations

import numpy as np

from gpt2cli.text import markers
from gpt2cli.text.tokenizer import Tokenizer

START = "<|startoftext|>"


def test_a_marker_that_is_no_token_is_told_once(tokenizer: Tokenizer) -> None:
    (told,) = markers.remarks([f"{START}Once", START, "plain <|endoftext|>"], tokenizer)
    count = len(tokenizer.encode(START))
    assert told.startswith(f"{START} is not a token of this model, but {count} of plain text.")
    assert list(markers.remarks(["plain", "<|endoftext|>", "a <| b |>"], tokenizer)) == []
    assert len(list(markers.remarks([f"{START}<|im_start|>"], tokenizer))) == 2


def test_a_marker_that_the_corpus_has_is_not_told(tokenizer: Tokenizer) -> None:
    corpus = np.array(tokenizer.encode(f"Some text.\n{START}Once upon a time"), np.uint16)
    assert list(markers.remarks([START], tokenizer, corpus)) == []
    assert len(list(markers.remarks([START], tokenizer, corpus[:4]))) == 1
