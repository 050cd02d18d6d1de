"""Tensors read without TensorFlow: TensorFlow's own reader is the judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gpt2cli.errors import BadDataError, MissingInputError
from gpt2cli.storage import checkpoint
from gpt2cli.storage.bundle_reader import Reader
from tests import models


def test_tensorflow_reads_the_same(mini_model: Path) -> None:
    import tensorflow as tf

    prefix = mini_model / "model.ckpt"
    judge = tf.train.load_checkpoint(str(prefix))
    found = dict(Reader(prefix).tensors(models.MINI.shapes()))
    assert found.keys() == judge.get_variable_to_shape_map().keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, judge.get_tensor(name))


def test_every_kind_and_shape_is_read(tmp_path: Path, tensorflow: None) -> None:
    import tensorflow as tf

    kinds = (tf.float32, tf.float64, tf.int32, tf.int64)
    shapes = ((), (1,), (7,), (3, 0), (2, 3, 4))
    tensors = {
        f"{kind.name}{shape}": tf.cast(tf.fill(shape, -3), kind)
        for kind in kinds
        for shape in shapes
    }
    checkpoint.save(tmp_path / "all", tensors)
    for name, array in Reader(tmp_path / "all").tensors(tensors):
        assert array.dtype == tensors[name].dtype.as_numpy_dtype
        np.testing.assert_array_equal(array, tensors[name])


def test_tensors_come_in_the_order_of_the_names(mini_model: Path) -> None:
    names = sorted(models.MINI.shapes(), reverse=True)
    assert [name for name, _ in Reader(mini_model / "model.ckpt").tensors(names)] == names


def test_a_flipped_bit_anywhere_is_found_and_named(tmp_path: Path, tensorflow: None) -> None:
    arrays = {"a": np.arange(5000, dtype=np.float32), "b": np.ones(3, np.float32)}
    checkpoint.save(tmp_path / "model", arrays)
    path = tmp_path / "model.data-00000-of-00001"
    whole = path.read_bytes()
    for place, name in ((0, "a"), (12_345, "a"), (20_001, "b"), (len(whole) - 1, "b")):
        damaged = bytearray(whole)
        damaged[place] ^= 16
        path.write_bytes(damaged)
        with pytest.raises(BadDataError, match=f"is damaged at {name}"):
            list(Reader(tmp_path / "model").tensors(arrays))
    path.write_bytes(whole[:-1])
    with pytest.raises(BadDataError, match="is damaged at b"):
        list(Reader(tmp_path / "model").tensors(arrays))
    path.unlink()
    with pytest.raises(BadDataError, match="No such file"):
        list(Reader(tmp_path / "model").tensors(arrays))
    path.with_name("model.index").unlink()
    with pytest.raises(MissingInputError, match="is missing"):
        Reader(tmp_path / "model")
