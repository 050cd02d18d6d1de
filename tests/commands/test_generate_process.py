"""generate as a process: pipes, signals, full disks, and stdin of every kind."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run

COMMON = ["generate", "--model-name", "small", "--no-xla", "--seed", "3"]


@pytest.fixture
def place(tmp_path: Path, mini_model: Path) -> Path:
    """The folder that the command line runs in, with `models/small`."""
    shutil.copytree(mini_model, tmp_path / "models" / "small")
    return tmp_path


def start(place: Path, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gpt2cli", *COMMON, *map(str, arguments)]
    return subprocess.Popen(command, cwd=place, text=True, **options)


def test_prompts_are_piped_in_and_records_out(cli: Run, place: Path) -> None:
    lines = '{"prompt": "the cat"}\n{"prompt": "a\\u0000\\nb"}\n'
    done = cli(*COMMON, "--format", "jsonl", "--length", 3, input=lines)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("reading prompts from stdin\n")
    assert [json.loads(line)["prompt"] for line in done.stdout.splitlines()] == [
        "the cat",
        "a\0\nb",
    ]
    done = cli(*COMMON, input="the cat\ncaf\udce9\n", errors="surrogateescape")
    assert (done.returncode, done.stdout) == (65, "")
    assert "stdin, line 2: byte 4 of it (0xe9) is not UTF-8 text" in done.stderr


@pytest.mark.parametrize("redirection", ["</dev/null", "<&-"])
def test_cron_gives_no_stdin_and_nothing_hangs(redirection: str, place: Path) -> None:
    command = f"{sys.executable} -m gpt2cli {' '.join(COMMON)} --length 4 {redirection}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=place, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\n")


def test_a_text_is_streamed_to_a_pipe_and_a_closed_one_ends_it_quietly(place: Path) -> None:
    arguments = ("--length", 100_000, "--stream", "--ignore-eos", "--prefix", "a")
    with start(place, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        # It comes while the rest is still being written.
        assert process.stdout.read(5).startswith("a")
        assert process.poll() is None
        process.stdout.close()
        assert process.wait(60) in (0, 141)
        assert process.stderr.read() == "from models/small/model.ckpt, seed 3\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_half_way_leaves_no_file(number: int, code: int, place: Path) -> None:
    arguments = ("--length", 100_000, "--ignore-eos", "--destination-path", "new/all.txt")
    with start(place, *arguments, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("from models")
        while not list(place.glob("new/.*.part")):
            assert process.poll() is None
        os.kill(process.pid, number)
        assert process.wait(60) == code
        assert process.stderr.read() == "gpt2cli: stopped\n"
    assert [path.name for path in place.iterdir()] == ["models"]


def test_a_full_disk_behind_stdout_is_told(place: Path) -> None:
    with Path("/dev/full").open("w") as full:
        process = start(place, "--length", 3, stdout=full, stderr=subprocess.PIPE)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 74
    assert errors.splitlines()[1:] == ["gpt2cli: Cannot write to stdout: No space left on device."]


def test_a_narrow_encoding_of_stdout_loses_characters_and_no_text(cli: Run, place: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = cli(*COMMON, "--length", 1, "--prefix", "é…a", env=environment, encoding="latin-1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("é?a")


def test_a_terminal_gets_the_text_as_it_is_written(place: Path) -> None:
    main, terminal = os.openpty()
    with start(
        place, "--length", 2000, "--ignore-eos", "--prefix", "a", stdout=terminal
    ) as process:
        os.close(terminal)
        assert os.read(main, 1) == b"a"
        assert process.poll() is None
        process.kill()
    os.close(main)


def test_an_existing_file_is_refused_at_once(cli: Run, place: Path) -> None:
    (place / "all.txt").write_text("mine")
    done = cli("generate", "--destination-path", "all.txt")
    assert (done.returncode, done.stdout) == (73, "")
    assert done.stderr == (
        "gpt2cli: all.txt exists. Give another name, or --overwrite to replace it.\n"
    )
    assert (place / "all.txt").read_text() == "mine"


def test_old_spellings_of_gpt_2_simple_are_understood(cli: Run, place: Path) -> None:
    old = ["--nfiles", 2, "--nsamples", 2, "--folder", "gen", "--sample_delim", "-\n", "--top_k", 5]
    done = cli(*COMMON, *old, "--length", 3, "--prefix", "<|endoftext|>", "--truncate", "never")
    assert (done.returncode, done.stdout) == (0, "")
    files = sorted((place / "gen").iterdir())
    assert len(files) == 2
    for file in files:
        assert file.read_bytes().decode().count("\n-\n<|endoftext|>") == 1


def test_a_gpu_that_is_not_there_is_told(cli: Run, place: Path) -> None:
    (place / "text.txt").write_text("the cat")
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    for command in (["generate"], ["evaluate", "text.txt"]):
        done = cli(*command, "--model-name", "small", "--no-xla", "--device", "gpu", env=hidden)
        assert (done.returncode, done.stdout) == (1, "")
        assert "gpt2cli: --device gpu: TensorFlow sees no GPU." in done.stderr


def little_memory() -> None:
    """Lets a process have 3 GB of addresses."""
    resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))


def test_memory_that_runs_out_is_told_with_what_was_asked_for(cli: Run, place: Path) -> None:
    # Their keys and values are 2 GB a layer.
    many = ("--nsamples", 20_000, "--batch-size", 20_000, "--length", 100, "--device", "cpu")
    done = cli("generate", "--model-name", "tiny", *many, preexec_fn=little_memory)
    assert done.returncode == 1, done.stderr
    assert "gpt2cli: Memory ran out: " in done.stderr
    assert "GB were asked for at once" in done.stderr
    assert "Try a lower --batch-size" in done.stderr
    assert "Traceback" not in done.stderr
