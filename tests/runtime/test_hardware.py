"""What is known of GPUs without TensorFlow, and what is said where they cannot be used."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.errors import Gpt2cliError, UsageError
from gpt2cli.runtime import hardware
from tests import gpus

TWO = [gpus.card(uuid="GPU-aa", name="A"), gpus.card(uuid="GPU-bb", name="B")]


def program(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a program named nvidia-smi before all others."""
    smi = folder / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\n{script}\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


@pytest.mark.skipif(
    platform.machine() != "x86_64" or sys.platform != "linux", reason="of Linux on x86-64"
)
def test_linux_is_asked_for_the_registers_of_amx() -> None:
    """The processor's flags are shown by a kernel that lets them be used."""
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    if "amx_tile" in flags:
        assert hardware.may_use_amx()
    # A call that the kernel does not know is refused, and nothing else happens.
    code = (
        "from gpt2cli.runtime import hardware\n"
        "hardware.AMX_REGISTERS = 63\n"
        "print(hardware.may_use_amx())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"


def test_nvidia_smi_says_what_gpus_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(
        tmp_path,
        "echo 'GPU-aa, NVIDIA H100 80GB HBM3, 580.65.06, 81559, 80994, 9.0'\n"
        "echo 'GPU-bb, Tesla T4, 580.65.06, 15360, 100, 7.5'",
        monkeypatch,
    )
    first, second = hardware.gpus()
    assert (first.uuid, first.name, first.capability) == ("GPU-aa", "NVIDIA H100 80GB HBM3", (9, 0))
    assert (second.total, second.free) == (15360 * 2**20, 100 * 2**20)
    assert second.driver == "580.65.06"


def test_an_old_driver_that_knows_no_compute_capability_is_asked_for_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = 'case "$1" in *compute_cap*) echo "Field is not valid" >&2; exit 2;; esac\n'
    program(tmp_path, refusal + "echo 'GPU-aa, Tesla K80, 450.80.02, 11441, 11441'", monkeypatch)
    (gpu,) = hardware.gpus()
    assert (gpu.name, gpu.capability) == ("Tesla K80", None)


@pytest.mark.parametrize(
    "script", ["exit 9", "echo 'No devices were found'", "echo 'GPU-aa, A, 1, [N/A], [N/A], 9.0'"]
)
def test_what_nvidia_smi_cannot_say_is_not_known(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, script, monkeypatch)
    assert hardware.gpus() == []


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        (None, "AB"),
        ("1", "B"),
        ("1,0", "BA"),
        ("GPU-bb", "B"),
        ("0,7,1", "A"),
        ("7", ""),
        ("", ""),
        ("-1", ""),
        ("GPU-", ""),
    ],
)
def test_cuda_visible_devices_counts_to_the_first_name_of_none(
    chosen: str | None, names: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert "".join(gpu.name for gpu in hardware.visible_gpus(TWO)) == names


def test_names_of_no_gpu_are_told_with_those_that_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert hardware.gpu_problem(TWO) == (
        "CUDA_VISIBLE_DEVICES=7 names no GPU of this machine, which has 0 (A), 1 (B); unset it, or "
        "give --device cpu."
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-0123")
    assert hardware.gpu_problem(TWO) == ""


def test_a_gpu_or_a_driver_that_is_too_old_is_told() -> None:
    assert hardware.gpu_problem([gpus.card()]) == ""
    assert hardware.gpu_problem([]) == ""
    assert hardware.gpu_problem([gpus.card(capability=None)]) == ""
    assert "H100 80GB HBM3 has compute capability 5.2, and TensorFlow's packages need 6.0" in (
        hardware.gpu_problem([gpus.card(capability=(5, 2))])
    )
    assert hardware.cuda_version() in ("12", "13")
    old = hardware.gpu_problem([gpus.card(driver="470.57.02")])
    assert old.startswith("The NVIDIA driver 470.57.02 is too old for CUDA 1")
    assert hardware.driver_problem("525.60.13", "12") == ""
    assert "install 525.60 or newer" in hardware.driver_problem("525.59", "12")
    assert hardware.driver_problem("unknown", "12") == hardware.driver_problem("1.0", "") == ""


def test_what_no_gpu_can_give_is_refused_before_tensorflow_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "NVIDIA_DRIVER", tmp_path)
    monkeypatch.setattr(hardware, "gpus", lambda: [gpus.card(driver="470.57.02")])
    config = FinetuneConfig(dataset=("x",), device="gpu")
    with pytest.raises(Gpt2cliError, match=r"sees no GPU\. The NVIDIA driver 470\.57\.02 is too"):
        config.check_device()
    monkeypatch.setattr(hardware, "gpus", lambda: [gpus.card()])
    config.check_device()
    with pytest.raises(UsageError, match=r"limit 90GB is more than the NVIDIA H100 .* 85\.5 GB"):
        FinetuneConfig(dataset=("x",), gpu_memory_limit="90GB").check_device()
    FinetuneConfig(dataset=("x",), gpu_memory_limit="90GB", device="cpu").check_device()
