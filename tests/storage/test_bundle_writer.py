"""Checkpoints that we write, read by TensorFlow."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from gpt2cli.hparams import HParams
from gpt2cli.storage import bundle, bundle_writer, checkpoint
from tests import models

pytestmark = pytest.mark.usefixtures("tensorflow")


def test_tensorflow_reads_every_tensor(tmp_path: Path) -> None:
    import tensorflow as tf

    deep = HParams(n_vocab=300, n_ctx=4, n_embd=8, n_head=2, n_layer=48)
    arrays = models.random_arrays(deep) | {"scalar": np.float32(3), "none": np.zeros((0, 2))}
    bundle_writer.write(tmp_path / "model", arrays.items())
    reader = tf.train.load_checkpoint(str(tmp_path / "model"))
    assert reader.get_variable_to_shape_map().keys() == arrays.keys()
    for name, array in arrays.items():
        assert np.array_equal(reader.get_tensor(name), array), name
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "model.data-00000-of-00001",
        "model.index",
    ]


def test_our_index_says_the_same_as_tensorflows_own(tmp_path: Path) -> None:
    arrays = models.random_arrays(models.SMALL)
    bundle_writer.write(tmp_path / "ours", arrays.items())
    checkpoint.save(tmp_path / "theirs", arrays)
    found, expected = (bundle.read_index(tmp_path / name)[0] for name in ("ours", "theirs"))
    places = {name: dataclasses.replace(found[name], file=expected[name].file) for name in found}
    assert places == expected
    ours, theirs = (tmp_path / f"{name}.data-00000-of-00001" for name in ("ours", "theirs"))
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_tensor_of_another_type_is_carried_over(tmp_path: Path) -> None:
    import tensorflow as tf

    checkpoint.save(tmp_path / "old", {"words": tf.constant([b"one", b"", b"three" * 100])})
    entries, _ = bundle.read_index(tmp_path / "old")
    data = (tmp_path / "old.data-00000-of-00001").read_bytes()
    first = {"a": np.ones(5, np.float32)}
    raw = {name: (entry, data[entry.offset :]) for name, entry in entries.items()}
    bundle_writer.write(tmp_path / "new", first.items(), raw)
    reader = tf.train.load_checkpoint(str(tmp_path / "new"))
    assert reader.get_tensor("words").tolist() == [b"one", b"", b"three" * 100]
    assert reader.get_tensor("a").tolist() == [1.0] * 5
