"""What the README and the guides say is so: links, options, names in the code, the session."""

from __future__ import annotations

import ast
import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gpt2cli
from gpt2cli import cli
from gpt2cli.application import COMMANDS
from gpt2cli.errors import Gpt2cliError
from gpt2cli.options import options
from tests.conftest import Run
from tests.docs import generated, pages
from tests.docs.pages import README, ROOT
from tests.test_layers import FLOORS

MOST_README_BYTES = 15_000
LINK = re.compile(r"\[[^]\n]*(?:\n[^]\n]*)?\]\(([^)\s]+)\)")
# `gpt2cli/files/atomic.py`, or with a name that is in it: `gpt2cli/files/atomic.py:move`.
IN_CODE = re.compile(r"`((?:gpt2cli|tests|\.ci|\.github)/[\w./-]*)(?::(\w+))?`")
OTHER_OPTIONS = {"--help", "--version", "--install-completion", "--logdir", "--check", "--quick"}
OTHER_OPTIONS |= {"--only", "--text", "--markdown", "--gpu", "--torch", "--keras", "--seconds"}
# Of SLURM, Docker, systemctl and pip, in the recipes.
OTHER_OPTIONS |= {"--nodes", "--ntasks-per-node", "--gpus-per-node", "--time", "--signal"}
OTHER_OPTIONS |= {"--requeue", "--open-mode", "--exclusive", "--kill-on-bad-exit"}
OTHER_OPTIONS |= {"--name", "--restart", "--gpus", "--no-cache-dir", "--now"}


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_the_readme_is_short() -> None:
    assert README.stat().st_size < MOST_README_BYTES


def anchors(path: Path) -> set[str]:
    """Returns what a link to a page may have behind its `#`, as GitHub makes it of a heading."""
    headings = re.findall(r"^#+ (.*)$", text(path), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "path", [*pages.paths(), ROOT / "models" / "README.md"], ids=lambda path: path.stem
)
def test_links_lead_somewhere(path: Path) -> None:
    for link in LINK.findall(text(path)):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_links_to_every_guide() -> None:
    linked = {ROOT / link.partition("#")[0] for link in LINK.findall(text(README))}
    assert set(pages.paths()) - {README} <= linked


def test_what_is_made_from_the_code_is_up_to_date() -> None:
    for path, made in generated.files():
        assert text(path) == made, "run `python -m tests.docs`"
    assert "| `--batch-size INT` | `1` | " in pages.page("options")


def test_every_room_is_in_the_readme() -> None:
    named = set(re.findall(r"^\| `gpt2cli/(\w+)/` \|", text(README), re.MULTILINE))
    floors = set(itertools.chain(*FLOORS))
    assert named == {name for name in floors if (ROOT / "gpt2cli" / name).is_dir()}


def names(path: Path) -> Iterator[str]:
    """Yields what a module defines: functions, classes, methods, constants."""
    for node in ast.walk(ast.parse(text(path))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (name.id for name in node.targets if isinstance(name, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


@pytest.mark.parametrize("path", pages.paths(), ids=lambda path: path.stem)
def test_files_and_names_in_the_code_are_there(path: Path) -> None:
    for file, name in IN_CODE.findall(text(path)):
        assert (ROOT / file).exists(), file
        assert not name or name in names(ROOT / file), f"{file}:{name}"


def test_every_option_that_is_mentioned_exists() -> None:
    known = {
        "--" + field.name.replace("_", "-") for c in COMMANDS.values() for field, _, _ in options(c)
    }
    known |= {"--no-" + name.removeprefix("--") for name in known} | OTHER_OPTIONS
    found = re.findall(r"(?<![-\w])--[a-z][a-z0-9_-]*", pages.everything())
    mentioned = {name.replace("_", "-") for name in found}
    assert mentioned - known == set()


def test_every_exit_code_is_listed() -> None:
    rows = re.findall(r"^\| ([\d, ]+) \|", text(README), re.MULTILINE)
    listed = {int(code) for row in rows for code in row.split(",")}
    assert {kind.exit_code for kind in Gpt2cliError.__subclasses__()} <= listed
    assert {0, 1, 129, 130, 143, cli.BROKEN_PIPE_EXIT_CODE} <= listed


def test_the_changelog_begins_with_this_version() -> None:
    (first, *_) = re.findall(r"^## (\S+)", pages.page("changelog"), re.MULTILINE)
    assert first == gpt2cli.__version__


@pytest.mark.slow
def test_the_first_command_works_as_written(tmp_path: Path) -> None:
    (line,) = re.findall(r"^python3 -m venv .*generate.*$", text(README), re.MULTILINE)
    commands = [part.strip() for part in line.split("&&")]
    assert commands[:3] == [
        "python3 -m venv .venv",
        ". .venv/bin/activate",
        "pip install '.[fast]'",
    ]
    (tmp_path / "README.md").write_text(text(README), encoding="utf-8")
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
    session = text(README).partition("## A session")[2].partition("\n## ")[0]
    write, train = re.findall(r"^\$ ((?:seq|gpt2cli finetune) .*)$", session, re.MULTILINE)
    subprocess.run(["bash", "-c", write], cwd=tmp_path, check=True)
    short = {"GPT2CLI_FINETUNE_MAX_MINUTES": "0.0001", "GPT2CLI_FINETUNE_VAL_BATCHES": "1"}
    done = cli(*shlex.split(train)[1:], env=os.environ | short)
    assert done.returncode == 0, done.stderr
    told = re.findall(r"^(?:tiny|from|corpus:) .*$", session, re.MULTILINE)
    assert len(told) == 4
    for line in told[:3]:
        assert f"{line}\n" in done.stderr
