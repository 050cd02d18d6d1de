"""What memory there is for a run, and whether the run fits."""

from __future__ import annotations

import math

from gpt2cli.config.shared import ComputeOptions
from gpt2cli.errors import Gpt2cliError
from gpt2cli.runtime import hardware
from gpt2cli.training.footprint import Footprint, leaner

# What the driver keeps for itself of a card that nobody uses (bytes).
GPU_RESERVED = 1_000_000_000
# A run that takes no more than this share of another one's memory has a chance to fit.
CLEARLY_LESS = 0.8


def devices(device: str) -> str:
    """Returns what a run will compute on, as far as it is known without TensorFlow."""
    return hardware.describe_gpus(0 if device == "cpu" else len(hardware.visible_gpus()))


def remedy(run: Footprint) -> str:
    """Returns what to type after a run took more memory than there was."""
    options: list[str] = []
    for option, smaller in leaner(run):
        options.append(option)
        if smaller.expected() < CLEARLY_LESS * run.expected():
            return f"Try {' '.join(options)}: it takes about {smaller.expected() / 1e9:.1f} GB."
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
    options: list[str] = []
    for option, smaller in leaner(run):
        options.append(option)
        if smaller.expected() <= free:
            raise Gpt2cliError(
                f"{line}. {' '.join(options)} would take about {smaller.expected() / 1e9:.1f} GB; "
                "--no-memory-check tries all the same."
            )
    raise Gpt2cliError(
        f"{line}. No option makes it fit; take a smaller model, or --no-memory-check to try."
    )


def of_gpu(device: str) -> str:
    """Returns what there is to say of the GPU's memory: of how much, and what others hold."""
    for gpu in hardware.visible_gpus() if device != "cpu" else []:
        held = gpu.total - gpu.free
        others = f"; other processes hold {held / 1e9:.1f} GB" if held > GPU_RESERVED else ""
        return f" of {gpu.total / 1e9:.1f} GB on the {gpu.name}{others}"
    return ""


def free_bytes(device: str, limit: int | None = None) -> float:
    """Returns the memory that is free for a run: the GPU's if there is one, else the machine's.

    Args:
        device: auto, cpu or gpu.
        limit: what may be taken of a GPU's memory (bytes); None: all.
    """
    for gpu in hardware.visible_gpus() if device != "cpu" else []:
        return gpu.free if limit is None else min(gpu.free, limit)
    return hardware.free_memory()
