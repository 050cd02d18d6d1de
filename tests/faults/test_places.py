"""A full disk, a folder that is read-only, a terminal that is gone, another process at work."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpt2cli.files import paths
from gpt2cli.storage import checkpoint, recovery
from tests import models
from tests.conftest import Run
from tests.faults.fork_server import ForkServer

TEXT = "".join(f"{n}. The cat sat on the mat, and the other cat sat there.\n" for n in range(60))
OPTIONS = "--model-name small --seed 1 --val-every 0 --sample-every 0 --accumulate-gradients 1"
MINI_CHECKPOINT_BYTES = 4 * 3 * models.MINI.count()


@pytest.fixture
def place(tmp_path: Path, mini_model: Path) -> Path:
    shutil.copytree(mini_model, tmp_path / "models" / "small")
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path


@pytest.fixture
def server(place: Path) -> Iterator[ForkServer]:
    started = ForkServer(place)
    yield started
    started.close()


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """Mounts something on a folder, or skips the test where that is not allowed."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, str(folder)], check=False, capture_output=True)
    if done.returncode:
        pytest.skip(f"mount: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_disk_that_fills_in_the_middle_of_a_save_leaves_the_one_before(
    place: Path, server: ForkServer
) -> None:
    megabytes = 2
    with mounted(place / "checkpoint", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs") as disk:
        options = f"{OPTIONS} --save-every 1 --steps 40 --max-checkpoints 1".split()
        server.start("finetune", "text.txt", *options)
        while "saved step 3:" not in server.output():
            time.sleep(0.01)
        # Filled while it trains and saves; the check before a save can only know what is free then.
        for size in (1 << 16, 1 << 12, 1 << 8):
            with contextlib.suppress(OSError), (disk / "other").open("ab", buffering=0) as other:
                while True:
                    other.write(bytes(size))
        assert server.end() == 74, server.output()
        last = server.output().splitlines()[-1]
        found = recovery.newest_intact(disk / "run1", resume=True)
        assert f"{found.prefix.relative_to(place)} is safe" in last, last
        assert "MB are free" in last
        assert found.damaged == {}
        (disk / "other").unlink()
        step = paths.step_of(found.prefix)
        server.start("finetune", "text.txt", *OPTIONS.split(), "--until-step", step + 1)
        assert server.end() == 0, server.output()
        assert not list((disk / "run1").glob(".*"))


@pytest.mark.slow
def test_a_disk_with_room_for_all_but_a_few_pages_of_a_save_leaves_the_one_before(
    place: Path, server: ForkServer
) -> None:
    with mounted(place / "checkpoint", "-t", "tmpfs", "-o", "size=4m", "tmpfs") as disk:
        server.start("finetune", "text.txt", *OPTIONS.split(), "--steps", 1)
        assert server.end() == 0, server.output()
        ends = set()
        for pages in range(3, 10):
            (disk / "other").unlink(missing_ok=True)
            free = os.statvfs(disk).f_bavail * 4096
            (disk / "other").write_bytes(bytes(free - MINI_CHECKPOINT_BYTES - pages * 4096))
            server.start("finetune", "text.txt", *OPTIONS.split(), "--until-step", 2)
            code, output = server.end(), server.output()
            ends.add("room" if "make room" in output and "needs" in output else code)
            found = recovery.newest_intact(disk / "run1", resume=True)
            assert found.damaged == {}
            assert paths.step_of(found.prefix) == (2 if code == 0 else 1)
            if code == 0:
                break
            assert code == 74
            assert not (disk / "run1" / paths.SAVING).exists()
        # The check saw it, the writing found it out, and with a page more there was room.
        assert ends >= {74, 0}, ends


def test_tensorflows_own_words_for_a_full_disk_become_the_systems(
    tmp_path: Path, tensorflow: None
) -> None:
    with (
        mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=16k", "tmpfs") as disk,
        pytest.raises(OSError, match="No space left") as caught,
    ):
        checkpoint.save(disk / "model-1", models.random_arrays(models.SMALL))
    assert caught.value.errno == 28


@pytest.mark.slow
def test_room_for_the_next_save_is_checked_before_training(place: Path, server: ForkServer) -> None:
    size = MINI_CHECKPOINT_BYTES - 4096
    with mounted(place / "checkpoint", "-t", "tmpfs", "-o", f"size={size}", "tmpfs"):
        server.start("finetune", "text.txt", *OPTIONS.split(), "--steps", 1)
        assert server.end() == 74, server.output()
        assert "make room" in server.output()
        assert "loss=" not in server.output()


def test_a_read_only_folder_is_refused_with_its_path(cli: Run, place: Path) -> None:
    (place / "checkpoint").mkdir()
    with mounted(place / "checkpoint", "-t", "tmpfs", "-o", "ro", "tmpfs"):
        done = cli("finetune", "text.txt", "--model-name", "small")
    assert done.returncode == 73, done.stderr
    assert "checkpoint/run1" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def shell(place: Path, redirections: str, *arguments: object) -> int:
    """Runs the command line with its outputs redirected; returns the exit code."""
    words = " ".join(map(str, arguments))
    command = f"exec {sys.executable} -m gpt2cli {words} {redirections}"
    return subprocess.run(["sh", "-c", command], cwd=place, check=False, timeout=300).returncode


@pytest.mark.slow
@pytest.mark.parametrize(
    "redirections",
    [
        ">&- 2>&-",
        pytest.param(
            ">/dev/full 2>/dev/full",
            marks=pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full"),
        ),
    ],
)
def test_closed_or_full_outputs_do_not_end_training(redirections: str, place: Path) -> None:
    options = f"{OPTIONS.replace('--sample-every 0', '--sample-every 1')} --sample-length 2"
    code = shell(place, redirections, "finetune", "text.txt", options, "--steps", 3)
    assert code == 0
    folder = place / "checkpoint" / "run1"
    assert paths.newest(folder) == folder / "model-3"
    assert (folder / "samples" / "samples-3.txt").exists()


@pytest.mark.slow
def test_a_reader_that_goes_away_and_a_terminal_that_hangs_up_end_saved(place: Path) -> None:
    arguments = f"finetune text.txt {OPTIONS} --sample-every 2 --sample-length 2 --steps -1"
    process = subprocess.Popen(
        [sys.executable, "-m", "gpt2cli", *arguments.split()],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    for line in process.stderr:
        if line.startswith(b"[20 |"):
            break
    process.stderr.close()
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 129
    found = recovery.newest_intact(place / "checkpoint" / "run1", resume=True)
    assert paths.step_of(found.prefix) >= 20


@pytest.mark.slow
def test_generate_and_export_read_a_run_that_saves_and_rotates_all_the_time(
    place: Path, server: ForkServer
) -> None:
    options = f"{OPTIONS} --save-every 1 --max-checkpoints 1 --steps -1"
    pid = server.start("finetune", "text.txt", *options.split())
    while "saved step 1:" not in server.output():
        time.sleep(0.01)
    second = ForkServer(place / "models")
    try:
        for seed in range(3):
            second.start(
                *("generate", "--checkpoint-dir", "../checkpoint", "--length", 4, "--seed", seed)
            )
            assert second.end() == 0, second.output()
            assert "stepped over" not in second.output()
        second.start("export", "../exported", "--checkpoint-dir", "../checkpoint")
        assert second.end() == 0, second.output()
        assert "stepped over" not in second.output()
        assert (place / "exported" / "model.safetensors").exists()
        second.start("finetune", "../text.txt", "--checkpoint-dir", "../checkpoint")
        assert second.end() == 75, second.output()
        assert f"process {pid}" in second.output()
    finally:
        second.close()
    os.kill(pid, signal.SIGTERM)
    assert server.end() == 143


@pytest.mark.slow
def test_minutes_bring_a_save_too(place: Path, server: ForkServer) -> None:
    options = f"{OPTIONS} --save-every 0 --steps -1".split()
    pid = server.start("finetune", "text.txt", *options, "--save-minutes", 0.005)
    while server.output().count("saved step") < 3:
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    server.end()
    found = recovery.newest_intact(place / "checkpoint" / "run1", resume=True)
    assert paths.step_of(found.prefix) > 3
