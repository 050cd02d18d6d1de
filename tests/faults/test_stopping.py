"""Every command hears a signal within two seconds, whatever it is at, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpt2cli.files.lock import locked
from tests.conftest import unignored

pytestmark = pytest.mark.slow
# The promise is two; a machine that computes something else beside it gets one more.
SECONDS = 3.0
PATIENCE_SECONDS = 90
LINE = "The cat sat on the mat, and the other cat sat there: {}.\n"
# More than any command is done with before it is stopped.
BEAMS = "generate --model-name tiny --length 900 --num-beams 40 --ignore-eos"
ENDLESS = "generate --model-name tiny --length 900 --nsamples 900 --ignore-eos"
TRAIN = "finetune text.txt --model-name tiny --steps 9000"


class Life:
    """A command that runs, and what it has said so far."""

    def __init__(self, place: Path, command: str, **environment: str) -> None:
        self._said = place / "said.txt"
        with self._said.open("w") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gpt2cli", *command.split()],
                cwd=place,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env=os.environ | {"TMPDIR": str(place / "tmp")} | environment,
                preexec_fn=unignored,
            )

    def __enter__(self) -> Life:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def said(self) -> str:
        return self._said.read_text()

    def reads(self, name: str) -> bool:
        """Returns whether it has a file of this name open."""
        folder, found = Path(f"/proc/{self._process.pid}/fd"), False
        for link in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                found = found or link.readlink().name == name
        return found

    def wait_for(self, text: str) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while text not in self.said():
            assert self._process.poll() is None, self.said()
            assert time.monotonic() < end, self.said()
            time.sleep(0.01)

    def stop(self, number: int) -> float:
        """Sends a signal; returns how long the command took to end of it."""
        began = time.monotonic()
        self._process.send_signal(number)
        code = self._process.wait(PATIENCE_SECONDS)
        seconds = time.monotonic() - began
        assert code == 128 + number, self.said()
        assert "Traceback" not in self.said()
        return seconds


@pytest.fixture
def place(tmp_path: Path, tiny_models: Path) -> Path:
    """The folder that commands run in, with `models/tiny` and texts."""
    (tmp_path / "models").symlink_to(tiny_models)
    (tmp_path / "text.txt").write_text("".join(map(LINE.format, range(4000))))
    (tmp_path / "tmp").mkdir()
    return tmp_path


@pytest.fixture(scope="module")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    program = [sys.executable, "-m", "gpt2cli", "download", "tiny", "-q"]
    subprocess.run([*program, "--model-dir", str(folder)], check=True)
    return folder


def left(place: Path) -> set[str]:
    """Returns what was made by a name that anybody would look for.

    Where a library hears nothing, a part may stay, which the next command removes.
    """
    made = (path.relative_to(place) for path in place.rglob("*") if path.is_file())
    seen = {str(path) for path in made if not any(part[0] == "." for part in path.parts)}
    return seen - {"text.txt", "said.txt"}


# A command, what it says before the signal, how much later that comes (seconds), and the signal.
MOMENTS = [
    ("evaluate text.txt --model-name tiny", "from", 0.0, signal.SIGTERM),
    ("evaluate text.txt --model-name tiny", "from", 1.5, signal.SIGINT),
    ("evaluate text.txt --model-name tiny", "from", 6.0, signal.SIGHUP),
    (f"{ENDLESS} --destination-path new/all.txt", "from", 0.3, signal.SIGINT),
    (f"{ENDLESS} --destination-path new/all.txt", "from", 4.0, signal.SIGTERM),
    (f"{BEAMS} --nfiles 900 --folder new", "from", 5.0, signal.SIGTERM),
    ("export new/out --format savedmodel --model-name tiny", "from", 1.0, signal.SIGINT),
    ("export new/out --format savedmodel --model-name tiny", "from", 2.0, signal.SIGTERM),
]


@pytest.mark.parametrize(("command", "text", "later", "number"), MOMENTS)
def test_a_signal_ends_a_command_in_time_and_leaves_nothing(
    place: Path, command: str, text: str, later: float, number: int
) -> None:
    with Life(place, command) as life:
        life.wait_for(text)
        time.sleep(later)
        assert life.stop(number) < SECONDS
    assert left(place) == set()


@pytest.mark.parametrize(("text", "later"), [("corpus:", 1.5), ("device:", 0.2), ("[0 |", 1.0)])
def test_a_signal_ends_training_in_time_before_a_step(place: Path, text: str, later: float) -> None:
    with Life(place, TRAIN) as life:
        life.wait_for(text)
        time.sleep(later)
        assert life.stop(signal.SIGTERM) < SECONDS
        last = life.said().splitlines()[-1]
    assert last.endswith("No step was done yet; the same command goes on from there.")
    assert not list(place.glob("checkpoint/run1/model-*"))


def test_a_signal_while_the_sampler_compiles_saves_the_step_and_ends_in_time(place: Path) -> None:
    with Life(place, f"{TRAIN} --sample-every 2 --val-every 0") as life:
        life.wait_for("[2 |")
        assert life.stop(signal.SIGTERM) < SECONDS
        said = life.said().splitlines()
    assert said[-1].endswith("Step 2 is saved; the same command goes on from there.")
    assert (place / "checkpoint/run1/model-2.index").exists()
    assert not (place / "checkpoint/run1/samples/samples-2.txt").exists()


def is_encoding(place: Path) -> bool:
    return any(place.rglob(".tokens-*.part"))


@pytest.mark.parametrize("command", ["evaluate", "finetune --model-name tiny"])
@pytest.mark.parametrize("loops", ["compiled", "plain"])
def test_a_signal_while_a_text_is_encoded_leaves_no_tokens(
    place: Path, command: str, loops: str
) -> None:
    with (place / "large.txt").open("w") as file:
        for number in range(100):
            file.write("".join(map(LINE.format, range(number * 10_000, (number + 1) * 10_000))))
    without = place / "without"
    if loops == "plain":
        without.mkdir()
        (without / "numba.py").write_text("raise ImportError\n")
    known = f"{without}:{os.environ.get('PYTHONPATH', '')}:{Path(__file__).parents[2]}"
    words = f"{command} large.txt" + (" --model-name tiny" if command == "evaluate" else "")
    with Life(place, words, PYTHONPATH=known) as life:
        end = time.monotonic() + PATIENCE_SECONDS
        # `evaluate` keeps its tokens without a name.
        while not (life.reads("large.txt") and (command == "evaluate" or is_encoding(place))):
            assert time.monotonic() < end, life.said()
            time.sleep(0.01)
        time.sleep(0.5)
        assert life.stop(signal.SIGINT) < SECONDS
    assert not [path for path in place.rglob("*tokens-*") if "without" not in str(path)]
    assert not list((place / "tmp").iterdir())


def test_a_signal_ends_a_download_from_a_host_that_says_nothing(place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as host:
        mirror = f"http://127.0.0.1:{host.getsockname()[1]}"
        with Life(place, f"download 124M --model-dir here --mirror {mirror}") as life:
            life.wait_for("Fetching")
            with host.accept()[0]:
                assert life.stop(signal.SIGTERM) < SECONDS
            assert "stopped at 0 of " in life.said()


def test_a_signal_ends_the_wait_for_another_process(place: Path) -> None:
    (place / "here").mkdir()
    with (
        locked(place / "here" / ".124M.lock", "here"),
        Life(place, "download 124M --model-dir here") as life,
    ):
        life.wait_for("waiting for it")
        assert life.stop(signal.SIGINT) < SECONDS


def test_a_signal_in_the_first_second_ends_every_command(place: Path) -> None:
    for name in ("download", "evaluate x", "export x", "finetune x", "generate"):
        process = subprocess.Popen(
            [sys.executable, "-m", "gpt2cli", *name.split(), "--model-dir", "none"],
            cwd=place,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=unignored,
        )
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=SECONDS)
        # Before Python has come to hear it, the system ends the process by the same signal.
        assert process.returncode in (143, -signal.SIGTERM, 66, 75, 69), said
        assert "Traceback" not in said
