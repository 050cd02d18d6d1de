"""Our safetensors against the library's, both ways; and files that are none."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2cli.errors import BadDataError, MissingInputError
from gpt2cli.storage import safetensors

ARRAYS = {
    "b": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.array([-1.5, math.pi, 1e-3], np.float32),
    "none": np.zeros((0, 4), np.float32),
}
SHAPES = {name: array.shape for name, array in ARRAYS.items()}


def read(path: Path) -> dict[str, Any]:
    entries = safetensors.read_header(path)
    return {name: safetensors.read_tensor(entry) for name, entry in entries.items()}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_library_reads_what_we_write(dtype: str, tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors", reason="needs the extra `interop`")
    path = tmp_path / "ours"
    safetensors.write(path, SHAPES, dtype, ARRAYS.values())
    with library.safe_open(path, "np") as opened:
        assert opened.metadata() == {"format": "pt"}
        for name, array in ARRAYS.items():
            found = opened.get_tensor(name)
            assert found.dtype == dtype
            np.testing.assert_array_equal(found, array.astype(dtype))


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_we_read_what_the_library_writes(dtype: str, tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy", reason="needs the extra `interop`")
    path = tmp_path / "theirs"
    library.save_file({name: array.astype(dtype) for name, array in ARRAYS.items()}, path)
    found = read(path)
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], array.astype(dtype).astype(np.float32))


def test_bfloat16_is_widened(tmp_path: Path, tensorflow: None) -> None:
    import tensorflow as tf

    halves = tf.constant([1.0, -math.pi, 1e30, 3e-39], tf.bfloat16)
    data = halves.numpy().tobytes()
    text = json.dumps({"x": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}}).encode()
    (tmp_path / "half").write_bytes(len(text).to_bytes(8, "little") + text + data)
    wanted = tf.cast(halves, tf.float32).numpy()
    np.testing.assert_array_equal(read(tmp_path / "half")["x"], wanted)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be read as safetensors"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        ((9).to_bytes(8, "little") + b'{"x": 1}\n', "cannot be read as safetensors"),
        ((4).to_bytes(8, "little") + b"[{}]", "JSON array, not object"),
        ((90).to_bytes(8, "little") + b'{"x": ', "is cut"),
    ],
)
def test_what_is_no_safetensors_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(BadDataError, match=reason):
        safetensors.read_header(tmp_path / "x")


def test_a_file_that_was_cut_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    safetensors.write(path, SHAPES, "float32", ARRAYS.values())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadDataError, match="is cut"):
        safetensors.read_header(path)
    with pytest.raises(MissingInputError, match="nothing is missing"):
        safetensors.read_header(tmp_path / "nothing")


def headed(path: Path, facts: dict[str, Any], data: bytes = bytes(24)) -> Path:
    text = json.dumps(facts).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def tensor(dtype: Any = "F32", shape: Any = (2, 3), offsets: Any = (0, 24)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"x": tensor(offsets=[0, 20])}, "x has 20 bytes, and its type and shape 24"),
        ({"x": tensor(dtype="BF16")}, "x has 24 bytes, and its type and shape 12"),
        ({"x": tensor(shape=[2.0, 3])}, "does not say of x"),
        ({"x": tensor(shape=[-2, -3])}, "does not say of x"),
        ({"x": tensor(shape=[True] * 6)}, "does not say of x"),
        ({"x": tensor(shape=[1] * 1000)}, "does not say of x"),
        ({"x": tensor(offsets=[0.0, 24.0])}, "does not say of x"),
        ({"x": tensor(offsets=[-24, 0])}, "does not say of x"),
        ({"x": tensor(offsets=[24, 0])}, "does not say of x"),
        ({"x": tensor(offsets=[0, 1e400])}, "not a JSON number"),
        ({"x": tensor(shape=[2**62, 2**62])}, "does not say of x"),
        ({"x": tensor(), "y": tensor(offsets=[12, 36])}, "y overlaps the tensor before it"),
        ({"x": tensor(), "y": tensor()}, "overlaps the tensor before it"),
        ({"x": tensor(offsets=[8, 32])}, "x leaves a hole before it"),
        ({"x": 3}, "does not say of x"),
        ({"\x1b[31m" * 1000: 3}, "does not say of"),
    ],
)
def test_sizes_are_held_against_type_and_shape(
    facts: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    path = headed(tmp_path / "x", facts, bytes(64))
    with pytest.raises(BadDataError, match=reason) as caught:
        safetensors.read_header(path)
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


def test_a_deep_header_is_refused(tmp_path: Path) -> None:
    text = b'{"x": ' + b"[" * 100_000
    (tmp_path / "x").write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(BadDataError, match="nests too deep"):
        safetensors.read_header(tmp_path / "x")


def test_a_header_is_read_only_if_the_file_holds_it(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes((9_000_000).to_bytes(8, "little") + b"{}")
    with pytest.raises(BadDataError, match="is cut: 10 bytes, and 9,000,008 are needed"):
        safetensors.read_header(tmp_path / "x")
    (tmp_path / "x").write_bytes((2**63).to_bytes(8, "little") + b"{}" * 20)
    with pytest.raises(BadDataError, match="has no header"):
        safetensors.read_header(tmp_path / "x")
