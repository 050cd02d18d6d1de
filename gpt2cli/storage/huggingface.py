"""Hugging Face's names for what OpenAI's checkpoints hold."""

from __future__ import annotations

import re

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
VOCABULARY = "vocab.json"
MERGES = "merges.txt"
# transformers writes names with this prefix; openai-community/gpt2 has them without.
PREFIX = "transformer."
LEAVES = {"w": "weight", "g": "weight", "b": "bias"}


def tensor_name(name: str) -> str:
    """Returns what a weight is called: `model/h0/ln_1/g` is `transformer.h.0.ln_1.weight`."""
    *path, leaf = name.removeprefix("model/").split("/")
    dotted = ".".join([*path, LEAVES.get(leaf, f"{leaf}.weight")])
    return PREFIX + re.sub(r"^h(\d+)", r"h.\1", dotted)


def tensor_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns a weight's shape there: OpenAI's leading 1 of a convolution is left out."""
    return shape[1:] if shape[0] == 1 and len(shape) == 3 else shape
