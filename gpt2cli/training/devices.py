"""What the work runs on: the device, and the type that it computes in."""

from __future__ import annotations

import os
from typing import Any

import tensorflow as tf

from gpt2cli import hardware
from gpt2cli.errors import Gpt2cliError
from gpt2cli.hardware import AMD_GPUS, NO_DRIVER, NO_GPU, NVIDIA_DRIVER, WSL_GPUS

# Ampere is the first generation that multiplies bfloat16 (CUDA C++ Programming Guide, 16.1).
BFLOAT16_CAPABILITY = (8, 0)
# Makes several devices of the CPU, to try out what is meant for several GPUs.
CPU_DEVICES = "GPT2CLI_CPU_DEVICES"


def prepare(device: str = "auto", memory_limit: int | None = None) -> str:
    """Chooses what to compute on; returns its name.

    A GPU's memory is taken as it is needed, or what it may take is taken at once.

    Args:
        device: auto, cpu or gpu.
        memory_limit: what may be taken of each GPU's memory (bytes); None: all.

    Raises:
        Gpt2cliError: a GPU was asked for, and TensorFlow sees none.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if device == "gpu" and not gpus:
        raise Gpt2cliError(f"{NO_GPU} {reason()}")
    if device == "cpu" or not gpus:
        tf.config.set_visible_devices([], "GPU")
        threads = tf.config.threading.get_intra_op_parallelism_threads() or "all"
        remark = f"; {reason()}" if device == "auto" and NVIDIA_DRIVER.exists() else ""
        return f"CPU ({threads} threads){remark}"
    for gpu in gpus:
        if memory_limit is None:
            tf.config.experimental.set_memory_growth(gpu, True)
        else:
            limit = tf.config.LogicalDeviceConfiguration(memory_limit=memory_limit >> 20)
            tf.config.set_logical_device_configuration(gpu, [limit])
    return str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU"))


def names() -> list[str]:
    """Returns the devices that a machine's training can be shared by, as `GPU:0`.

    TensorFlow's devices are settled from then on.
    """
    cpu = tf.config.list_physical_devices("CPU")[0]
    count = os.environ.get(CPU_DEVICES, "1")
    if not tf.config.get_visible_devices("GPU") and count.isdecimal() and int(count) > 1:
        several = [tf.config.LogicalDeviceConfiguration() for _ in range(int(count))]
        tf.config.set_logical_device_configuration(cpu, several)
    found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return [device.name.removeprefix("/device:") for device in found]


def reason() -> str:
    """Returns why TensorFlow sees no GPU, and what mends it."""
    if hardware.are_hidden():
        return hardware.HIDDEN
    if not NVIDIA_DRIVER.exists() and WSL_GPUS.exists():
        return (
            "Windows shows its GPU to this Linux: it needs NVIDIA's driver for Windows, and here "
            "`pip install 'gpt2cli[gpu]'`."
        )
    if not NVIDIA_DRIVER.exists() and AMD_GPUS.exists():
        return "There is an AMD GPU, which needs AMD's own TensorFlow (`tensorflow-rocm`)."
    if not NVIDIA_DRIVER.exists():
        return NO_DRIVER
    if not tf.test.is_built_with_cuda():
        return "This TensorFlow is built without CUDA; run `pip install 'gpt2cli[gpu]'`."
    return (
        "A driver is there, and CUDA's libraries are missing or of another version: run "
        f"`pip install 'gpt2cli[gpu]'`. {driver()}"
    ).rstrip()


def driver() -> str:
    """Returns what the NVIDIA driver says of itself; empty where it says nothing."""
    try:
        return NVIDIA_DRIVER.read_text(encoding="utf-8").splitlines()[0]
    except (OSError, IndexError):
        return ""


def capability() -> tuple[int, int]:
    """Returns the compute capability of the first GPU in use; (0, 0) where there is none."""
    for gpu in tf.config.get_visible_devices("GPU")[:1]:
        details = tf.config.experimental.get_device_details(gpu)
        found: tuple[int, int] = details.get("compute_capability", (0, 0))
        return found
    return 0, 0


def precision(asked: str) -> str:
    """Returns the type to compute in: what was asked for, and for `auto` what suits the device."""
    if asked != "auto":
        return asked
    for gpu in tf.config.get_visible_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpu)
        if details.get("compute_capability", (0, 0)) >= BFLOAT16_CAPABILITY:
            return "bfloat16"
    return "float32"


def frozen_type(asked: str) -> Any:
    """Returns the type in which weights are held that are not trained.

    Half as wide as float32, unless just that was asked for.
    """
    return tf.as_dtype("bfloat16" if asked == "auto" else asked)
