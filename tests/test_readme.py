"""What the README says is so: its tree, its options, and its first command."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import gpt2cli
from gpt2cli import cli
from gpt2cli.application import COMMANDS
from gpt2cli.errors import Gpt2cliError
from gpt2cli.options import options
from tests import readme_options
from tests.conftest import Run

PACKAGE = Path(gpt2cli.__file__).parent
ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
OTHER_OPTIONS = {"--help", "--version", "--install-completion", "--check", "--logdir", "--quick"}
OTHER_OPTIONS |= {"--only", "--text", "--markdown", "--gpu", "--torch", "--keras", "--seconds"}
# Of SLURM, Docker, systemctl and pip, in the recipes.
OTHER_OPTIONS |= {"--nodes", "--ntasks-per-node", "--gpus-per-node", "--time", "--signal"}
OTHER_OPTIONS |= {"--requeue", "--open-mode", "--exclusive", "--kill-on-bad-exit"}
OTHER_OPTIONS |= {"--name", "--restart", "--gpus", "--no-cache-dir", "--now"}


def test_the_tree_names_every_module_with_the_first_sentence_of_its_docstring() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.name in ("__init__.py", "__main__.py"):
            continue
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        sentence = text.split("\n\n")[0].replace("\n", " ").rstrip(".")
        pattern = rf"── {re.escape(path.name)} +{re.escape(sentence)}$"
        assert re.search(pattern, README, re.MULTILINE), f"{path}: {sentence}"


def test_every_option_that_is_mentioned_exists() -> None:
    known = {
        "--" + field.name.replace("_", "-") for c in COMMANDS.values() for field, _, _ in options(c)
    }
    known |= {"--no-" + name.removeprefix("--") for name in known} | OTHER_OPTIONS
    found = re.findall(r"(?<![-\w])--[a-z][a-z0-9_-]*", README)
    mentioned = {name.replace("_", "-") for name in found}
    assert mentioned - known == set()


def test_the_tables_of_options_are_those_of_the_code() -> None:
    found = readme_options.SECTION.search(README)
    assert found
    assert found[0] == readme_options.section(), "run `python -m tests.readme_options`"
    assert "| `--batch-size INT` | `1` | Windows in a micro-batch" in found[0]


def test_every_exit_code_is_listed() -> None:
    rows = re.findall(r"^\| ([\d, ]+) \|", README, re.MULTILINE)
    listed = {int(code) for row in rows for code in row.split(",")}
    assert {kind.exit_code for kind in Gpt2cliError.__subclasses__()} <= listed
    assert {0, 1, 129, 130, 143, cli.BROKEN_PIPE_EXIT_CODE} <= listed


@pytest.mark.slow
def test_the_first_command_works_as_written(tmp_path: Path) -> None:
    (line,) = re.findall(r"^python3 -m venv .*generate.*$", README, re.MULTILINE)
    commands = [part.strip() for part in line.split("&&")]
    assert commands[:3] == [
        "python3 -m venv .venv",
        ". .venv/bin/activate",
        "pip install '.[fast]'",
    ]
    (tmp_path / "README.md").write_text(README, encoding="utf-8")
    program = f"PATH={Path(sys.executable).parent}:$PATH; " + " && ".join(commands[3:])
    done = subprocess.run(
        ["bash", "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    assert "saved step 60: checkpoint/run1/model-60" in done.stderr
    assert done.stdout.startswith("The run")
    assert len(done.stdout) > len("The run") + 20


@pytest.mark.slow
def test_the_session_says_what_finetune_says(tmp_path: Path, cli: Run) -> None:
    session = README[README.index("## A session") : README.index("With OpenAI's smallest model")]
    write, train = re.findall(r"^\$ ((?:seq|gpt2cli finetune) .*)$", session, re.MULTILINE)
    subprocess.run(["bash", "-c", write], cwd=tmp_path, check=True)
    short = {"GPT2CLI_FINETUNE_MAX_MINUTES": "0.0001", "GPT2CLI_FINETUNE_VAL_BATCHES": "1"}
    done = cli(*shlex.split(train)[1:], env=os.environ | short)
    assert done.returncode == 0, done.stderr
    told = re.findall(r"^(?:tiny|from|corpus:) .*$", session, re.MULTILINE)
    assert len(told) == 5
    for line in told[:3]:
        assert f"{line}\n" in done.stderr
