"""What a run is expected to take, against runs that were measured, and what would fit."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from gpt2cli.commands.finetune import footprint_of
from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.errors import Gpt2cliError
from gpt2cli.hparams import HParams
from gpt2cli.runtime import hardware
from gpt2cli.training import memory
from tests import gpus, models

LARGE = HParams(n_vocab=50257, n_ctx=1024, n_embd=1280, n_head=20, n_layer=36)
XL = HParams(n_vocab=50257, n_ctx=1024, n_embd=1600, n_head=25, n_layer=48)
SAVING = {"use_memory_saving_gradients": True}


def expected(hparams: HParams, rank: int = 0, **settings: Any) -> float:
    config = FinetuneConfig(dataset=("x",), **{"accumulate_gradients": 1} | settings)
    return footprint_of(config, hparams, rank).expected()


@pytest.mark.parametrize(
    ("hparams", "rank", "settings", "measured"),
    [
        (models.GPT2_124M, 0, {}, 3.93e9),
        (models.GPT2_124M, 0, {"batch_size": 4}, 6.84e9),
        (models.GPT2_124M, 0, {"batch_size": 4, "window": 512}, 4.56e9),
        (models.GPT2_124M, 0, SAVING, 2.87e9),
        (models.GPT2_124M, 0, SAVING | {"clip_norm": 0.0}, 2.76e9),
        (models.GPT2_124M, 0, SAVING | {"accumulate_gradients": 2}, 3.33e9),
        (LARGE, 0, SAVING | {"optimizer": "adafactor"}, 7.31e9),
        (LARGE, 0, SAVING | {"optimizer": "adafactor", "clip_norm": 0.0}, 4.94e9),
        (XL, 8, SAVING | {"window": 512}, 4.91e9),
        (LARGE, 8, {"window": 512}, 4.66e9),
    ],
)
def test_the_estimate_is_near_what_was_measured(
    hparams: HParams, rank: int, settings: dict[str, Any], measured: float
) -> None:
    assert expected(hparams, rank, **settings) == pytest.approx(measured, rel=0.2)


@pytest.mark.parametrize(
    ("hparams", "rank", "window", "measured"),
    [(models.GPT2_124M, 0, 1024, 4.84e9), (XL, 8, 512, 17.28e9)],
)
def test_one_program_takes_more(hparams: HParams, rank: int, window: int, measured: float) -> None:
    config = FinetuneConfig(dataset=("x",), accumulate_gradients=1, window=window)
    run = dataclasses.replace(footprint_of(config, hparams, rank), partial=False)
    assert run.expected() == pytest.approx(measured, rel=0.2)


def test_gradients_are_held_together_only_where_they_must_be() -> None:
    many = {"accumulate_gradients": 5, "optimizer": "adafactor"}
    for settings, together in (
        ({}, True),
        (SAVING, True),
        (SAVING | {"clip_norm": 0.0}, False),
        (SAVING | {"clip_norm": 0.0, "precision": "float16"}, True),
        (SAVING | many, False),
        (many, True),
    ):
        config = FinetuneConfig(dataset=("x",), **{"accumulate_gradients": 1} | settings)
        assert footprint_of(config, LARGE, 0).gathers is together, settings
        assert footprint_of(config, LARGE, 0, machines=2).gathers


@pytest.mark.parametrize(
    ("capability", "together", "fused"),
    [((6, 1), False, False), ((7, 5), True, False), ((8, 0), False, True), (None, False, False)],
)
def test_the_precision_that_a_gpu_gets_is_known_without_tensorflow(
    capability: tuple[int, int] | None,
    together: bool,
    fused: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(hardware, "gpus", lambda: [gpus.card(capability=capability)])
    options: dict[str, Any] = SAVING | {"clip_norm": 0.0, "accumulate_gradients": 1}
    run = footprint_of(FinetuneConfig(dataset=("x",), **options), LARGE, 0)
    # Float16 waits for all gradients, as one that is no number stops the step.
    assert (run.gathers, run.fused) == (together, fused)


def test_what_is_trained_is_counted() -> None:
    config = FinetuneConfig(dataset=("x",))
    run = footprint_of(config, models.GPT2_124M, 0)
    assert run.trained == 124_439_808
    assert dataclasses.replace(run, blocks_only=True).trained == 12 * 7_087_872
    # Two matrices of rank 8 beside each matrix: its width and its columns, together.
    assert dataclasses.replace(run, rank=8).trained == 12 * 8 * (3072 + 1536 + 3840 + 3840)


def check(free: float, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> str:
    monkeypatch.setattr(memory, "free_bytes", lambda _device, _limit: free)
    config = FinetuneConfig(dataset=("x",), accumulate_gradients=1, **settings)
    return memory.check_memory(
        footprint_of(config, models.GPT2_124M, 0), config, refuse=config.memory_check
    )


def test_a_run_that_fits_is_told_and_one_that_does_not_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert check(8e9, monkeypatch) == "memory: about 4.2 GB expected, 8.0 GB free"
    with pytest.raises(Gpt2cliError) as refused:
        check(3.5e9, monkeypatch)
    assert "4.2 GB expected, 3.5 GB free. --use-memory-saving-gradients would" in str(refused.value)
    assert refused.value.exit_code == 1
    with pytest.raises(Gpt2cliError, match=r"--optimizer adafactor would take about 2\.2 GB"):
        check(2.5e9, monkeypatch)
    with pytest.raises(Gpt2cliError, match=r"--lora-rank 8 would take about 1.[0-9] GB"):
        check(2e9, monkeypatch)
    with pytest.raises(Gpt2cliError, match="take a smaller model"):
        check(0.5e9, monkeypatch)
    assert "0.5 GB free" in check(0.5e9, monkeypatch, memory_check=False)


def test_what_is_free_is_what_the_kernel_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < memory.free_bytes("cpu") <= whole
    (tmp_path / "memory.max").write_text("3000000000\n")
    (tmp_path / "memory.current").write_text("2500000000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 1500000000\nslab 5\n")
    monkeypatch.setattr(hardware, "CGROUP", tmp_path)
    assert memory.free_bytes("cpu") == 2e9
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho GPU-1, Card 9000, 580.65.06, 4096, 1024, 9.0\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert memory.free_bytes("auto") == 2**30
    assert memory.free_bytes("auto", 2**29) == 2**29
    assert memory.free_bytes("cpu") == 2e9


@pytest.mark.parametrize(
    ("chosen", "device", "told"),
    [
        (None, "auto", "3 GPUs"),
        ("0,2", "auto", "2 GPUs"),
        ("1", "gpu", "1 GPU"),
        ("", "auto", "the CPU"),
        ("-1", "auto", "the CPU"),
        (None, "cpu", "the CPU"),
    ],
)
def test_what_a_run_will_compute_on_is_known_without_tensorflow(
    chosen: str | None, device: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = gpus.card()
    monkeypatch.setattr(hardware, "gpus", lambda: [card] * 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert memory.devices(device) == told
    monkeypatch.setattr(hardware, "gpus", list)
    assert memory.devices(device) == "the CPU"
