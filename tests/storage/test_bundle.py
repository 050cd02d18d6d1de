"""Our reader of checkpoint indexes against TensorFlow's, and the checks built on it."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2cli.errors import BadDataError, MissingInputError
from gpt2cli.hparams import HParams
from gpt2cli.storage import bundle, bundle_writer, checkpoint
from tests import models


def test_the_index_says_what_tensorflow_says(small_model: Path) -> None:
    import tensorflow as tf

    prefix = small_model / "model.ckpt"
    entries, shards = bundle.read_index(prefix)
    assert shards == 1
    expected = dict(tf.train.list_variables(str(prefix)))
    assert {name: list(entry.shape) for name, entry in entries.items()} == expected
    data = np.fromfile(prefix.with_name("model.ckpt.data-00000-of-00001"), np.float32)
    for name, array in models.random_arrays(models.SMALL).items():
        start = entries[name].offset // 4
        np.testing.assert_array_equal(data[start : start + array.size], array.ravel())


def test_a_large_index_of_many_blocks_is_read(tmp_path: Path, tensorflow: None) -> None:
    deep = HParams(n_vocab=20, n_ctx=4, n_embd=4, n_head=2, n_layer=48)
    checkpoint.save(tmp_path / "model", models.random_arrays(deep))
    entries, _ = bundle.read_index(tmp_path / "model")
    assert {name: entry.shape for name, entry in entries.items()} == deep.shapes()


def test_types_of_every_float_are_told(tmp_path: Path, tensorflow: None) -> None:
    import tensorflow as tf

    kinds = ["float32", "float64", "float16", "bfloat16", "int32", "int64"]
    checkpoint.save(tmp_path / "model", {kind: tf.zeros([2, 3], kind) for kind in kinds})
    entries, _ = bundle.read_index(tmp_path / "model")
    assert {name: entry.dtype for name, entry in entries.items()} == {kind: kind for kind in kinds}
    assert {entry.shape for entry in entries.values()} == {(2, 3)}


def copy_model(source: Path, folder: Path) -> Path:
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder / "model.ckpt"


def test_a_whole_checkpoint_passes(small_model: Path) -> None:
    bundle.check_weights(small_model / "model.ckpt", models.SMALL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_layer": 4}, r"lacks the weight model/h3/ln_1/g"),
        ({"n_ctx": 64}, r"model/wpe is float32 \(32, 32\).*demands \(64, 32\)"),
        ({"n_vocab": 261}, r"model/wte is float32 \(260, 32\).*demands \(261, 32\)"),
    ],
)
def test_a_checkpoint_of_another_shape_is_refused(
    change: dict[str, int], message: str, small_model: Path
) -> None:
    with pytest.raises(BadDataError, match=message):
        bundle.check_weights(
            small_model / "model.ckpt", dataclasses.replace(models.SMALL, **change)
        )


def test_a_checkpoint_of_whole_numbers_is_refused(tmp_path: Path, tensorflow: None) -> None:
    arrays: dict[str, Any] = models.random_arrays(models.SMALL)
    arrays["model/ln_f/g"] = np.ones(32, np.int32)
    checkpoint.save(tmp_path / "model", arrays)
    with pytest.raises(BadDataError, match="model/ln_f/g is int32"):
        bundle.check_weights(tmp_path / "model", models.SMALL)


def test_other_tensors_in_a_checkpoint_do_not_matter(tmp_path: Path, tensorflow: None) -> None:
    arrays = models.random_arrays(models.SMALL)
    checkpoint.save(tmp_path / "model", arrays | {"model/wte/Adam": arrays["model/wte"]})
    bundle.check_weights(tmp_path / "model", models.SMALL)


def test_a_data_file_that_is_cut_or_missing_is_named(small_model: Path, tmp_path: Path) -> None:
    prefix = copy_model(small_model, tmp_path / "copy")
    data = prefix.with_name("model.ckpt.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(BadDataError, match="data-00000-of-00001 is cut"):
        bundle.check_weights(prefix, models.SMALL)
    data.unlink()
    with pytest.raises(MissingInputError, match="data-00000-of-00001 is missing"):
        bundle.check_weights(prefix, models.SMALL)


@pytest.mark.parametrize("content", [b"", b"<html>no such file</html>" * 10, bytes(500)])
def test_what_is_no_index_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.index").write_bytes(content)
    with pytest.raises(BadDataError, match=r"model\.index is damaged"):
        bundle.read_index(tmp_path / "model")


def test_an_index_cut_anywhere_is_refused(small_model: Path, tmp_path: Path) -> None:
    whole = (small_model / "model.ckpt.index").read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / "model.index").write_bytes(whole[:length])
        with pytest.raises(BadDataError):
            bundle.read_index(tmp_path / "model")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"


def test_a_pointer_of_git_lfs_is_called_one(small_model: Path, tmp_path: Path) -> None:
    prefix = copy_model(small_model, tmp_path / "copy")
    for name in ("model.ckpt.data-00000-of-00001", "model.ckpt.index"):
        prefix.with_name(name).write_bytes(POINTER)
        with pytest.raises(BadDataError, match=f"{name} is a Git LFS pointer"):
            bundle.check_weights(prefix, models.SMALL)


def described(size: int, length: int, number: int = 1, shard: int = 0) -> bytes:
    """Returns what an index says of a vector."""
    return bundle_writer.entry_message(number, [length], 0, size, 0) + bundle_writer.field(
        3, 0, shard
    )


@pytest.mark.parametrize(
    "value",
    [
        described(8, 3),
        described(4 << 60, 1 << 60),
        bundle_writer.field(2, 0, 5),
        bundle_writer.field(6, 0, 5),
        b"\x80" * 40 + b"\x01",
    ],
)
def test_an_entry_that_cannot_be_is_refused(value: bytes, tmp_path: Path) -> None:
    header = bundle_writer.field(1, 0, 1)
    (tmp_path / "model.index").write_bytes(bundle_writer.table({"": header, "x": value}))
    with pytest.raises(BadDataError, match=r"model\.index is damaged"):
        bundle.read_index(tmp_path / "model")


def test_a_number_of_data_files_that_cannot_be_is_refused(tmp_path: Path) -> None:
    header = bundle_writer.field(1, 0, 1 << 40)
    (tmp_path / "model.index").write_bytes(bundle_writer.table({"": header}))
    with pytest.raises(BadDataError, match="number of data files"):
        bundle.read_index(tmp_path / "model")


def test_an_index_that_is_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.index")
    with pytest.raises(BadDataError, match="not a regular file"):
        bundle.read_index(tmp_path / "model")
