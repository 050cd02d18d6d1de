"""A model folder as OpenAI published them, for gpt-2-simple and for `finetune --model-name`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from gpt2cli.files import paths
from gpt2cli.formats.model import Model, write_files
from gpt2cli.hparams import HParams
from gpt2cli.storage import bundle_writer

CHECKPOINT = "model.ckpt"


def write_openai(model: Model, path: Path) -> None:
    """Writes the seven files, and one more if other tokens were added than OpenAI's."""
    files: dict[str, str | bytes] = {
        paths.HPARAMS: json.dumps(dataclasses.asdict(model.hparams), indent=1) + "\n",
        **model.vocabulary.files(),
        f"{CHECKPOINT}.meta": graph(model.hparams),
        paths.POINTER: paths.pointer_text(CHECKPOINT),
    }
    write_files(path, files)
    bundle_writer.write(path / CHECKPOINT, model.weights())


def graph(hparams: HParams) -> bytes:
    """Returns the content of a .meta file: the weights as variables, and what restores them."""
    import tensorflow as tf

    # TensorFlow 1 is the format itself here.
    v1 = tf.compat.v1
    with tf.Graph().as_default() as whole:
        for name, shape in hparams.shapes().items():
            v1.get_variable(name, shape, tf.float32, v1.zeros_initializer(), use_resource=False)
        saver = v1.train.Saver()
        meta = v1.train.export_meta_graph(graph=whole, saver_def=saver.as_saver_def())
    return bytes(meta.SerializeToString())
