"""Processes that encode side by side: in order, whatever becomes of them, and gone at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpt2cli.text import crew
from gpt2cli.text.tokenizer import Tokenizer
from tests import models

CHUNKS: list[str | bytes] = [f"chunk {n}, the same in any order? " * (n + 1) for n in range(12)]
CHUNKS[5:5] = [b"\1\0\2\0", b"\3\0"]


def alone(tokenizer: Tokenizer) -> bytes:
    return b"".join(crew.encoded(CHUNKS, tokenizer, 1))


def test_chunks_come_back_in_order(tokenizer: Tokenizer) -> None:
    assert b"".join(crew.encoded(CHUNKS, tokenizer, 3)) == alone(tokenizer)


def test_threads_of_compiled_loops_give_the_same_in_order(tokenizer: Tokenizer) -> None:
    compiled = models.real_tokenizer()
    compiled.compile()
    for count in (1, 2, 3):
        assert b"".join(crew.encoded(CHUNKS, compiled, count)) == alone(tokenizer)
    assert children(os.getpid()) == []


def test_a_small_vocabulary_of_ones_own_is_used_by_the_helpers_too() -> None:
    tokens, merges = models.byte_vocabulary(260)
    tokenizer = Tokenizer(tokens, merges)
    assert b"".join(crew.encoded(CHUNKS, tokenizer, 2)) == alone(tokenizer)


def test_a_helper_that_is_killed_is_replaced_by_this_process(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def note(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        started.append(popen(*arguments, **options))  # type: ignore[call-overload]
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", note)
    encoded = crew.encoded(CHUNKS, tokenizer, 2)
    found = [next(encoded) for _ in range(4)]
    started[0].kill()
    found += [next(encoded)]
    started[1].kill()
    assert b"".join(found + list(encoded)) == alone(tokenizer)
    assert all(process.returncode is not None for process in started)


def test_without_helpers_this_process_does_all(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    assert b"".join(crew.encoded(CHUNKS, tokenizer, 2)) == alone(tokenizer)


def test_helpers_are_gone_when_encoding_is_given_up(tokenizer: Tokenizer) -> None:
    encoded = crew.encoded(CHUNKS, tokenizer, 2)
    next(encoded)
    assert len(children(os.getpid())) == 2
    encoded.close()  # type: ignore[attr-defined]
    assert children(os.getpid()) == []


def test_helpers_load_neither_tensorflow_nor_the_main_module(tmp_path: Path) -> None:
    # A script without `if __name__ == "__main__"` that loads TensorFlow: it is run but once.
    (tmp_path / "tensorflow.py").write_text("open('loaded.txt', 'a').write('once ')\n")
    (tmp_path / "script.py").write_text(
        "import tensorflow\n"
        "from gpt2cli.text import crew\n"
        "from tests import models\n"
        "found = crew.encoded(['some text. '] * 9, models.real_tokenizer(), 2)\n"
        "print(len(b''.join(found)) // 2)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("36\n", "")
    assert (tmp_path / "loaded.txt").read_text() == "once "


def test_helpers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    program = (
        "import itertools\nfrom gpt2cli.text import crew\nfrom tests import models\n"
        "found = crew.encoded(itertools.repeat('some text. ' * 999), models.real_tokenizer(), 2)\n"
        "for number, _ in enumerate(found):\n"
        "    number == 5 and print('ready', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        helpers = children(process.pid)
        assert len(helpers) == 2
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{helper}").exists() for helper in helpers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    """Returns the processes that a process has started."""
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
