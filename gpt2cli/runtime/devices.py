"""What the work runs on: the device, and the type that it computes in."""

from __future__ import annotations

import os

import tensorflow as tf

from gpt2cli.arrays import DType
from gpt2cli.errors import Gpt2cliError
from gpt2cli.runtime import hardware
from gpt2cli.runtime.hardware import AMD_GPUS, NO_DRIVER, NO_GPU, NVIDIA_DRIVER, WSL_GPUS
from gpt2cli.runtime.installation import install_command

# Ampere is the first generation that multiplies bfloat16 fast, Volta the first with tensor cores
# for float16 (CUDA C++ Programming Guide, Compute Capabilities).
BFLOAT16_CAPABILITY, FLOAT16_CAPABILITY = (8, 0), (7, 0)
# Make several devices of the CPU, or of the first GPU, to try out what is meant for several GPUs.
CPU_DEVICES, GPU_PARTS = "GPT2CLI_CPU_DEVICES", "GPT2CLI_GPU_DEVICES"
# What a part of a GPU may take of what is free on it, divided by the number of parts.
PARTS_SHARE = 0.9


def configure(
    device: str = "auto", memory_limit: int | None = None, precision: str = "auto"
) -> str:
    """Chooses what to compute on (auto, cpu or gpu); returns its name.

    Of each GPU's memory the limit (bytes) is taken at once, or without one what is needed. Products
    of float32 are exact if just that precision was asked for. Raises Gpt2cliError if the GPU that
    was asked for is not there.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if device == "gpu" and not gpus:
        raise Gpt2cliError(f"{NO_GPU} {missing_gpu_reason()}")
    if device == "cpu" or not gpus:
        tf.config.set_visible_devices([], "GPU")
        threads = tf.config.threading.get_intra_op_parallelism_threads() or "all"
        remark = f"; {missing_gpu_reason()}" if device == "auto" and NVIDIA_DRIVER.exists() else ""
        return f"CPU ({threads} threads){remark}"
    # One thread a GPU hands it its work in time; many wait for each other at the driver, and a step
    # takes a quarter to a third longer (on an H100 with 16 processor cores).
    if not tf.config.threading.get_inter_op_parallelism_threads():
        tf.config.threading.set_inter_op_parallelism_threads(len(gpus) * device_count(GPU_PARTS))
    # Else Ampere and later round what they multiply to TF32's 10 bits.
    tf.config.experimental.enable_tensor_float_32_execution(precision != "float32")
    parts = device_count(GPU_PARTS)
    for gpu in gpus:
        if memory_limit is None and parts == 1:
            tf.config.experimental.set_memory_growth(gpu, True)
            continue
        limit = (memory_limit or PARTS_SHARE * free_gpu_bytes()) / parts
        part = tf.config.LogicalDeviceConfiguration(memory_limit=int(limit) >> 20)
        tf.config.set_logical_device_configuration(gpu, [part] * parts)
    return str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU"))


def device_count(variable: str) -> int:
    """Returns how many devices an environment variable asks for; 1 if it does not."""
    count = os.environ.get(variable, "1")
    return max(int(count), 1) if count.isascii() and count.isdecimal() else 1


def free_gpu_bytes() -> float:
    """Returns what is free on the first GPU in use (bytes), or raises Gpt2cliError."""
    for gpu in hardware.visible_gpus():
        return gpu.free
    raise Gpt2cliError(f"{GPU_PARTS} needs nvidia-smi, or --gpu-memory-limit.")


def device_names() -> list[str]:
    """Returns the devices that share a machine's training, as `GPU:0`; they are settled then."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    count = device_count(CPU_DEVICES)
    if not tf.config.get_visible_devices("GPU") and count > 1:
        several = [tf.config.LogicalDeviceConfiguration() for _ in range(count)]
        tf.config.set_logical_device_configuration(cpu, several)
    found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return [device.name.removeprefix("/device:") for device in found]


def missing_gpu_reason() -> str:
    """Returns why TensorFlow sees no GPU, and what mends it."""
    if hardware.gpus_hidden():
        return hardware.HIDDEN
    if not NVIDIA_DRIVER.exists():
        if WSL_GPUS.exists():
            return (
                "Windows shows its GPU to this Linux: it needs NVIDIA's driver for Windows, and "
                f"here `{install_command('gpu')}`."
            )
        amd = "There is an AMD GPU, which needs AMD's own TensorFlow (`tensorflow-rocm`)."
        return amd if AMD_GPUS.exists() else NO_DRIVER
    if not tf.test.is_built_with_cuda():
        return f"This TensorFlow is built without CUDA; run `{install_command('gpu')}`."
    if problem := hardware.gpu_problem():
        return problem
    return (
        "A driver is there, and CUDA's libraries are missing or of another version: run "
        f"`{install_command('gpu')}`. {''.join(hardware.gpu_models()[:1])}"
    ).rstrip()


def has_gpu() -> bool:
    """Returns whether what is computed now is computed on a GPU."""
    return bool(tf.config.get_visible_devices("GPU"))


def capability() -> tuple[int, int]:
    """Returns the compute capability of the first GPU in use; (0, 0) if there is none."""
    gpus = tf.config.get_visible_devices("GPU")
    details = tf.config.experimental.get_device_details(gpus[0]) if gpus else {}
    found: tuple[int, int] = details.get("compute_capability", (0, 0))
    return found


def resolve_precision(asked: str) -> str:
    """Returns the type to compute in: what was asked for, and for `auto` what suits the device."""
    if asked != "auto":
        return asked
    found = capability()
    if found >= BFLOAT16_CAPABILITY:
        return "bfloat16"
    return "float16" if found >= FLOAT16_CAPABILITY else "float32"


def describe_precision(asked: str) -> str:
    """Returns the type to compute in, and why that one if nobody asked for it."""
    chosen, (major, minor) = resolve_precision(asked), capability()
    if asked != "auto" or not has_gpu():
        return chosen
    return f"{chosen} (its compute capability is {major}.{minor})"


def frozen_dtype(asked: str) -> DType:
    """Returns the type of weights that are not trained: 2 bytes each, unless float32 was asked."""
    chosen = resolve_precision(asked)
    return tf.as_dtype("bfloat16" if asked == "auto" and chosen == "float32" else chosen)
