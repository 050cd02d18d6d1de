"""The files of a vocabulary: OpenAI's two, and Hugging Face's tokenizer.json read as them."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

TOKENIZER = "tokenizer.json"
ADDED = "added_tokens.json"
VERSION_LINE = "#version: 0.2"


@functools.cache
def byte_symbols() -> dict[int, str]:
    """Returns the character that stands for each byte in encoder.json and vocab.bpe.

    Printable bytes of Latin-1 stand for themselves; the others are counted up from U+0100
    (openai/gpt-2, src/encoder.py).
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in sorted(printable)} | {
        byte: chr(0x100 + index) for index, byte in enumerate(others)
    }


def read_vocabulary(encoder: Path, merges: Path) -> tuple[bytes, bytes]:
    """Returns the content of an encoder.json and of a vocab.bpe.

    A tokenizer.json, given in the place of both, is converted; so are the tokens that a
    vocab.json has beside it in an added_tokens.json.

    Raises:
        OSError: a file is missing, or cannot be read.
        ValueError: a file is not JSON, or no byte-level BPE.
    """
    if encoder.name == TOKENIZER:
        return converted(json.loads(encoder.read_bytes()))
    content, added = encoder.read_bytes(), encoder.with_name(ADDED)
    if added.exists():
        content = with_added(json.loads(content), json.loads(added.read_bytes()))
    return content, merges.read_bytes()


def converted(tokenizer: Any) -> tuple[bytes, bytes]:
    """Returns the two files that a tokenizer.json stands for.

    Raises:
        ValueError: it is no byte-level BPE.
    """
    try:
        model = tokenizer["model"]
        if model["type"] != "BPE":
            raise ValueError(f"its model is {model['type']}, not BPE")
        added = {token["content"]: token["id"] for token in tokenizer.get("added_tokens", ())}
        pairs = [p if isinstance(p, str) else " ".join(p) for p in model["merges"]]
        lines = "\n".join([VERSION_LINE, *pairs, ""])
        return with_added(model["vocab"], added), lines.encode()
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it is no tokenizer of GPT-2's kind: {error!r}") from error


def with_added(tokens: dict[str, int], added: dict[str, int]) -> bytes:
    """Returns an encoder.json of tokens, and of added ones that are not written in symbols yet."""
    symbols = byte_symbols()
    known = set(tokens.values())
    whole = dict(tokens)
    for text, number in added.items():
        if number not in known:
            whole["".join(symbols[byte] for byte in text.encode())] = number
    return json.dumps(dict(sorted(whole.items(), key=lambda item: item[1]))).encode()
