"""Memory that runs out: what was asked for, what was free, and what would fit.

Nothing here needs TensorFlow, but where that is loaded its errors are known.
"""

from __future__ import annotations

import contextlib
import math
import re
import sys
from collections.abc import Iterator

from gpt2cli.errors import Gpt2cliError
from gpt2cli.runtime import hardware

# What TensorFlow, XLA and CUDA say then; a full disk is a resource that is exhausted as well. The
# last one is of a constant for which there is no room.
SAID = re.compile(
    r"OOM|out of memory|OUT_OF_MEMORY|failed to allocate|Cannot parse tensor from proto", re.I
)
SHAPE = re.compile(r"shape\[([\d,]*)\] and type (\w+)")
SIZE = re.compile(r"allocate (?:request for )?([\d.]+) ?([KMGT]?i?B|bytes)")
UNITS = "BKMGT"
# The lengths of such a constant's axes.
LENGTH = re.compile(r"^\s*size: (\d+)$", re.M)
FLOAT_BYTES = 4
# Of an element, by what TensorFlow calls its type.
TYPE_BYTES = {"double": 8, "int64": 8, "half": 2, "bfloat16": 2, "int8": 1, "uint8": 1, "bool": 1}


def is_memory(error: BaseException) -> bool:
    """Returns whether an error, of NumPy or TensorFlow, says that memory ran out."""
    if "tensorflow" in sys.modules:
        import tensorflow as tf

        if isinstance(error, tf.errors.OpError):
            return bool(SAID.search(str(error.message)))
    return isinstance(error, MemoryError)


@contextlib.contextmanager
def explained(device: str, gpu_bytes: int | None, *, remedy: str, safe: str = "") -> Iterator[None]:
    """Turns running out of memory in the block into an error: what is safe, what would fit.

    Args:
        device: auto, cpu or gpu.
        gpu_bytes: the most memory of a GPU that may be taken; None: all.
        remedy: a sentence on what to type.
        safe: a sentence on what is safe on disk.

    Raises:
        Gpt2cliError: memory ran out.
    """
    try:
        yield
    except Exception as error:
        if not is_memory(error):
            raise
        raise refusal(error, device, gpu_bytes, remedy=remedy, safe=safe) from error


def refusal(
    error: Exception, device: str, gpu_bytes: int | None, *, remedy: str, safe: str
) -> Gpt2cliError:
    """Returns what there is to say after memory ran out; arguments as for `explained`."""
    from gpt2cli.training import memory

    hardware.forget_gpus()
    size, free = asked(str(error)), memory.free_bytes(device, gpu_bytes)
    wanted = f"{size / 1e9:.1f} GB were asked for at once" if size else "more was asked for"
    there = f", {free / 1e9:.1f} GB are free" if math.isfinite(free) else ""
    parts = [f"Memory ran out: {wanted}{there}{memory.of_gpu(device)}.", safe, remedy]
    return Gpt2cliError(" ".join(part for part in parts if part))


def asked(message: str) -> float:
    """Returns how much a message says was asked for (bytes); 0 if it does not say."""
    if found := SHAPE.search(message):
        lengths = [int(length) for length in found[1].split(",") if length]
        return float(math.prod(lengths) * TYPE_BYTES.get(found[2], FLOAT_BYTES))
    if found := SIZE.search(message):
        return float(found[1]) * float(1024 ** UNITS.index(found[2][0].upper()))
    lengths = [int(length) for length in LENGTH.findall(message)]
    return float(FLOAT_BYTES * math.prod(lengths)) if lengths else 0.0
