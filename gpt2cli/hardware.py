"""What the machine has, told without TensorFlow."""

from __future__ import annotations

import os
from pathlib import Path

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
# Where Windows' Linux and AMD's driver show their GPUs.
WSL_GPUS, AMD_GPUS = OTHER_GPUS = (Path("/dev/dxg"), Path("/dev/kfd"))
VISIBLE = "CUDA_VISIBLE_DEVICES"
NO_GPU = "--device gpu: TensorFlow sees no GPU."
NO_DRIVER = "This machine has no NVIDIA driver; give --device cpu, or install one."
HIDDEN = f"{VISIBLE} hides every GPU; unset it, or give --device cpu."


def cores() -> int:
    """Returns how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def counted(gpus: int) -> str:
    """Returns how so many GPUs, or none, are told to a person."""
    return f"{gpus} GPU{'s' if gpus > 1 else ''}" if gpus else "the CPU"


def may_have_gpu() -> bool:
    """Returns whether TensorFlow may find a GPU: a driver is there, and not hidden."""
    return has_driver() and not are_hidden()


def has_driver() -> bool:
    """Returns whether a driver of GPUs is there."""
    return any(path.exists() for path in (NVIDIA_DRIVER, *OTHER_GPUS))


def are_hidden() -> bool:
    """Returns whether the environment hides the GPUs."""
    return os.environ.get(VISIBLE, "0").strip() in ("", "-1")
