"""A small model to fetch: files of arbitrary bytes, and the pins that know them."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

HPARAMS = {"n_vocab": 10, "n_ctx": 4, "n_embd": 4, "n_head": 2, "n_layer": 1}
DATA = "model.ckpt.data-00000-of-00001"
DATA_BYTES = 3_000_000


def small_files() -> dict[str, bytes]:
    """Returns the seven files of a model; big enough that a transfer can be stopped half-way."""
    noise = random.Random(1)
    return {
        "hparams.json": json.dumps(HPARAMS).encode(),
        "encoder.json": json.dumps({f"token{n}": n for n in range(500)}).encode(),
        "vocab.bpe": b"#version: 0.2\na b\n",
        "model.ckpt.index": noise.randbytes(600),
        "model.ckpt.meta": noise.randbytes(5_000),
        DATA: noise.randbytes(DATA_BYTES),
        "checkpoint": b'model_checkpoint_path: "model.ckpt"\n',
    }


def write_pins(
    path: Path, files: dict[str, bytes], *, hosts: list[str], unpinned: tuple[str, ...] = ()
) -> Path:
    """Writes pins of the model `small` with these files; returns where."""
    facts = {
        name: {
            "size": None if name in unpinned else len(content),
            "sha256": None if name in unpinned else hashlib.sha256(content).hexdigest(),
        }
        for name, content in files.items()
    }
    entry = {"hparams": HPARAMS, "files": facts}
    known = {"hosts": [{"url": host} for host in hosts], "models": {"small": entry}}
    path.write_text(json.dumps(known), encoding="utf-8")
    return path


def served(files: dict[str, bytes]) -> dict[str, bytes]:
    """Returns the files by the path that a host has them under."""
    return {f"small/{name}": content for name, content in files.items()}


def wrong_files(folder: Path, files: dict[str, bytes]) -> list[str]:
    """Returns the names under which something else lies than what belongs there."""
    return [
        name
        for name, content in files.items()
        if (folder / name).exists() and (folder / name).read_bytes() != content
    ]


def is_complete(folder: Path, files: dict[str, bytes]) -> bool:
    """Returns whether the folder holds exactly the model's files."""
    names = {path.name for path in folder.iterdir()}
    return names == set(files) and not wrong_files(folder, files)
