"""A model folder in OpenAI's format: read by TensorFlow, by its .meta, and by gpt2cli itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from gpt2cli.hparams import read_hparams
from gpt2cli.storage import bundle, checkpoint
from tests import models
from tests.formats.conftest import Export

NAMES = [
    *("checkpoint", "encoder.json", "hparams.json", "model.ckpt.data-00000-of-00001"),
    *("model.ckpt.index", "model.ckpt.meta", "vocab.bpe"),
]


def test_tensorflow_reads_the_seven_files(exported: Export, small_model: Path) -> None:
    folder = exported("out", format="openai")
    assert sorted(path.name for path in folder.iterdir()) == [".gpt2cli-export.json", *NAMES]
    assert tf.train.latest_checkpoint(str(folder)) == str(folder / "model.ckpt")
    reader = tf.train.load_checkpoint(str(folder))
    arrays = models.random_arrays(models.SMALL)
    assert reader.get_variable_to_shape_map() == {n: list(a.shape) for n, a in arrays.items()}
    for name, array in arrays.items():
        assert np.array_equal(reader.get_tensor(name), array), name
    assert read_hparams(folder / "hparams.json") == models.SMALL
    for name in ("encoder.json", "vocab.bpe"):
        assert (folder / name).read_bytes() == (small_model / name).read_bytes()


def test_the_graph_in_meta_restores_the_weights(exported: Export) -> None:
    prefix = str(exported("out", format="openai") / "model.ckpt")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.train.import_meta_graph(f"{prefix}.meta").restore(session, prefix)
        found = session.run("model/h2/mlp/c_fc/w:0")
    assert np.array_equal(found, models.random_arrays(models.SMALL)["model/h2/mlp/c_fc/w"])


def test_a_half_precision_checkpoint_is_widened(exported: Export, tmp_path: Path) -> None:
    folder = models.write_description(tmp_path / "half")
    arrays = models.random_arrays(models.SMALL)
    half = {name: array.astype(np.float16) for name, array in arrays.items()}
    checkpoint.save(folder / "model.ckpt", half)
    (folder / "checkpoint").write_text('model_checkpoint_path: "model.ckpt"\n')
    prefix = exported("out", folder, format="openai") / "model.ckpt"
    bundle.check_sums(prefix)
    for name, array in checkpoint.load(prefix, arrays):
        assert array.dtype == np.float32
        assert np.array_equal(array, half[name].astype(np.float32))


def test_what_goes_out_and_comes_in_again_is_the_same(exported: Export, tmp_path: Path) -> None:
    there = exported("hugging-face")
    back = exported("openai", there, format="openai")
    arrays = models.random_arrays(models.SMALL)
    for name, array in checkpoint.load(back / "model.ckpt", arrays):
        assert np.array_equal(array, arrays[name])
    again = exported("hugging-face-2", back)
    for name in ("model.safetensors", "config.json", "vocab.json", "merges.txt"):
        assert (again / name).read_bytes() == (there / name).read_bytes()
