"""What needs an NVIDIA GPU: `pytest -m gpu` on a machine that has one, with nothing else on it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2cli.commands.finetune import footprint_of
from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.runtime import hardware
from gpt2cli.training.footprint import GPU_PROGRAM_BYTES
from tests import models
from tests.conftest import Run
from tests.gpu import worker

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def capability() -> tuple[int, int]:
    """The compute capability of the GPU that is used."""
    return hardware.visible_gpus()[0].capability or (0, 0)


@pytest.fixture(scope="module")
def on_cpu() -> Any:
    """Losses of the reference, in float32 on the CPU."""
    return worker.run("cpu", {"job": "losses"})[0]


@pytest.fixture
def has_half(capability: tuple[int, int]) -> None:
    if capability < (8, 0):
        pytest.skip(f"compute capability {capability} has no bfloat16, nor cuDNN's attention")


def test_float32_trains_as_on_the_cpu(on_cpu: Any) -> None:
    usual, saving = worker.run(
        "gpu",
        {"job": "losses", "precision": "float32"},
        {"job": "losses", "precision": "float32", "recompute": True},
    )
    assert not usual["fused"]
    for found in (usual, saving):
        np.testing.assert_allclose(found["losses"], on_cpu["losses"], rtol=1e-3)
        np.testing.assert_allclose(found["norms"], on_cpu["norms"], rtol=1e-2)


@pytest.mark.usefixtures("has_half")
def test_half_precision_trains_nearly_as_float32(on_cpu: Any) -> None:
    jobs = [
        {"job": "losses", "precision": precision, "recompute": recompute}
        for precision in ("bfloat16", "float16")
        for recompute in (False, True)
    ]
    for found in worker.run("gpu", *jobs):
        assert found["fused"], found["why"]
        np.testing.assert_allclose(found["losses"], on_cpu["losses"], rtol=0.02)


@pytest.mark.usefixtures("has_half")
def test_cudnns_attention_is_attention_forward_and_back() -> None:
    shapes = [(8, 1024, 12, 64), (1, 1024, 25, 64), (2, 77, 16, 64), (1, 1, 2, 8)]
    jobs = [{"job": "attention", "kind": "bfloat16", "shape": shape} for shape in shapes]
    jobs += [{"job": "attention", "kind": "float16", "shape": shapes[0]}]
    for job, found in zip(jobs, worker.run("gpu", *jobs), strict=True):
        assert max(found) < 1e-2, (job, found)


def test_greedy_tokens_are_the_cpus_in_float32() -> None:
    job = {"job": "greedy", "precision": "float32"}
    assert worker.run("gpu", job) == worker.run("cpu", job)


def test_two_parts_of_one_gpu_train_like_one(on_cpu: Any) -> None:
    job = {"job": "losses", "precision": "float32", "parts": 2}
    (found,) = worker.run("gpu", job, GPT2CLI_GPU_DEVICES="2")
    np.testing.assert_allclose(found["losses"], on_cpu["losses"], rtol=1e-3)


@pytest.mark.usefixtures("has_half")
@pytest.mark.parametrize(
    "settings",
    [
        {"batch": 8},
        {"batch": 8, "recompute": True},
        {"batch": 1, "accumulate": 5},
    ],
    ids=str,
)
def test_the_estimate_of_memory_is_near_the_peak(settings: dict[str, Any]) -> None:
    job = {"job": "losses", "shape": "124M", "precision": "bfloat16", "steps": 3, **settings}
    (found,) = worker.run("gpu", job)
    config = FinetuneConfig(
        dataset=("x",),
        batch_size=settings["batch"],
        accumulate_gradients=settings.get("accumulate", 1),
        use_memory_saving_gradients=settings.get("recompute", False),
    )
    expected = footprint_of(config, models.GPT2_124M, 0).expected()
    assert expected == pytest.approx(found["peak"] + GPU_PROGRAM_BYTES, rel=0.2), found


def finetuned(cli: Run, *options: object, **environment: str) -> Any:
    """Runs `finetune` on the bundled model; returns the process."""
    return cli(
        *("finetune", "text.txt", "--model-name", "tiny", "--seed", 1, "--sample-every", 0),
        *("--val-every", 0, *options),
        env=os.environ | environment,
    )


def test_with_deterministic_operations_a_resumed_run_is_the_uninterrupted_one(
    cli: Run, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("".join(f"Number {n} is a truth. " for n in range(3000)))
    sums = []
    for lengths in ((8,), (4, 8)):
        shutil.rmtree(tmp_path / "checkpoint", ignore_errors=True)
        for length in lengths:
            done = finetuned(cli, "--until-step", length, TF_DETERMINISTIC_OPS="1")
            assert done.returncode == 0, done.stderr
        state = json.loads((tmp_path / "checkpoint" / "run1" / "state-8.json").read_text())
        sums.append(state)
    assert sums[0]["files"] == sums[1]["files"]


def test_memory_that_runs_out_ends_with_what_fits_and_the_run_safe(
    cli: Run, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("".join(f"Number {n} is a truth. " for n in range(9000)))
    assert finetuned(cli, "--until-step", 2).returncode == 0
    done = finetuned(
        cli,
        *("--until-step", 4, "--batch-size", 64, "--gpu-memory-limit", "300MB"),
        "--no-memory-check",
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "memory ran out" in done.stderr
    assert "Step 2 is safe" in done.stderr
    assert "--batch-size 1" in done.stderr
