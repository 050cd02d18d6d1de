"""Named arrays ↔ TensorFlow's checkpoint files."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from gpt2cli.errors import BadDataError
from gpt2cli.hparams import LORA_A, LORA_B, LORA_SCALE
from gpt2cli.signals import postponed
from gpt2cli.storage import atomic, folders, huggingface

# What TensorFlow makes of the operating system's refusals.
SYSTEM_ERRORS = (
    (tf.errors.ResourceExhaustedError, errno.ENOSPC),
    (tf.errors.PermissionDeniedError, errno.EACCES),
    (tf.errors.FailedPreconditionError, errno.EROFS),
)


def load(prefix: Path, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Yields the named tensors of a checkpoint, one at a time, their checksums verified.

    Half-precision tensors come as float32. Where the checkpoint holds adapters, weights come as
    those that they were trained beside, each with its adapter merged into it. A checkpoint may be
    Hugging Face's safetensors, which have no checksums.

    Raises:
        BadDataError: the checkpoint is damaged or lacks a name.
    """
    if huggingface.is_weights(prefix):
        yield from huggingface.load(prefix, names)
        return
    try:
        with postponed():
            reader = tf.train.load_checkpoint(str(prefix))
            adapted = reader.has_tensor(LORA_SCALE)
            base = tf.train.load_checkpoint(str(folders.base(prefix))) if adapted else reader
        for name in names:
            with postponed():
                own = reader.has_tensor(name) or not adapted
                array = wide((reader if own else base).get_tensor(name))
                array = array if own else merged(array, reader, name)
            yield name, array
    # The reader raises plain RuntimeError and ValueError for some kinds of damage.
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise BadDataError(f"{prefix} is damaged: {reason}.") from error


def has_adapters(prefix: Path) -> bool:
    """Returns whether a checkpoint holds adapters in place of weights."""
    return bool(tf.train.load_checkpoint(str(prefix)).has_tensor(LORA_SCALE))


def wide(array: Any) -> Any:
    """Returns a half-precision array as float32, and any other as it is."""
    half = array.dtype in (np.float16, tf.bfloat16.as_numpy_dtype)
    return array.astype(np.float32) if half else array


def merged(array: Any, reader: Any, name: str) -> Any:
    """Returns a weight with the adapter that a checkpoint holds for it, if there is one."""
    if not reader.has_tensor(name + LORA_A):
        return array
    left, right, scale = (reader.get_tensor(n) for n in (name + LORA_A, name + LORA_B, LORA_SCALE))
    return array + scale * (left @ right)


def save(prefix: Path, tensors: Mapping[str, Any]) -> None:
    """Writes named tensors as `PREFIX.index` and `PREFIX.data-00000-of-00001`.

    The names stand in the file as they are (OpenAI's kind of checkpoint, not an object graph).

    Raises:
        OSError: the disk is full, fails, or may not be written to.
    """
    atomic.before("write", prefix)
    names = list(tensors)
    with system_errors(prefix):
        tf.raw_ops.SaveV2(
            prefix=str(prefix),
            tensor_names=names,
            shape_and_slices=[""] * len(names),
            tensors=[tf.convert_to_tensor(tensors[name]) for name in names],
        )


@contextlib.contextmanager
def system_errors(path: Path) -> Iterator[None]:
    """Within the block what TensorFlow makes of the system's refusals is an OSError again."""
    try:
        yield
    except tf.errors.OpError as error:
        number = next((n for kind, n in SYSTEM_ERRORS if isinstance(error, kind)), errno.EIO)
        raise OSError(number, str(error).splitlines()[0], str(path)) from error
