"""Several processes on loopback train as one does with the whole batch, and end together."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2cli.commands.finetune import finetune
from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.distributed import wire
from tests.distributed.runs import TEXT, arrays, command, losses, model_and_text
from tests.distributed.workers import Workers, free_ports

pytestmark = pytest.mark.slow
STEPS = 20


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tensorflow: None) -> Path:
    model_and_text(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def alone(run: str, **options: Any) -> None:
    list(finetune(FinetuneConfig(**command.config | options, run_name=run)))


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


@pytest.mark.parametrize(
    ("count", "options"), [(2, {"lora_rank": 2}), (2, {}), (4, {}), (2, {"xla": True})]
)
def test_twenty_steps_of_several_workers_equal_those_of_one(
    place: Path, count: int, options: dict[str, Any]
) -> None:
    more = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
        for name, value in options.items()
    ]
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


@pytest.mark.parametrize(
    ("text", "safe"), [("together:", "No step was done yet"), ("[2 |", "Step 2 is saved")]
)
def test_a_signal_to_the_first_in_its_validation_ends_all_in_order(
    place: Path, text: str, safe: str
) -> None:
    (place / "val.txt").write_text(TEXT * 100)
    more = ("--steps", -1, "--val-dataset", "val.txt", "--val-batches", 100_000)
    with Workers(place, [words("run", *more)] * 2) as workers:
        workers.wait_for(0, text)
        time.sleep(1)
        workers.processes[0].send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert workers.codes() == [143, 143], workers.told(0)
        assert time.monotonic() - began < 10
        for number in (0, 1):
            assert f"{safe}; the same command goes on from there." in workers.told(number)
            assert "Traceback" not in workers.told(number)
    # It was cut, or the test has shown nothing.
    assert workers.told(0).count("val_loss") == ("Step" in safe)


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


def hello_of(workers: Workers) -> tuple[socket.socket, dict[str, Any]]:
    """Plays the first of two workers; returns its end of the line, and what the second said."""
    with wire.listening(workers.cluster(0)) as server:
        connection = server.accept()[0]
    hello = wire.received(connection, 60)
    assert hello is not None
    wire.sent(connection, {"welcome": True})
    return connection, hello


def assert_told_of_one_that_left(workers: Workers, number: int, *, joining: bool) -> None:
    """A worker ends within a minute, and says why: TensorFlow had begun to join, or not yet."""
    began = time.monotonic()
    assert workers.codes() == [75], workers.told(number)
    assert time.monotonic() - began < 60
    told = "The workers do not find each other: " if joining else "went away before training"
    assert told in workers.told(number)
    assert "Traceback" not in workers.told(number)


@pytest.mark.parametrize("until_ready", [False, True])
def test_a_leader_that_leaves_after_the_meeting_ends_the_others(
    place: Path, until_ready: bool
) -> None:
    # TensorFlow's own joining is waited for no longer either.
    wait = 0.2 if until_ready else 5
    with Workers(place, [None, words("run", "--wait-minutes", wait)]) as workers:
        connection, _ = hello_of(workers)
        with connection:
            wire.sent(connection, {"seed": 1})
            if until_ready:
                assert wire.received(connection, 60) == {"devices": "the CPU"}
                wire.sent(connection, {"go": True})
        assert_told_of_one_that_left(workers, 1, joining=until_ready)


@pytest.mark.parametrize("until_ready", [False, True])
def test_a_worker_that_is_killed_after_the_meeting_ends_the_leader(
    place: Path, until_ready: bool
) -> None:
    with Workers(place, [None, words("run")]) as workers:
        connection, hello = hello_of(workers)
        connection.close()
    wait = 0.2 if until_ready else 5
    with Workers(place, [words("run", "--wait-minutes", wait), None]) as workers:
        connection = workers.connection(0)
        with connection:
            wire.sent(connection, hello)
            assert wire.received(connection, 60) == {"welcome": True}
            assert "seed" in (wire.received(connection, 60) or {})
            if until_ready:
                wire.sent(connection, {"devices": "the CPU"})
                assert wire.received(connection, 60) == {"go": True}
        assert_told_of_one_that_left(workers, 0, joining=until_ready)


def test_a_signal_to_a_leader_that_waits_for_tensorflow_ends_all_at_once(place: Path) -> None:
    with Workers(place, [None, words("run", "--wait-minutes", 5)]) as workers:
        connection, _ = hello_of(workers)
        with connection:
            wire.sent(connection, {"seed": 1})
            assert wire.received(connection, 60) == {"devices": "the CPU"}
            workers.processes[0].send_signal(signal.SIGTERM)
            began = time.monotonic()
            assert workers.codes() == [143]
            assert time.monotonic() - began < 10
    assert "gpt2cli: stopped; no step was done yet." in workers.told(1)


def test_a_signal_to_the_leader_in_the_meeting_ends_those_who_are_here(place: Path) -> None:
    with Workers(place, [words("run", "--batch-size", 3)] * 2 + [None]) as workers:
        workers.wait_for(1, "of 3; the chief prints and writes")
        time.sleep(6)
        workers.processes[0].send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert workers.codes() == [143, 75]
        assert time.monotonic() - began < 10
    assert "worker 0 (127.0.0.1:" in workers.told(1)
    assert "went away before training began. Try again later." in workers.told(1)


def test_a_port_that_is_in_use_ends_all_with_a_line(place: Path) -> None:
    ports = free_ports(2)
    with (
        socket.create_server(("", ports[1])),
        Workers(place, [words("run", "--wait-minutes", 0.15)] * 2, ports) as workers,
    ):
        assert workers.codes() == [75, 75]
        assert "cannot listen: Address already in use" in workers.told(1)
        assert "did not come in time" in workers.told(0)


def test_a_port_that_is_taken_after_the_meeting_ends_with_a_line(place: Path) -> None:
    with Workers(place, [None, words("run", "--wait-minutes", 5)]) as workers:
        connection, _ = hello_of(workers)
        with connection:
            wire.sent(connection, {"seed": 1})
            assert wire.received(connection, 60) == {"devices": "the CPU"}
            with socket.create_server(("", workers.ports[1])):
                wire.sent(connection, {"go": True})
                assert workers.codes() == [75], workers.told(1)
    assert "The workers do not find each other: Could not start gRPC server" in workers.told(1)


def test_a_worker_that_is_frozen_ends_the_others(place: Path) -> None:
    with Workers(place, [words("run", "--steps", 1000, "--save-every", 3)] * 2) as workers:
        workers.wait_for(0, "saved step 3")
        workers.processes[1].send_signal(signal.SIGSTOP)
        began = time.monotonic()
        assert workers.processes[0].wait(60) == 75
        assert time.monotonic() - began < 60
        assert "gpt2cli: Another worker is gone (" in workers.told(0)


def test_workers_that_are_all_done_end_at_once_with_0(place: Path) -> None:
    alone("run", steps=2)
    with Workers(place, [words("run", "--until-step", 2)] * 2) as workers:
        assert workers.codes() == [0, 0]
        assert "run is already at step 2." in workers.told(0)
        assert "Traceback" not in workers.told(1)
