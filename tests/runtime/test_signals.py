"""What a signal does while something runs that must not be disturbed."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpt2cli.runtime import compile_cache, signals
from tests.conftest import unignored
from tests.marks import few

# The thread of pytest-timeout's other method would take the signals that the tests send.
pytestmark = pytest.mark.timeout(120, method="signal")


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Raises on signals as the command line does, and not after the test."""
    signals.raise_on_signals()
    yield
    signals.stop_listening()


def send(signum: int) -> None:
    """Sends a signal to the thread that waits for it.

    Sent to the whole process it may come to a thread that NumPy or TensorFlow began earlier, in
    another test, and which does not leave signals to others as those of the command line do.
    """
    waiters = [each.ident for each in threading.enumerate() if each.name == signals.WAITER]
    assert len(waiters) == 1 and waiters[0]
    signal.pthread_kill(waiters[0], signum)


def send_soon(signum: int) -> None:
    """Sends a signal while the main thread sleeps, and not in the instant before it does.

    In that instant nothing wakes it, and the process is ended after a while, as it should be.
    """
    threading.Timer(0.3, send, [signum]).start()


def test_a_held_signal_comes_at_the_end_of_the_block() -> None:
    done = []
    with pytest.raises(signals.Interrupted) as caught, signals.signals_blocked():
        send(signal.SIGTERM)
        time.sleep(0.3)
        done.append("the block")
    assert (caught.value.signum, done) == (signal.SIGTERM, ["the block"])


def test_a_signal_counts_for_more_than_a_failure_of_the_block() -> None:
    with pytest.raises(ValueError, match="alone"), signals.signals_blocked():
        raise ValueError("alone")
    with pytest.raises(signals.Interrupted), signals.signals_blocked():
        send(signal.SIGINT)
        time.sleep(0.3)
        raise ValueError


WAITS = """
import sys, time
from gpt2cli.runtime import signals
from tests.conftest import unignored
signals.raise_on_signals()
with signals.deferred() as stop:
    print("ready", flush=True)
    end = time.monotonic() + float(sys.argv[1])
    while not stop and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.5)
sys.exit(100 + stop.signum if stop else 0)
"""


CATCHES = """
import sys, time
from gpt2cli.runtime import signals
from gpt2cli.runtime.signals import interrupts_caught
signals.raise_on_signals()
try:
    with interrupts_caught() as stop:
        print("ready", flush=True)
        while not stop.interrupted:
            time.sleep(0.01)
        print("heard", flush=True)
        time.sleep(float(sys.argv[1]))
except signals.Interrupted as interrupted:
    sys.exit(100 + interrupted.signum)
"""


def waiting(seconds: float, program_text: str = WAITS) -> subprocess.Popen[str]:
    program = [sys.executable, "-c", program_text, str(seconds)]
    process = subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=unignored
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_second_ctrl_c_ends_what_does_not_listen_to_the_first() -> None:
    process = waiting(60, CATCHES)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None and process.stdout.readline() == "heard\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 100 + signal.SIGINT
    process.communicate()


def pause(process: subprocess.Popen[str], times: int) -> None:
    for number in range(times):
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.12 + 0.01 * number)
        process.send_signal(signal.SIGCONT)
        time.sleep(0.02)


def test_a_process_that_is_stopped_and_continued_has_heard_no_signal() -> None:
    process = waiting(2)
    pause(process, 10)
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 0


@pytest.mark.parametrize("number", few(signals.SIGNALS, 1))
def test_a_process_that_was_stopped_and_continued_hears_one_signal_once(number: int) -> None:
    process = waiting(20)
    pause(process, 3)
    process.send_signal(number)
    pause(process, 2)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 100 + number
    assert said.count("stopping after this step") == 1


def test_a_signal_raises_at_once_where_there_is_nothing_to_finish() -> None:
    with pytest.raises(signals.Interrupted) as caught, signals.deferred() as stop, stop.at_once():
        send_soon(signal.SIGTERM)
        time.sleep(20)
    assert caught.value.signum == signal.SIGTERM


def test_a_signal_that_a_callback_swallows_is_heard_at_the_end_of_the_block() -> None:
    done = []
    with pytest.raises(signals.Interrupted), signals.deferred() as stop, stop.at_once():
        with contextlib.suppress(signals.Interrupted):
            send_soon(signal.SIGHUP)
            time.sleep(5)
        done.append("the block")
    assert done == ["the block"]


def test_a_signal_that_came_before_leaves_what_begins_at_once() -> None:
    with pytest.raises(signals.Interrupted), signals.deferred() as stop:
        send(signal.SIGINT)
        time.sleep(0.3)
        assert stop.signum == signal.SIGINT
        with stop.at_once():
            pytest.fail("it began")


STAYS = """
import hashlib, os, signal, sys, threading, time
from gpt2cli import cli
from gpt2cli.runtime import signals
def work(arguments):
    print("ready", flush=True)
    try:
        if sys.argv[1] == "deep":
            hashlib.pbkdf2_hmac("sha512", b"", b"", 10**9)
        time.sleep(20)
    except BaseException as error:
        if sys.argv[1] == "turned":
            raise ValueError("something else")
    time.sleep({"lost": 20}.get(sys.argv[1], 0.1))
    return 0
cli.run_command = work
cli.main()
"""


@pytest.mark.parametrize("how", ["deep", "lost", "turned", "swallowed"])
def test_a_signal_ends_the_process_whatever_a_library_makes_of_it(how: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STAYS, how],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=unignored,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert time.monotonic() - began < 3
    assert (process.returncode, said) == (143, "gpt2cli: stopped\n")


def test_what_is_raised_where_nobody_can_catch_it_shows_no_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Last:
        def __del__(self) -> None:
            raise signals.Interrupted(signal.SIGTERM)

    Last()
    assert capsys.readouterr().err == ""


def test_two_signals_in_a_row_as_timeout_sends_them_are_one() -> None:
    process = waiting(20)
    for _ in range(3):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.01)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 100 + signal.SIGTERM
    assert said.count("stopping after this step") == 1


@pytest.mark.parametrize(("second", "wait"), [(signal.SIGINT, 0.05), (signal.SIGTERM, 0.4)])
def test_a_second_signal_leaves_at_once(second: int, wait: float) -> None:
    process = waiting(20)
    process.send_signal(signal.SIGTERM)
    time.sleep(wait)
    process.send_signal(second)
    process.communicate(timeout=20)
    assert process.returncode == 128 + second


def test_a_message_of_what_is_safe_is_told_by_whatever_ends_the_block() -> None:
    with (
        pytest.raises(signals.Interrupted) as caught,
        signals.deferred() as stop,
        stop.at_once("Step 3 is saved."),
    ):
        send_soon(signal.SIGTERM)
        time.sleep(20)
    assert caught.value.message == "Step 3 is saved."


LEAVES = """
import sys, threading, time
from pathlib import Path
from gpt2cli.runtime import compile_cache, signals
place = Path(sys.argv[1])
assert compile_cache.prepare_folder(place)
(place / "program.pb").write_bytes(b"compiled")
thread = threading.Thread(target=time.sleep, args=(60,))
thread.start()
print("said")
signals.ABANDONED.append(thread)
signals.leave(74)
"""


def test_the_exit_code_is_the_commands_whoever_still_computes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LEAVES, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (74, "said\n"), done.stderr
    # What was compiled until then is sealed all the same.
    assert compile_cache.is_sealed(tmp_path / "program.pb")
