"""Named arrays ↔ TensorFlow's checkpoint files."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gpt2cli.arrays import Array, Tensor
from gpt2cli.errors import BadDataError, MissingInputError
from gpt2cli.files import atomic, paths
from gpt2cli.hparams import LORA_A, LORA_B, LORA_SCALE
from gpt2cli.storage import huggingface
from gpt2cli.storage.bundle_reader import Reader, check_finite, single


def load(prefix: Path, names: Iterable[str]) -> Iterator[tuple[str, Array]]:
    """Yields the named tensors of a checkpoint, their checksums verified.

    Tensors of every precision come as float32. If the checkpoint holds adapters, weights come as
    those that they were trained beside, each with its adapter merged into it. A checkpoint may be
    Hugging Face's safetensors, which have no checksums. TensorFlow is not needed. Raises
    BadDataError if the checkpoint is damaged or lacks a name.
    """
    if huggingface.is_weights(prefix):
        yield from huggingface.read_weights(prefix, names)
        return
    try:
        reader = Reader(prefix)
        if LORA_SCALE not in reader.entries:
            for name, array in reader.tensors(names):
                yield name, checked(array, prefix, name)
            return
        names = list(names)
        yield from reader.tensors(name for name in names if name in reader.entries)
        others = (name for name in names if name not in reader.entries)
        for name, array in Reader(paths.base(prefix)).tensors(others):
            yield name, checked(merged(array, reader, name), prefix, name)
    except MissingInputError as error:
        # It was there when the run was looked at.
        raise BadDataError(f"{prefix} is damaged: {error}") from error


def checked(array: Array, prefix: Path, name: str) -> Array:
    """Returns a weight as float32; raises BadDataError if it is not finite as such."""
    if array.dtype.name != "float64":
        return array
    array = single(array)
    check_finite(array, prefix, name)
    return array


def merged(array: Array, reader: Reader, name: str) -> Array:
    """Returns a weight with the adapter that a checkpoint holds for it, if there is one."""
    if name + LORA_A not in reader.entries:
        return array
    left, right, scale = (reader.tensor(n) for n in (name + LORA_A, name + LORA_B, LORA_SCALE))
    both: Array = array + scale * (left @ right)
    return both


def save_all(checkpoints: Mapping[Path, Mapping[str, Tensor]]) -> None:
    """Writes checkpoints by their prefixes side by side, as `save` does.

    What is written of one goes to the disk while another is still being copied.
    """
    import tensorflow as tf

    # No variable may change meanwhile, and whoever counts operations finds them in one order.
    held = {
        prefix: {name: tf.convert_to_tensor(tensor) for name, tensor in tensors.items()}
        for prefix, tensors in checkpoints.items()
    }
    for prefix in held:
        atomic.before("write", prefix)
    with ThreadPoolExecutor(len(held)) as pool:
        list(pool.map(save, held, held.values()))


def save(prefix: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes named tensors as `PREFIX.index` and `PREFIX.data-00000-of-00001`; syncs the data.

    The names stand in the file as they are (OpenAI's kind of checkpoint, not an object graph).
    """
    import tensorflow as tf

    with system_errors(prefix):
        tf.raw_ops.SaveV2(
            prefix=str(prefix),
            tensor_names=list(tensors),
            shape_and_slices=[""] * len(tensors),
            tensors=[tf.convert_to_tensor(tensor) for tensor in tensors.values()],
        )
    with paths.data_file(prefix).open("rb") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def system_errors(path: Path) -> Iterator[None]:
    """Within the block what TensorFlow makes of the system's refusals is an OSError again."""
    import tensorflow as tf

    refusals = {
        tf.errors.ResourceExhaustedError: errno.ENOSPC,
        tf.errors.PermissionDeniedError: errno.EACCES,
        tf.errors.FailedPreconditionError: errno.EROFS,
    }
    try:
        yield
    except tf.errors.OpError as error:
        number = next((n for kind, n in refusals.items() if isinstance(error, kind)), errno.EIO)
        raise OSError(number, str(error).splitlines()[0], str(path)) from error
