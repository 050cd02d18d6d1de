"""Training is killed and stopped at random moments, and nothing that was saved is ever lost."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2cli.files import paths
from gpt2cli.storage import bundle, checkpoint
from tests.faults.fork_server import ForkServer

# The full count is 200; it takes a quarter of an hour.
KILLS = int(os.environ.get("GPT2CLI_TEST_KILLS", "6"))
STOPS = int(os.environ.get("GPT2CLI_TEST_STOPS", "3"))
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
TEXT = "".join(f"{n}. The cat sat on the mat, and the other cat sat there.\n" for n in range(60))
OPTIONS = (
    "text.txt --model-name small --seed 1 --accumulate-gradients 2 --sample-every 0 "
    "--val-every 3 --val-fraction 0.2 --val-batches 4 "
    "--save-every 1 --dropout 0.1 --learning-rate 1e-4"
)
# In saving above all: half of the moments lie in the first steps, the others anywhere.
LONGEST_SECONDS = 1.0
PATIENCE_SECONDS = 120


@pytest.fixture
def server(tmp_path: Path, mini_model: Path) -> Iterator[ForkServer]:
    shutil.copytree(mini_model, tmp_path / "models" / "small")
    (tmp_path / "text.txt").write_text(TEXT)
    started = ForkServer(tmp_path)
    yield started
    started.close()


def trained(server: ForkServer, name: str, last: int) -> str:
    """Trains a run up to a step; returns what was printed."""
    server.start("finetune", *OPTIONS.split(), "--run-name", name, "--until-step", last)
    assert server.end() == 0, server.output()
    return server.output()


def interrupted(server: ForkServer, dice: random.Random, number: int) -> tuple[int, str]:
    """Begins to train, and sends a signal at a random moment; returns exit code and output."""
    pid = server.start("finetune", *OPTIONS.split(), "--run-name", "cut", "--steps", -1)
    end = time.monotonic() + PATIENCE_SECONDS
    # One in five dies before its first step.
    wanted = "device:" if dice.random() < 0.2 else "] loss="
    while wanted not in server.output() and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(dice.random() * dice.choice([0.1, LONGEST_SECONDS]))
    if dice.random() < 0.5:
        # As Ctrl-Z and `fg` do, or a frozen container: nothing is to come of it.
        os.kill(pid, signal.SIGSTOP)
        time.sleep(dice.random() * 0.2)
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.02)
    os.kill(pid, number)
    return server.end(), server.output()


def last_number(pattern: str, text: str) -> int:
    return max(map(int, re.findall(pattern, text)), default=0)


def arrays(folder: Path, step: int, kind: str) -> dict[str, Any]:
    prefix = folder / f"{kind}-{step}"
    return dict(checkpoint.load(prefix, bundle.read_index(prefix)[0]))


def check_equal(place: Path, step: int) -> None:
    """Checks that the run that was cut is that which never was, to the last bit."""
    for kind in ("model", "optimizer"):
        found, expected = (arrays(place / "checkpoint" / run, step, kind) for run in RUNS)
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, err_msg=name)
    cut, whole = (
        json.loads((place / f"checkpoint/{run}/state-{step}.json").read_text()) for run in RUNS
    )
    for name in ("files", "static", "sha256"):
        del cut[name], whole[name]
    assert cut == whole
    assert whole["best_loss"] is not None
    best = [(place / f"checkpoint/{run}/best.json").read_text() for run in RUNS]
    assert best[0] == best[1]


RUNS = ("cut", "whole")


def check_life(place: Path, output: str, saved: int) -> int:
    """Checks that a command went on from what was saved last; returns what is saved now."""
    began = last_number(r"from checkpoint/cut/model-(\d+):", output)
    assert began >= saved or "seed" not in output, output
    assert "is stepped over" not in output, output
    assert "Traceback" not in output, output
    return max(saved, last_number(r"saved step (\d+):", output))


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_run_killed_at_random_moments_loses_nothing(tmp_path: Path, server: ForkServer) -> None:
    dice, saved = random.Random(KILLS), 0
    for _ in range(KILLS):
        code, output = interrupted(server, dice, signal.SIGKILL)
        assert code == -signal.SIGKILL, output
        saved = check_life(tmp_path, output, saved)
    assert saved
    last = saved + 10
    check_life(tmp_path, trained(server, "cut", last), saved)
    trained(server, "whole", last)
    check_equal(tmp_path, last)
    steps = [paths.checkpoint_steps(tmp_path / "checkpoint" / run) for run in RUNS]
    assert steps[0] == steps[1]
    assert not list((tmp_path / "checkpoint" / "cut").glob(".*"))
    (tmp_path / "count.txt").write_text(f"{KILLS} kills, {last} steps")


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_run_stopped_by_signals_ends_saved_every_time(tmp_path: Path, server: ForkServer) -> None:
    dice, saved = random.Random(STOPS), 0
    for turn in range(STOPS):
        number = SIGNALS[turn % len(SIGNALS)]
        code, output = interrupted(server, dice, number)
        assert code == 128 + number, output
        check_life(tmp_path, output, saved)
        printed = last_number(r"\[(\d+) \|", output)
        saved = max(saved, printed)
        if saved:
            assert f"Step {saved} is saved" in output, output
            assert paths.newest(tmp_path / "checkpoint/cut") == (
                tmp_path / "checkpoint/cut" / f"model-{saved}"
            )
        else:
            assert "No step was done yet" in output, output
    assert saved
    last = saved + 10
    trained(server, "cut", last)
    trained(server, "whole", last)
    check_equal(tmp_path, last)
