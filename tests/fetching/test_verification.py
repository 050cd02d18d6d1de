"""What is wrong with a file of a model, seen by its size, its first bytes, hash and content."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from gpt2cli.fetching import manifest, verification
from gpt2cli.fetching.manifest import ModelFile

MEDIUM = manifest.find_model("124M")
LARGE = manifest.find_model("774M")
HPARAMS_124M = (
    '{\n  "n_vocab": 50257,\n  "n_ctx": 1024,\n  "n_embd": 768,\n  "n_head": 12,\n'
    '  "n_layer": 12\n}\n'
)


def file_of(model: manifest.Model, name: str) -> ModelFile:
    return next(file for file in model.files if file.name == name)


@pytest.mark.parametrize("content", [HPARAMS_124M, HPARAMS_124M.rstrip("\n")])
def test_both_known_forms_of_the_smallest_models_hparams_are_good(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / "hparams.json"
    path.write_text(content, encoding="utf-8")
    file = file_of(MEDIUM, "hparams.json")
    assert verification.quick_fault(MEDIUM, file, path) == ""
    assert verification.hash_fault(file, hashlib.sha256(path.read_bytes()).hexdigest()) == ""


def test_a_wrong_hash_is_told_with_both_hashes() -> None:
    fault = verification.hash_fault(file_of(MEDIUM, "vocab.bpe"), "0" * 64)
    assert "0" * 64 in fault
    assert "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5" in fault


def test_a_pin_with_a_single_witness_is_told_as_such() -> None:
    data = file_of(manifest.find_model("355M"), "model.ckpt.data-00000-of-00001")
    assert "single public record" in verification.hash_fault(data, "0" * 64)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"<!DOCTYPE html><title>x", "a web page"),
        (b"\xef\xbb\xbf\r\n<HTML lang=en>", "a web page"),
        (b'<?xml version="1.0"?><Error>', "an XML document"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"#version: 0.2\n", ""),
        (b'{"n_vocab": 50257}', ""),
        (b"", ""),
    ],
)
def test_pages_and_pointers_are_told_by_their_first_bytes(head: bytes, kind: str) -> None:
    assert verification.page_like(head) == kind


def test_a_folder_in_a_files_place_is_not_a_file(tmp_path: Path) -> None:
    assert verification.quick_fault(MEDIUM, MEDIUM.files[0], tmp_path) == "is not a file"


def test_unpinned_hparams_are_judged_by_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "hparams.json"
    file = file_of(LARGE, "hparams.json")
    numbers = {"n_vocab": 50257, "n_ctx": 1024, "n_embd": 1280, "n_head": 20, "n_layer": 36}
    path.write_text(json.dumps(numbers, indent=4), encoding="utf-8")
    assert verification.quick_fault(LARGE, file, path) == ""
    path.write_text(json.dumps({**numbers, "n_head": 16}), encoding="utf-8")
    assert "does not hold" in verification.quick_fault(LARGE, file, path)
    path.write_text("{", encoding="utf-8")
    assert "cannot be read" in verification.quick_fault(LARGE, file, path)


def test_an_unpinned_index_that_is_cut_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt.index"
    path.write_bytes(bytes(1000))
    fault = verification.quick_fault(LARGE, file_of(LARGE, "model.ckpt.index"), path)
    assert "not the index of a TensorFlow checkpoint" in fault


def test_an_unpinned_graph_that_is_cut_is_seen() -> None:
    # Two fields of a protocol buffer message: a number, and three bytes.
    whole = b"\x08\x96\x01\x12\x03abc"
    assert verification.whole_message(whole)
    assert not any(verification.whole_message(whole[:n]) for n in (0, 1, 2, 4, 5, 6, 7))
