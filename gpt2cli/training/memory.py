"""What memory there is for a run, whether the run fits, and what to say when memory runs out.

Nothing here needs TensorFlow, but if that is loaded its errors are known.
"""

from __future__ import annotations

import contextlib
import math
import re
import sys
from collections.abc import Callable, Iterator

from gpt2cli.config.shared import ComputeOptions
from gpt2cli.errors import Gpt2cliError
from gpt2cli.runtime import hardware
from gpt2cli.training.footprint import FLOAT_BYTES, Footprint, gpus_for, leaner

# What the driver keeps for itself of a card that nobody uses (bytes).
GPU_RESERVED = 1_000_000_000
# A run that takes no more than this share of another one's memory has a chance to fit.
CLEARLY_LESS = 0.8
# What TensorFlow, XLA and CUDA say if memory runs out; a full disk is a resource that is exhausted
# as well. The last one is of a constant for which there is no room.
SAID = re.compile(
    r"OOM|out of memory|OUT_OF_MEMORY|failed to allocate|Cannot parse tensor from proto", re.I
)
SHAPE = re.compile(r"shape\[([\d,]*)\] and type (\w+)")
SIZE = re.compile(r"allocate (?:request for )?([\d.]+) ?([KMGT]?i?B|bytes)")
UNITS = "BKMGT"
# The lengths of such a constant's axes.
LENGTH = re.compile(r"^\s*size: (\d+)$", re.M)
# Of an element, by what TensorFlow calls its type.
TYPE_BYTES = {"double": 8, "int64": 8, "half": 2, "bfloat16": 2, "int8": 1, "uint8": 1, "bool": 1}


def devices(device: str) -> str:
    """Returns what a run will compute on, as far as it is known without TensorFlow."""
    return hardware.describe_gpus(len(gpus_for(device)))


def remedy(run: Footprint) -> str:
    """Returns what to type after a run took more memory than there was."""
    for options, smaller in leaner(run):
        if smaller.expected() < CLEARLY_LESS * run.expected():
            return f"Try {options}: it takes about {smaller.expected() / 1e9:.1f} GB."
    return "Take a smaller model."


def check_memory(run: Footprint, compute: ComputeOptions, *, refuse: bool) -> str:
    """Returns a line on what a run takes and what is free.

    Raises:
        Gpt2cliError: it will not fit, and such a run is to be refused.
    """
    needed, free = run.expected(), free_bytes(compute.device, compute.gpu_bytes)
    there = f"{free / 1e9:.1f} GB free" if math.isfinite(free) else "what is free is not known here"
    there += of_gpu(compute.device)
    line = f"memory: about {needed / 1e9:.1f} GB expected, {there}"
    if not refuse or needed <= free:
        return line
    for options, smaller in leaner(run):
        if smaller.expected() <= free:
            raise Gpt2cliError(
                f"{line}. {options} would take about {smaller.expected() / 1e9:.1f} GB; "
                "--no-memory-check tries all the same."
            )
    raise Gpt2cliError(
        f"{line}. No option makes it fit; take a smaller model, or --no-memory-check to try."
    )


def of_gpu(device: str) -> str:
    """Returns what there is to say of the GPU's memory: of how much, and what others hold."""
    for gpu in gpus_for(device):
        held = gpu.total - gpu.free
        others = f"; other processes hold {held / 1e9:.1f} GB" if held > GPU_RESERVED else ""
        return f" of {gpu.total / 1e9:.1f} GB on the {gpu.name}{others}"
    return ""


def free_bytes(device: str, limit: int | None = None) -> float:
    """Returns the memory that is free for a run: the GPU's if there is one, else the machine's.

    The limit is what may be taken of a GPU's (bytes); None: all.
    """
    for gpu in gpus_for(device):
        return gpu.free if limit is None else min(gpu.free, limit)
    return hardware.free_memory()


def is_memory(error: BaseException) -> bool:
    """Returns whether an error, of NumPy or TensorFlow, says that memory ran out."""
    if "tensorflow" in sys.modules:
        import tensorflow as tf

        if isinstance(error, tf.errors.OpError):
            return bool(SAID.search(str(error.message)))
    return isinstance(error, MemoryError)


@contextlib.contextmanager
def explained(
    device: str, gpu_bytes: int | None, *, remedy: str, safe: Callable[[], str] = str
) -> Iterator[None]:
    """Raises Gpt2cliError if memory runs out in the block; it says what is safe, what would fit.

    `gpu_bytes` is the most memory of a GPU that may be taken (None: all), `remedy` a sentence on
    what to type, and `safe` returns one on what is safe on disk then.
    """
    try:
        yield
    except Exception as error:
        if not is_memory(error):
            raise
        hardware.forget_gpus()
        size, free = asked(str(error)), free_bytes(device, gpu_bytes)
        wanted = f"{size / 1e9:.1f} GB were asked for at once" if size else "more was asked for"
        there = f", {free / 1e9:.1f} GB are free" if math.isfinite(free) else ""
        parts = [f"Memory ran out: {wanted}{there}{of_gpu(device)}.", safe(), remedy]
        raise Gpt2cliError(" ".join(filter(None, parts))) from error


def asked(message: str) -> float:
    """Returns how much a message says was asked for (bytes); 0 if it does not say."""
    if found := SHAPE.search(message):
        lengths = [int(length) for length in found[1].split(",") if length]
        return float(math.prod(lengths) * TYPE_BYTES.get(found[2], FLOAT_BYTES))
    if found := SIZE.search(message):
        return float(found[1]) * float(1024 ** UNITS.index(found[2][0].upper()))
    lengths = [int(length) for length in LENGTH.findall(message)]
    return float(FLOAT_BYTES * math.prod(lengths)) if lengths else 0.0
