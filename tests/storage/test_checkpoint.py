"""Checkpoints written and read: exact, of any precision, and damage is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gpt2cli.errors import BadDataError
from gpt2cli.storage import bundle_writer, checkpoint
from tests import models


def test_what_was_saved_is_loaded_to_the_last_bit(tmp_path: Path, tensorflow: None) -> None:
    arrays = models.random_arrays(models.SMALL)
    checkpoint.save(tmp_path / "model-7", arrays)
    loaded = dict(checkpoint.load(tmp_path / "model-7", models.SMALL.shapes()))
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_is_widened(kind: str, tmp_path: Path, tensorflow: None) -> None:
    import tensorflow as tf

    checkpoint.save(tmp_path / "model", {"x": tf.constant([0.5, -3.0], kind)})
    ((_, array),) = checkpoint.load(tmp_path / "model", ["x"])
    assert array.dtype == np.float32
    assert array.tolist() == [0.5, -3.0]


def test_a_flipped_bit_is_found(tmp_path: Path, tensorflow: None) -> None:
    checkpoint.save(tmp_path / "model", models.random_arrays(models.SMALL))
    path = tmp_path / "model.data-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadDataError, match="model is damaged"):
        list(checkpoint.load(tmp_path / "model", models.SMALL.shapes()))


def test_a_missing_name_is_refused(tmp_path: Path, tensorflow: None) -> None:
    checkpoint.save(tmp_path / "model", {"x": np.zeros(3, np.float32)})
    with pytest.raises(BadDataError, match="y"):
        list(checkpoint.load(tmp_path / "model", ["y"]))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_no_number_is_named(value: float, tmp_path: Path) -> None:
    arrays = models.random_arrays(models.SMALL)
    arrays["model/h1/attn/c_proj/w"][0, 1, 2] = value
    bundle_writer.write(tmp_path / "model", arrays.items())
    with pytest.raises(BadDataError, match="the weight model/h1/attn/c_proj/w holds"):
        dict(checkpoint.load(tmp_path / "model", models.SMALL.shapes()))


def test_float64_is_narrowed(tmp_path: Path, tensorflow: None) -> None:
    import tensorflow as tf

    checkpoint.save(tmp_path / "model", {"x": tf.constant([0.5, -3.0], "float64")})
    ((_, array),) = checkpoint.load(tmp_path / "model", ["x"])
    assert array.dtype == np.float32
    assert array.tolist() == [0.5, -3.0]
    checkpoint.save(tmp_path / "model", {"x": tf.constant([0.5, 1e300], "float64")})
    with pytest.raises(BadDataError, match="holds infinity"):
        dict(checkpoint.load(tmp_path / "model", ["x"]))
