"""Names that stand for folders are refused before anything is written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from gpt2cli.config.download import DownloadConfig
from gpt2cli.config.evaluate import EvaluateConfig
from gpt2cli.config.export import ExportConfig
from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.config.generate import GenerateConfig
from gpt2cli.config.tokens import TokensConfig
from gpt2cli.errors import UsageError

COMMANDS: dict[Any, dict[str, Any]] = {
    FinetuneConfig: {"dataset": ("text.txt",)},
    GenerateConfig: {},
    EvaluateConfig: {"dataset": ("text.txt",)},
    ExportConfig: {"destination": "out"},
    TokensConfig: {},
}
LATIN1 = os.fsdecode(b"r\xe9")
NO_COMPONENTS = [".", "..", "/tmp/run", "a/b", "run/", "../run", "x" * 256, "ü" * 128]
NO_NAMES = ["", " ", "a\0b", LATIN1, "\ud800"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", [*NO_COMPONENTS, *NO_NAMES])
def test_a_runs_name_is_one_folders_name(command: Any, name: str) -> None:
    with pytest.raises(UsageError, match="--run-name") as caught:
        command(**COMMANDS[command], run_name=name)
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["run1", "ü" * 127, "...", "..a", "a b", "-x"])
def test_a_runs_name_may_be_anything_else(command: Any, name: str) -> None:
    command(**COMMANDS[command], run_name=name)


@pytest.mark.parametrize("command", [*COMMANDS, DownloadConfig])
@pytest.mark.parametrize("option", ["model_dir", "model_name", "checkpoint_dir"])
@pytest.mark.parametrize("name", NO_NAMES)
def test_folders_and_models_have_names_of_text(
    command: Any, option: str, name: str, tmp_path: Path
) -> None:
    if command is DownloadConfig and option != "model_dir":
        return
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')}"):
        command(**COMMANDS.get(command, {}), **{option: name})
