"""Hugging Face's tokenizer.json against OpenAI's two files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpt2cli import vocabulary
from gpt2cli.errors import BadDataError
from gpt2cli.text.tokenizer import read_tokenizer
from tests import models

END = {"id": 50256, "content": "<|endoftext|>"}


def whole(*added: dict[str, Any]) -> dict[str, Any]:
    """Returns a tokenizer.json with the real vocabulary."""
    tokens = json.loads((models.REAL_VOCABULARY / "encoder.json").read_bytes())
    lines = (models.REAL_VOCABULARY / "vocab.bpe").read_text(encoding="utf-8").splitlines()
    model = {"type": "BPE", "vocab": tokens, "merges": lines[1:]}
    return {"model": model, "added_tokens": [END, *added]}


@pytest.mark.parametrize("as_pairs", [True, False])
def test_openais_files_come_out_byte_by_byte(as_pairs: bool, tmp_path: Path) -> None:
    content = whole()
    if as_pairs:
        content["model"]["merges"] = [line.split() for line in content["model"]["merges"]]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    found = vocabulary.read(path, path)
    assert found.encoder == (models.REAL_VOCABULARY / "encoder.json").read_bytes()
    assert found.merges == (models.REAL_VOCABULARY / "vocab.bpe").read_bytes()


def test_tokens_that_were_added_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(whole({"id": 50257, "content": "[PAD] é"})))
    tokenizer = read_tokenizer(path, path)
    assert tokenizer.vocab == 50258
    assert tokenizer.decode([50256, 50257]) == "<|endoftext|>[PAD] é"
    # A row of the embedding that has no token stands for nothing.
    assert tokenizer.decode([50257, 60000]) == "[PAD] é"


def test_added_tokens_beside_a_vocabulary_are_read(tmp_path: Path) -> None:
    tokens, _ = models.byte_vocabulary(257)
    (tmp_path / "vocab.json").write_text(json.dumps(tokens))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    (tmp_path / "added_tokens.json").write_text('{"[PAD]": 257}')
    tokenizer = read_tokenizer(tmp_path / "vocab.json", tmp_path / "merges.txt")
    assert tokenizer.decode([257, 256]) == "[PAD]<|endoftext|>"


@pytest.mark.parametrize(
    "content", [{}, {"model": {"type": "WordPiece"}}, {"model": {"type": "BPE"}}, [], "x"]
)
def test_another_kind_of_tokenizer_is_refused(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    with pytest.raises(BadDataError, match=r"tokenizer\.json"):
        read_tokenizer(path, path)
