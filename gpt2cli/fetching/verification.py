"""What is wrong with a file of a model, judged by its pin or else by what it must hold."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict
from pathlib import Path

from gpt2cli import json_reader
from gpt2cli.errors import BadDataError, MissingInputError, shortened
from gpt2cli.fetching.manifest import Model, ModelFile
from gpt2cli.files import paths
from gpt2cli.storage import bundle
from gpt2cli.storage.bundle_reader import Reader

MISSING = "is missing"
# What the files of a checkpoint begin with.
PREFIX = "model.ckpt"
HEAD_BYTES = 512
# Up to this size (bytes) hashing costs nothing that anybody notices.
SMALL_BYTES = 2_000_000
PAGES = {
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    b"<head": "a web page",
    b"<body": "a web page",
    b"<?xml": "an XML document",
    b"<error": "an XML document",
    b"version https://git-lfs": "a Git LFS pointer",
}


def page_like(head: bytes) -> str:
    """Returns what a file is by its first bytes, if no file of a model begins so; else ``""``."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((kind for sign, kind in PAGES.items() if text.startswith(sign)), "")


def quick_fault(model: Model, file: ModelFile, path: Path) -> str:
    """Returns what is wrong with a file as far as its size and first bytes tell; else ``""``."""
    if not path.is_file():
        return "is not a file" if path.exists() else MISSING
    with path.open("rb") as opened:
        kind = page_like(opened.read(HEAD_BYTES))
    if kind:
        return f"is {kind}"
    size = path.stat().st_size
    if file.sizes and size not in file.sizes:
        wanted = " or ".join(f"{size:,}" for size in file.sizes[:3])
        return f"has {size:,} bytes in place of {wanted}"
    return "" if file.hashes else content_fault(model, file, path)


def hash_fault(file: ModelFile, digest: str) -> str:
    """Returns how a hash differs from the known one; ``""`` if it does not, or none is known."""
    if not file.hashes or digest in file.hashes:
        return ""
    witness = "" if file.sure == "A" else " (known from a single public record)"
    wanted = " or ".join(file.hashes[:2])
    kind = "Git hash" if file.is_blob else "SHA-256"
    return f"has the {kind} {digest} in place of {wanted}{witness}"


def content_fault(model: Model, file: ModelFile, path: Path, *, thorough: bool = False) -> str:
    """Returns what is wrong with what a file without a pin holds; ``""`` if nothing is seen.

    Its index is beside a checkpoint's data. If `thorough`, the checksums of all tensors count too.
    """
    hparams = model.hparams
    if hparams is None:
        return ""
    try:
        if file.name == paths.HPARAMS:
            told: dict[str, object] = json_reader.read(path, most=SMALL_BYTES)
            same = told == asdict(hparams)
            return "" if same else f"does not hold {json.dumps(asdict(hparams))}"
        if file.name.endswith(".index"):
            entries, _ = bundle.read_index(path.with_suffix(""))
            found = {name: entry.shape for name, entry in entries.items()}
            wrong = [n for n, shape in hparams.shapes().items() if found.get(n) != shape]
            return f"is not of {model.name}: {wrong[0]} is {found.get(wrong[0])}" if wrong else ""
        if file.name.endswith(".meta"):
            return "" if whole_message(path.read_bytes()) else "is cut or no graph"
        if thorough and file.name == paths.data_file(Path(PREFIX)).name:
            for _ in Reader(path.with_name(PREFIX)).tensors(hparams.shapes()):
                pass
    except (ValueError, BadDataError, MissingInputError) as error:
        return f"{'is damaged' if thorough else 'cannot be read'}: {shortened(error, 240)}"
    return ""


def whole_message(content: bytes) -> bool:
    """Returns whether a protocol buffer message ends where its last field does."""
    at = 0
    with contextlib.suppress(IndexError):
        while at < len(content):
            tag, at = bundle.varint(content, at)
            if tag & 7 not in (0, 2):
                return False
            number, at = bundle.varint(content, at)
            at += number if tag & 7 == 2 else 0
        return 0 < at == len(content)
    return False
