"""Writes small Hugging Face folders, as other programs leave them; TensorFlow is not needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gpt2cli.hparams import HParams
from gpt2cli.special_tokens import END_OF_TEXT
from gpt2cli.storage import huggingface, safetensors
from gpt2cli.vocabulary import byte_symbols
from tests import models

START = "<|startoftext|>"
MERGES = [("t", "h"), ("th", "e")]
PIECES = [*byte_symbols().values(), "th", "the"]
# 256 bytes, two merges, and the end of a text.
TOKENS = {token: number for number, token in enumerate([*PIECES, END_OF_TEXT])}
END = len(PIECES)
CUTTER = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def shape(rows: int = len(TOKENS)) -> HParams:
    return HParams(n_vocab=rows, n_ctx=16, n_embd=8, n_head=2, n_layer=1)


def config(rows: int = len(TOKENS)) -> dict[str, Any]:
    return {
        "model_type": "gpt2", "vocab_size": rows, "n_positions": 16, "n_embd": 8, "n_head": 2,
        "n_layer": 1, "bos_token_id": END, "eos_token_id": END,
    }  # fmt: skip


def arrays(rows: int = len(TOKENS), prefix: str = "transformer.") -> dict[str, Any]:
    """Returns random weights by transformers' names."""
    named = {}
    for name, array in models.random_arrays(shape(rows)).items():
        whole = huggingface.tensor_name(name)
        named[prefix + whole.removeprefix(huggingface.PREFIX)] = array.reshape(
            huggingface.tensor_shape(array.shape)
        )
    return named


def write_weights(path: Path, named: dict[str, Any], dtype: str = "float32") -> None:
    shapes = {name: array.shape for name, array in named.items()}
    safetensors.write(path, shapes, dtype, named.values())


def added(number: int, content: str, **flags: bool) -> dict[str, Any]:
    """Returns an added token as tokenizer.json lists it."""
    plain = dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized"), False)
    return {"id": number, "content": content, **plain, "special": True, **flags}


def tokenizer_json(*more: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """Returns a tokenizer.json with more added tokens than the end of a text."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added(END, END_OF_TEXT), *more],
        "normalizer": None,
        "pre_tokenizer": CUTTER,
        "post_processor": None,
        "decoder": CUTTER,
        "model": {"type": "BPE", "vocab": TOKENS, "merges": [list(pair) for pair in MERGES]},
    } | changed


def write(
    folder: Path,
    rows: int = len(TOKENS),
    *,
    vocab: dict[str, int] | None = None,
    header: bool = True,
    weights: bool = True,
    **files: Any,
) -> Path:
    """Writes a model folder.

    Args:
        folder: where to.
        rows: how many tokens the model knows.
        vocab: the content of vocab.json.
        header: whether merges.txt begins with `#version`.
        weights: whether there are any.
        files: content of JSON files by their names without `.json`; with a `tokenizer` there is
            no vocab.json. A `config` is laid over the usual one; what is None in it is left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = config(rows) | files.pop("config", {})
    files["config"] = {key: value for key, value in settings.items() if value is not None}
    if "tokenizer" not in files:
        files["vocab"] = vocab or TOKENS
        lines = ["#version: 0.2"] if header else []
        merges = "\n".join([*lines, *map(" ".join, MERGES), ""])
        (folder / "merges.txt").write_text(merges, encoding="utf-8")
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    if weights:
        write_weights(folder / "model.safetensors", arrays(rows))
    return folder
