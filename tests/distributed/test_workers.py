"""Several processes on loopback train as one does with the whole batch, and end together."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2cli.commands.finetune import finetune
from gpt2cli.config.finetune import FinetuneConfig
from tests.distributed.runs import arrays, command, losses, model_and_text
from tests.distributed.workers import Workers

pytestmark = pytest.mark.slow
STEPS = 20


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tensorflow: None) -> Path:
    model_and_text(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def alone(run: str, **options: Any) -> None:
    list(finetune(FinetuneConfig(**command.config, run_name=run, **options)))


def words(run: str, *more: object) -> list[object]:
    return [*command(), "--multi-gpu", "--run-name", run, *more]


def assert_same(place: Path, run: str, other: str, steps: int) -> None:
    runs = place / "checkpoint"
    expected = losses(runs / other)
    assert len(expected) == steps
    np.testing.assert_allclose(losses(runs / run), expected, atol=1e-5)
    there = arrays(runs / run, steps)
    for name, array in arrays(runs / other, steps).items():
        if not name.endswith("c_attn/b"):
            np.testing.assert_allclose(there[name], array, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(("count", "options"), [(2, {"lora_rank": 2}), (4, {})])
def test_twenty_steps_of_several_workers_equal_those_of_one(
    place: Path, count: int, options: dict[str, Any]
) -> None:
    more = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    with Workers(place, [words("many", "--steps", STEPS, *more)] * count) as workers:
        alone("one", steps=STEPS, **options)
        assert workers.codes() == [0] * count, [workers.told(n) for n in range(count)]
        assert "together: " + f"{count} devices" in workers.told(0)
        assert "saved step 20" in workers.told(0)
        assert workers.told(1).count("\n") == 1
    assert_same(place, "many", "one", STEPS)


def test_a_signal_to_any_stops_all_and_the_run_goes_on_alone(place: Path) -> None:
    with Workers(place, [words("run", "--steps", -1)] * 2) as workers:
        workers.wait_for(0, "[3 |")
        workers.processes[1].send_signal(signal.SIGTERM)
        assert workers.codes() == [143, 143], workers.told(0)
        assert "is saved; the same command goes on from there." in workers.told(0)
        assert "is saved; the same command goes on from there." in workers.told(1)
    step = len(losses(place / "checkpoint" / "run"))
    alone("run", until_step=step + 2)
    alone("one", until_step=step + 2)
    assert_same(place, "run", "one", step + 2)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_worker_that_is_killed_ends_all_and_the_job_goes_on(place: Path, victim: int) -> None:
    commands = [words("run", "--steps", 1000, "--save-every", 3)] * 2
    with Workers(place, commands) as workers:
        workers.wait_for(0, "saved step 3")
        workers.processes[victim].kill()
        began = time.monotonic()
        codes = workers.codes()
        assert time.monotonic() - began < 60
        assert codes[1 - victim] == 75, workers.told(1 - victim)
        line = workers.told(1 - victim).splitlines()[-1]
        assert line.startswith("gpt2cli: Another worker is gone (")
        assert line.endswith("The same command on every worker goes on from there.")
    pointer = (place / "checkpoint" / "run" / "checkpoint").read_text()
    step = int(pointer.split("model-")[1].split('"')[0])
    if victim:
        assert f"Step {step} is safe." in line
        with Workers(place, [words("run", "--until-step", step + 3)] * 2) as workers:
            assert workers.codes() == [0, 0], workers.told(0)
            assert f"/model-{step}: " in workers.told(0)
    else:
        alone("run", until_step=step + 3)
    assert (place / "checkpoint" / "run" / f"model-{step + 3}.index").exists()


def test_a_worker_that_never_comes_ends_those_that_wait(place: Path) -> None:
    waiting = words("run", "--wait-minutes", 0.03, "--batch-size", 3)
    with Workers(place, [waiting, waiting, ["--version"]]) as workers:
        assert workers.codes() == [75, 75, 0]
        assert "gpt2cli: worker 2 (127.0.0.1:" in workers.told(0)
        assert "did not come in time (--wait-minutes). Try again later." in workers.told(0)
    assert not list((place / "checkpoint" / "run").glob("model-*"))


def test_workers_that_would_train_otherwise_are_refused(place: Path) -> None:
    (place / "other.txt").write_text((place / "text.txt").read_text() * 2)
    other = ["other.txt" if word == "text.txt" else word for word in words("run")]
    for wrong, told in (
        (other, "corpus is 'tokens-"),
        (words("run", "--learning-rate", 5), "--learning-rate is '5.0', not '0.001'"),
    ):
        with Workers(place, [words("run"), wrong]) as workers:
            assert workers.codes() == [65, 65], workers.told(0)
            for number in (0, 1):
                assert "differs from worker 0" in workers.told(number)
                assert told.replace("tokens-", "") in workers.told(number)
    assert not list((place / "checkpoint" / "run").glob("model-*"))
