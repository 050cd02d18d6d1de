"""Signals at any instant of a command's start and end."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# How long the command takes, and more (seconds).
SPAN = 0.5
# Before this our first line may not have run, and Ctrl-C is Python's own (seconds).
STARTED = 0.05
MISSING = 66


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_instant_ends_the_command_without_a_traceback(
    tmp_path: Path, number: signal.Signals
) -> None:
    delays = random.Random(int(number))
    for _ in range(int(os.environ.get("GPT2CLI_TEST_STOPS", "25"))):
        process = subprocess.Popen(
            [sys.executable, "-m", "gpt2cli", "generate", "--run-name", "none"],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        time.sleep(delays.uniform(STARTED, SPAN))
        process.send_signal(number)
        _, told = process.communicate()
        assert process.returncode in (MISSING, -number, 128 + number), told
        assert b"Traceback" not in told
        assert b"ignored" not in told


def test_ctrl_c_while_the_program_loads_is_quiet(tmp_path: Path) -> None:
    # The command line's first import waits, as it would on a slow disk.
    (tmp_path / "typer.py").write_text("print('loading', flush=True)\nimport time\ntime.sleep(30)")
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}:{Path.cwd()}"
    for program in (["-m", "gpt2cli"], ["-c", "from gpt2cli.__main__ import main; main()"]):
        process = subprocess.Popen(
            [sys.executable, *program, "--version"],
            env=os.environ | {"PYTHONPATH": path},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"loading\n"
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=20)
        assert (process.returncode, told) == (-signal.SIGINT, b"")


def test_a_parent_that_ignores_ctrl_c_is_heeded(tmp_path: Path) -> None:
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "import gpt2cli.__main__; print(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "True\n"
