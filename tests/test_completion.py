"""What a shell is told, so that it completes commands and options."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Run


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_is_given_a_script(cli: Run, shell: str) -> None:
    found = cli("--show-completion", shell, env=os.environ | {"SHELL": f"/bin/{shell}"})
    assert found.returncode == 0, found.stderr
    assert "_GPT2CLI_COMPLETE=complete_" in found.stdout


Complete = Callable[[str], list[str]]


@pytest.fixture
def completed(tmp_path: Path) -> Complete:
    """What the script is given for the last word of a command line, in an empty folder."""

    def run(words: str) -> list[str]:
        environment = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
        done = subprocess.run(
            [sys.executable, "-m", "gpt2cli"],
            cwd=tmp_path,
            env=os.environ | {"_GPT2CLI_COMPLETE": "complete_bash"} | environment,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.split()

    return run


def test_the_script_completes_commands_and_options(completed: Complete) -> None:
    assert completed("gpt2cli fine") == ["finetune"]
    assert completed("gpt2cli finetune --lora-") == ["--lora-rank", "--lora-alpha"]


def test_the_script_completes_choices(completed: Complete) -> None:
    assert completed("gpt2cli export out --format h") == ["huggingface"]
    assert completed("gpt2cli generate --format ") == ["text", "jsonl"]
    assert completed("gpt2cli finetune x --restore-from s") == ["scratch"]


def test_the_script_completes_models_and_runs(tmp_path: Path, completed: Complete) -> None:
    for name in ("models/mine", "models/.hidden", "models/a b", "checkpoint/poems", "runs/tweets"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "models" / "file").touch()
    fetched = ["124M", "355M", "774M", "1558M", "tiny"]
    assert completed("gpt2cli generate --model-name ") == ["mine", *fetched]
    assert completed("gpt2cli download t") == ["tiny"]
    assert completed("gpt2cli generate --run-name ") == ["poems"]
    assert completed("gpt2cli generate --checkpoint-dir runs --run-name ") == ["tweets"]
    assert completed("gpt2cli info p") == ["poems"]


def test_the_script_completes_checkpoints(tmp_path: Path, completed: Complete) -> None:
    for run, steps in {"run1": (5, 1000), "poems": (7,)}.items():
        (tmp_path / "checkpoint" / run).mkdir(parents=True)
        for step in steps:
            (tmp_path / "checkpoint" / run / f"model-{step}.index").touch()
    assert completed("gpt2cli generate --checkpoint ") == ["latest", "best", "1000", "5"]
    assert completed("gpt2cli evaluate x --run-name poems --checkpoint 7") == ["7"]
    assert completed("gpt2cli generate --run-name none --checkpoint l") == ["latest"]


def test_what_cannot_be_read_proposes_nothing(tmp_path: Path, completed: Complete) -> None:
    (tmp_path / "checkpoint").write_text("a file")
    (tmp_path / "models").symlink_to("models")
    assert completed("gpt2cli generate --run-name ") == []
    assert completed("gpt2cli generate --model-name t") == ["tiny"]
    assert completed("gpt2cli generate --run-name ../.. --checkpoint b") == ["best"]
