"""What the machine has, found out without TensorFlow."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import os
import platform
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
# A folder for each GPU, with a file `information` that names its model.
NVIDIA_GPUS = Path("/proc/driver/nvidia/gpus")
# Where Windows' Linux and AMD's driver show their GPUs.
WSL_GPUS, AMD_GPUS = OTHER_GPUS = (Path("/dev/dxg"), Path("/dev/kfd"))
# What Linux says of the memory: the machine's, and a container's.
MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
VISIBLE = "CUDA_VISIBLE_DEVICES"
NO_GPU = "--device gpu: TensorFlow sees no GPU."
NO_DRIVER = "This machine has no NVIDIA driver; give --device cpu, or install one."
HIDDEN = f"{VISIBLE} hides every GPU; unset it, or give --device cpu."
NVIDIA_SMI = "nvidia-smi"
SMI_SECONDS = 10
# What to ask nvidia-smi for; drivers before 510 do not know the last one.
FIELDS = ("uuid", "name", "driver_version", "memory.total", "memory.free", "compute_cap")
# TensorFlow's packages from 2.18 on have no code for older GPUs.
LEAST_CAPABILITY = (6, 0)
# The first driver that runs a CUDA version's programs (CUDA Compatibility, NVIDIA).
LEAST_DRIVERS = {"11": (450, 80), "12": (525, 60), "13": (580, 0)}
# Linux' arch_prctl on x86-64, what asks for registers by it, and those of AMX.
ARCH_PRCTL, REQUEST, AMX_REGISTERS = 158, 0x1023, 18


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gpu:
    """An NVIDIA GPU, as its driver's program describes it; its memory is in bytes."""

    # `GPU-…`.
    uuid: str
    name: str
    # As `580.65.06`.
    driver: str
    total: float
    free: float
    # Its compute capability; None: the driver does not say.
    capability: tuple[int, int] | None


def cores() -> int:
    """Returns how many processors this process may use."""
    return len(os.sched_getaffinity(0))


@functools.cache
def may_use_amx() -> bool:
    """Returns whether Linux lets this process use AMX's registers, for which it has to be asked."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    call = ctypes.CDLL(None).syscall
    return int(call(*map(ctypes.c_long, (ARCH_PRCTL, REQUEST, AMX_REGISTERS)))) == 0


def free_memory() -> float:
    """Returns the memory that is free for this process (bytes); infinite if that is not known."""
    # A container's limit can lower the machine's.
    limits = [float("inf")]
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = MEMINFO.read_text(encoding="utf-8").splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable"))
        limits.append(float(line.split()[1]) * 1024)
    with contextlib.suppress(OSError, ValueError):
        most, used = ((CGROUP / name).read_text() for name in ("memory.max", "memory.current"))
        # Files that the kernel holds in memory give way.
        files = re.search(r"^inactive_file (\d+)$", (CGROUP / "memory.stat").read_text(), re.M)
        limits.append(float(most) - float(used) + float(files[1] if files else 0))
    return min(limits)


def describe_gpus(gpus: int) -> str:
    """Returns a number of GPUs in words; without GPUs, the CPU."""
    return f"{gpus} GPU{'s' if gpus > 1 else ''}" if gpus else "the CPU"


def may_have_gpu() -> bool:
    """Returns whether TensorFlow may find a GPU: a driver is there, and not hidden."""
    return has_driver() and not gpus_hidden()


def has_driver() -> bool:
    """Returns whether a driver of GPUs is there."""
    return any(path.exists() for path in (NVIDIA_DRIVER, *OTHER_GPUS))


def gpus_hidden() -> bool:
    """Returns whether the environment hides the GPUs."""
    return os.environ.get(VISIBLE, "0").strip() in ("", "-1")


def gpus() -> list[Gpu]:
    """Returns the NVIDIA GPUs of this machine; none if nvidia-smi is missing or fails."""
    program = shutil.which(NVIDIA_SMI)
    return list(_gpus(program)) if program else []


def forget_gpus() -> None:
    """Lets the next question find what GPUs are like by then."""
    _gpus.cache_clear()


@functools.cache
def _gpus(program: str) -> tuple[Gpu, ...]:
    # Only if there is a GPU: they would slow every start.
    import csv
    import subprocess

    for fields in (FIELDS, FIELDS[:-1]):
        command = [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
        with contextlib.suppress(OSError, ValueError, IndexError, subprocess.SubprocessError):
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=SMI_SECONDS, check=True
            )
            return tuple(map(_gpu, csv.reader(done.stdout.splitlines(), skipinitialspace=True)))
    return ()


def _gpu(row: Sequence[str]) -> Gpu:
    uuid, name, driver, total, free, *capability = row
    numbers = capability[0].split(".") if capability else []
    return Gpu(
        uuid=uuid,
        name=name,
        driver=driver,
        total=float(total) * 2**20,
        free=float(free) * 2**20,
        capability=(int(numbers[0]), int(numbers[1])) if len(numbers) == 2 else None,
    )


def visible_gpus(there: Sequence[Gpu] | None = None) -> list[Gpu]:
    """Returns those of the machine's GPUs that programs may use; by default, as nvidia-smi says.

    CUDA_VISIBLE_DEVICES names them by their numbers or the beginnings of their UUIDs, and counts
    no further than the first name that is of none (CUDA C++ Programming Guide, Environment
    Variables).
    """
    there = gpus() if there is None else there
    chosen = os.environ.get(VISIBLE)
    if chosen is None:
        return list(there)
    found: list[Gpu] = []
    for name in map(str.strip, chosen.split(",")):
        named = [gpu for gpu in there if name and gpu.uuid.startswith(name)]
        if name.isdecimal():
            named = list(there[int(name) : int(name) + 1])
        if len(named) != 1:
            break
        found += named
    return found


def gpu_problem(there: Sequence[Gpu] | None = None) -> str:
    """Returns why TensorFlow will use none of the machine's NVIDIA GPUs, as far as can be seen."""
    there = gpus() if there is None else there
    if not there:
        return ""
    chosen = visible_gpus(there)
    # A part of a GPU has a name of its own, which nvidia-smi does not list here.
    if not chosen and "MIG-" not in os.environ.get(VISIBLE, ""):
        names = ", ".join(f"{number} ({gpu.name})" for number, gpu in enumerate(there))
        return (
            f"{VISIBLE}={os.environ.get(VISIBLE)} names no GPU of this machine, which has {names}; "
            "unset it, or give --device cpu."
        )
    chosen = chosen or list(there)
    old = [gpu for gpu in chosen if gpu.capability and gpu.capability < LEAST_CAPABILITY]
    if len(old) == len(chosen):
        capability = ".".join(map(str, old[0].capability or ()))
        return (
            f"{old[0].name} has compute capability {capability}, and TensorFlow's packages need "
            f"{LEAST_CAPABILITY[0]}.{LEAST_CAPABILITY[1]}; give --device cpu."
        )
    return driver_problem(chosen[0].driver, cuda_version())


def driver_problem(driver: str, cuda: str) -> str:
    """Returns that a driver is too old for a CUDA version, and for which; or nothing."""
    least = LEAST_DRIVERS.get(cuda)
    have = tuple(map(int, re.findall(r"\d+", driver)[:2]))
    if least is None or not have or have >= least:
        return ""
    return (
        f"The NVIDIA driver {driver} is too old for CUDA {cuda}, which this TensorFlow uses: "
        f"install {least[0]}.{least[1]} or newer, or give --device cpu."
    )


@functools.cache
def cuda_version() -> str:
    """Returns which CUDA the installed TensorFlow was built for, as `12`; empty: not known."""
    # It would slow every start.
    from importlib import metadata

    with contextlib.suppress(metadata.PackageNotFoundError):
        for needed in metadata.requires("tensorflow") or []:
            if found := re.match(r"nvidia-cuda-runtime(?:-cu(\d+))?\b(.*)", needed):
                later = re.search(r"[=>]=\s*(\d+)", found[2])
                return found[1] or (later[1] if later else "")
    return ""


def gpu_models() -> list[str]:
    """Returns what GPUs and which driver the kernel knows, for what is compiled for them."""
    facts: list[str] = []
    for path in (NVIDIA_DRIVER, *sorted(NVIDIA_GPUS.glob("*/information"))):
        with contextlib.suppress(OSError):
            text = path.read_text(encoding="utf-8", errors="replace")
            model = re.search(r"^Model:\s*(.+)$", text, re.M)
            facts.append(model[1] if model else text.partition("\n")[0])
    return facts
