"""A SavedModel in TensorFlow Serving's layout, which needs nothing of gpt2cli to run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import tensorflow as tf

from gpt2cli.files import atomic, paths
from gpt2cli.formats.model import Model, write_files
from gpt2cli.formats.served import Served
from gpt2cli.storage import bundle, bundle_writer, checkpoint

VERSION = "1"
# Where TensorFlow Serving leaves files alone.
EXTRA = "assets.extra"
ATTRIBUTE = "/.ATTRIBUTES/VARIABLE_VALUE"


def write_savedmodel(model: Model, path: Path) -> None:
    """Writes the folder.

    TensorFlow would hold the whole model and write it: it is given variables of one element, and
    their files are written anew with the weights, one at a time.
    """
    place = path / VERSION
    served = Served(model.hparams, model.specials.ends)
    atomic.before("write", place)
    with checkpoint.system_errors(place):
        tf.saved_model.save(
            served,
            str(place),
            signatures={"serving_default": served.logits, "generate": served.generate},
        )
    write_weights(model, place / "variables" / "variables")
    # It is a hash of the variables that were there before.
    atomic.remove(place / "fingerprint.pb")
    shape = json.dumps(dataclasses.asdict(model.hparams)) + "\n"
    write_files(place / EXTRA, {paths.HPARAMS: shape, **model.vocabulary.files()})


def write_weights(model: Model, prefix: Path) -> None:
    """Writes a checkpoint with the weights in the place of one that holds their stand-ins."""
    entries, _ = bundle.read_index(prefix)
    old = paths.data_file(prefix).read_bytes()
    raw = {
        name: (found, old[found.offset : found.offset + found.size])
        for name, found in entries.items()
        if not name.endswith(ATTRIBUTE)
    }
    named = ((variable_name(name), array) for name, array in model.weights())
    bundle_writer.write(prefix, named, raw)


def variable_name(name: str) -> str:
    """Returns what a weight is called in TensorFlow's object graph."""
    return f"weights/{name.replace('.', '..').replace('/', '.S')}{ATTRIBUTE}"
