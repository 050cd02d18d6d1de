"""One machine's devices together do what one does with the whole batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2cli.commands.finetune import finetune
from gpt2cli.config.finetune import FinetuneConfig
from tests.conftest import Run
from tests.distributed import twice
from tests.distributed.runs import arrays, command, losses, model_and_text

VARIANTS: list[dict[str, Any]] = [
    {},
    {"accumulate": 3, "weight_decay": 0.1, "mode": "FULL"},
    {"recompute": True, "clip_norm": 0.1, "mode": "PARTIAL"},
    {"optimizer": "adafactor", "accumulate": 3, "clip_norm": 0.0},
    {"optimizer": "sgd"},
    {"optimizer": "adamw", "weight_decay": 0.1, "accumulate": 2, "mode": "BLOCKS"},
    {"accumulate": 3, "masked": True},
    {"optimizer": "sgd", "precision": "float16", "clip_norm": 0.0},
    {"dropout": 0.3},
]
EQUAL = 7
TWO = os.environ | {"GPT2CLI_CPU_DEVICES": "2"}


@pytest.fixture(scope="module")
def found() -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.distributed.twice", *map(json.dumps, VARIANTS)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_twenty_steps_on_two_devices_equal_those_on_one(found: list[dict[str, Any]]) -> None:
    for options, result in zip(VARIANTS[:EQUAL], found, strict=False):
        pairs = np.array(result["losses"])
        assert pairs.shape == (twice.STEPS, 2)
        np.testing.assert_allclose(pairs[:, 0], pairs[:, 1], atol=1e-5, err_msg=str(options))
        norms = np.array(result["norms"])
        np.testing.assert_allclose(norms[:, 0], norms[:, 1], rtol=1e-5, err_msg=str(options))
        assert result["weights"] < 1e-5, options


@pytest.mark.slow
def test_every_device_holds_the_same_weights_once(found: list[dict[str, Any]]) -> None:
    for result in found:
        assert result["devices"] == 0
        assert result["places"] == ["CPU:0", "CPU:1"]


@pytest.mark.slow
def test_narrow_gradients_are_averaged_too(found: list[dict[str, Any]]) -> None:
    pairs = np.array(found[EQUAL]["losses"])
    np.testing.assert_allclose(pairs[:, 0], pairs[:, 1], rtol=2e-3)
    assert found[EQUAL]["weights"] < 1e-3


@pytest.mark.slow
def test_each_device_drops_others_than_the_next(found: list[dict[str, Any]]) -> None:
    pairs = np.array(found[EQUAL + 1]["losses"])
    assert np.abs(pairs[:, 0] - pairs[:, 1]).max() > 1e-3
    # The first step's weights are the same: what differs is what is dropped.
    assert 0 < abs(pairs[0, 0] - pairs[0, 1]) < 1


@pytest.mark.slow
def test_a_run_goes_on_alike_on_another_number_of_devices(
    tmp_path: Path, cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_and_text(tmp_path)
    monkeypatch.chdir(tmp_path)
    options = FinetuneConfig(**command.config, run_name="one", until_step=6)
    whole = list(finetune(options))
    list(finetune(FinetuneConfig(**command.config, run_name="two", until_step=3)))
    more = ("--run-name", "two", "--until-step", 6, "--multi-gpu")
    done = cli(*command(), *more, env=TWO)
    assert done.returncode == 0, done.stderr
    assert "together: 2 devices, 2 of each micro-batch's windows on each" in done.stderr
    expected = losses(tmp_path / "checkpoint" / "one")
    np.testing.assert_allclose(losses(tmp_path / "checkpoint" / "two"), expected, atol=1e-5)
    assert len(expected) == 6
    assert whole
    for name, array in arrays(tmp_path / "checkpoint" / "one", 6).items():
        if not name.endswith("c_attn/b"):
            there = arrays(tmp_path / "checkpoint" / "two", 6)[name]
            np.testing.assert_allclose(there, array, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_is_refused_and_one_device_is_said(
    tmp_path: Path, cli: Run
) -> None:
    model_and_text(tmp_path)
    done = cli(*command(), "--batch-size", 3, "--steps", 1, "--multi-gpu", env=TWO)
    assert done.returncode == 2
    assert "--batch-size 3 cannot be shared by 2 devices; give 2 or 4." in done.stderr
    assert not list((tmp_path / "checkpoint" / "run1").glob("model-*"))
    done = cli(*command(), "--steps", 1, "--multi-gpu")
    assert done.returncode == 0, done.stderr
    assert "--multi-gpu: there is only one device; it trains as without." in done.stderr
