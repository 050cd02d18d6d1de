"""What a shell is told, so that it completes commands and options."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Run


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_is_given_a_script(cli: Run, shell: str) -> None:
    found = cli("--show-completion", shell, env=os.environ | {"SHELL": f"/bin/{shell}"})
    assert found.returncode == 0, found.stderr
    assert "_GPT2CLI_COMPLETE=complete_" in found.stdout


def test_the_script_completes_commands_and_options(tmp_path: Path) -> None:
    environment = os.environ | {"_GPT2CLI_COMPLETE": "complete_bash", "COMP_CWORD": "1"}

    def completed(words: str, number: int) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-m", "gpt2cli"],
            cwd=tmp_path,
            env=environment | {"COMP_WORDS": words, "COMP_CWORD": str(number)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    assert completed("gpt2cli fine", 1) == ["finetune"]
    assert completed("gpt2cli finetune --lora-", 2) == ["--lora-rank", "--lora-alpha"]
