"""Whatever a model's files hold, only our own errors come out of their readers, and fast."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2cli.hparams import read_hparams
from gpt2cli.special_tokens import END_OF_TEXT
from gpt2cli.storage import bundle, bundle_reader, bundle_writer, crc32c, huggingface, safetensors
from gpt2cli.storage.state import FORMAT, State, digest, read_state
from gpt2cli.text.tokenizer import read_tokenizer
from tests import foreign_models, models
from tests.foreign_models import START, TOKENS
from tests.fuzz.bounds import cases, refusals
from tests.fuzz.mutations import JUNK, damaged, mutated

pytestmark = pytest.mark.fuzz

SHAPE = foreign_models.shape()
# Few enough for a case to take a millisecond.
SMALL = {
    "version": "1.0", "normalizer": None, "pre_tokenizer": foreign_models.CUTTER,
    "post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A"}}]},
    "decoder": foreign_models.CUTTER,
    "added_tokens": [foreign_models.added(258, END_OF_TEXT), foreign_models.added(259, START)],
    "model": {"type": "BPE", "dropout": None, "vocab": TOKENS, "merges": ["t h", ["th", "e"]]},
}  # fmt: skip
SETTINGS = {
    "added_tokens_decoder": {"258": foreign_models.added(258, END_OF_TEXT)},
    "eos_token": END_OF_TEXT, "bos_token": {"content": START}, "add_prefix_space": False,
    "additional_special_tokens": [START],
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign_models.write(tmp_path_factory.mktemp("fuzz") / "m")


def as_bytes(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def weights(folder: Path) -> Iterator[bytes]:
    yield (folder / "model.safetensors").read_bytes()


@cases(700)
@given(data=st.data())
def test_safetensors_with_a_damaged_header(
    data: st.DataObject, weights: bytes, folder: Path
) -> None:
    length = int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8 : 8 + length])
    text = as_bytes(data.draw(mutated(header)))
    path = folder / "fuzzed.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + weights[8 + length :])
    with refusals():
        huggingface.check(path, SHAPE)
        dict(huggingface.read_weights(path, SHAPE.shapes()))


@cases(500)
@given(data=st.data())
def test_safetensors_with_damaged_bytes(data: st.DataObject, weights: bytes, folder: Path) -> None:
    path = folder / "fuzzed.safetensors"
    path.write_bytes(data.draw(st.binary(max_size=60) | damaged(weights[:2000])) + weights[2000:])
    with refusals():
        entries = safetensors.read_header(path)
        huggingface.check(path, SHAPE)
        for entry in entries.values():
            safetensors.read_tensor(entry)


@cases(300)
@given(mutated({"metadata": {"total_size": 1}, "weight_map": {"wte.weight": "a.safetensors"}}))
def test_an_index_of_several_files(folder: Path, value: Any) -> None:
    path = folder / "model.safetensors.index.json"
    path.write_bytes(as_bytes(value))
    with refusals():
        huggingface.check(path, SHAPE)


@cases(400)
@given(mutated(foreign_models.config() | {"tie_word_embeddings": True, "n_inner": None}))
def test_a_config(folder: Path, value: Any) -> None:
    place = folder / "configured"
    place.mkdir(exist_ok=True)
    (place / "config.json").write_bytes(as_bytes(value))
    with refusals():
        huggingface.hparams(place).count()


@cases(400)
@given(mutated(dataclasses.asdict(models.SMALL)) | JUNK)
def test_hparams(folder: Path, value: Any) -> None:
    path = folder / "hparams-fuzzed.json"
    path.write_bytes(as_bytes(value))
    with refusals():
        read_hparams(path).count()


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign_models.write(tmp_path_factory.mktemp("fuzz") / "words", 260, weights=False)


FILES: dict[str, Any] = {
    "tokenizer.json": SMALL,
    "tokenizer_config.json": SETTINGS,
    "vocab.json": TOKENS,
    "added_tokens.json": {START: 259},
    "special_tokens_map.json": {"eos_token": END_OF_TEXT, "pad_token": {"content": START}},
    "generation_config.json": {"eos_token_id": [258, 259]},
}


@pytest.mark.parametrize("name", FILES)
@cases(250)
@given(data=st.data())
def test_a_file_of_a_vocabulary(name: str, data: st.DataObject, words: Path) -> None:
    path = words / name
    before = path.read_bytes() if path.exists() else None
    path.write_bytes(as_bytes(data.draw(mutated(FILES[name]) | JUNK)))
    try:
        with refusals():
            tokenizer = read_tokenizer(*huggingface.vocabulary_files(words), 260)
            tokens = tokenizer.encode(f"the {START}other{END_OF_TEXT}", special=True)
            assert all(0 <= token < tokenizer.vocab for token in tokens)
            tokenizer.decode(tokens)
    finally:
        path.unlink() if before is None else path.write_bytes(before)


@cases(300)
@given(damaged(b"#version: 0.2\nt h\nth e\n") | st.binary(max_size=40))
def test_merges(words: Path, content: bytes) -> None:
    path = words / "fuzzed.txt"
    path.write_bytes(content)
    with refusals():
        read_tokenizer(words / "vocab.json", path).encode("the")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("fuzz") / "model"
    bundle_writer.write(prefix, models.random_arrays(models.MINI).items())
    return prefix


def examine(prefix: Path) -> None:
    """Reads all that an index says is there."""
    bundle.read_index(prefix)
    bundle.check_weights(prefix, models.MINI)
    reader = bundle_reader.Reader(prefix)
    for name in reader.entries:
        reader.tensor(name)


@cases(1500)
@given(data=st.data())
def test_the_bytes_of_a_checkpoints_index(data: st.DataObject, index: Path) -> None:
    path = index.with_name("model.index")
    good = path.read_bytes()
    path.write_bytes(data.draw(damaged(good) | st.binary(max_size=80)))
    try:
        with refusals():
            examine(index)
    finally:
        path.write_bytes(good)


@cases(1500)
@given(data=st.data())
def test_an_index_that_was_sealed_again(data: st.DataObject, index: Path) -> None:
    path = index.with_name("model.index")
    good = path.read_bytes()
    _, _, offset, size = bundle.varints(good[-48:], 4)
    start, length = bundle.varints(next(bundle.block_items(good, offset, size))[1], 2)
    block = bytearray(good[start : start + length])
    for _ in range(data.draw(st.integers(1, 3))):
        block[data.draw(st.integers(0, length - 1))] = data.draw(st.integers(0, 255))
    seal = struct.pack("<I", crc32c.masked(bytes(block) + b"\0"))
    path.write_bytes(good[:start] + block + b"\0" + seal + good[start + length + 5 :])
    try:
        with refusals():
            examine(index)
    finally:
        path.write_bytes(good)


STATE = State(step=5, seed=7, model_name="124M", best_loss=1.5, loss_sum=2.0, loss_weight=1.0)
RECORD = dataclasses.asdict(STATE) | {
    "format": FORMAT,
    "files": {"model-5.index": {"size": 5, "sha256": "0" * 64}},
    "static": {"hparams.json": {"size": 5, "sha256": "0" * 64}},
}


@cases(700)
@given(mutated(RECORD), st.booleans())
def test_a_state_file(folder: Path, value: Any, is_sealed: bool) -> None:
    if is_sealed and isinstance(value, dict):
        try:
            value = value | {"sha256": digest(value)}
        except UnicodeEncodeError:
            return
    (folder / "state-5.json").write_bytes(as_bytes(value))
    with refusals():
        state = read_state(folder, 5)
        # All that training computes with it.
        state.after(1.0, 1).validated(1.0, "x", due=True)
