"""Every command line in the README and the guides runs, with `tiny` in place of OpenAI's models.

Those that do not run here are listed with the reason.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs import pages
from tests.docs.shell import TINY, shell

# By how they begin: commands that are not run here, and why.
ELSEWHERE = {
    "python3 -m venv .venv && . .venv/bin/activate && pip install '.[fa": "test_pages.py runs it",
    "python3 -m venv .venv && . .venv/bin/activate && pip install '.[dev,": ".ci/run does this",
    "pip install -e '.[dev,interop]'": ".ci/run does this, and it needs the network",
    "pip install '.[gpu]'": "gigabytes that need a GPU",
    "pytest -m gpu": "needs a GPU",
    "python -m tests.bench --gpu": "needs a GPU",
    "ruff check . &&": ".ci/run does this",
    "pytest  #": "it would run this test",
    "python -m tests.bench --quick": "takes minutes, and other programs' environments",
    "export TF_CONFIG=": "several machines; tests/distributed does it on one",
    "gpt2cli finetune texts/ --multi-gpu --batch-size 16": "several machines, as above",
    "#!/bin/bash\n#SBATCH": "SLURM; test_unattended.py runs it with a stand-in",
    "#!/bin/sh\ncd /mnt/work": "test_unattended.py runs it",
    "#!/bin/sh\n# nightly.sh": "test_unattended.py runs it",
    "docker build": "Docker",
    "docker run": "Docker and a GPU",
}
# What the commands find where they run.
PLACE = """
mkdir -p poems more/deep my-texts texts models ../downloads
for file in poems/a.txt more/deep/b.txt my-texts/c.txt texts/d.txt text.txt poems.txt; do
    echo "The cat sat on the mat, and the other cat sat there." > $file
done
# Long enough to be validated.
for line in {1..80}; do cat text.txt; done >> my-texts/c.txt
printf 'text,likes\\n' > tweets.csv
for line in {1..80}; do echo 'The cat sat on the mat beside the dog.,3'; done >> tweets.csv
echo "The dog sat on the log." > held-out.txt
printf '{"body": "The cat sat on the mat."}\\n' | gzip > posts.jsonl.gz
printf 'The cat sat on the mat.\\n' | gzip > dump.gz
printf 'The cat sat on the mat.\\n' > botchan.txt
printf 'ROMEO:\\nAnd the LORD\\n' > prompts.txt
printf '{"prompt": "ROMEO:\\\\n"}\\n{"prompt": "And the LORD"}\\n' > prompts.jsonl
for line in {1..9}; do
    echo '{"prompt": "What is 1 plus 1?", "completion": "1 plus 1 is 2."}' >> chats.jsonl
done
printf 'What is 1 plus 1?\n' > questions.txt
printf '{"messages": [{"role": "user", "content": "What is 1 plus 1?"}]}\n' > questions.jsonl
gpt2cli export ../downloads/gpt2-medium --model-name 124M
"""


def commands() -> Iterator[str]:
    """Yields every command line, and every whole script, in the order of the pages."""
    for language, block in pages.blocks(pages.everything(), "sh|console"):
        if block.startswith("#!"):
            yield block
            continue
        lines = block.replace("\\\n", " ").splitlines()
        if language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        yield from (line for line in lines if line.strip())


def old_calls() -> Iterator[str]:
    """Yields the command lines of the README's table for those who come from gpt-2-simple."""
    text = pages.README.read_text(encoding="utf-8")
    table = text.partition("## Coming from gpt-2-simple")[2].partition("Some defaults differ")[0]
    for row in table.splitlines():
        for command in re.findall(r"`([^`]+)`", row.rpartition(" | ")[2]):
            if command.startswith("gpt2cli "):
                yield command
            elif command.startswith("--restore-from"):
                yield f"gpt2cli finetune text.txt --model-name 124M --steps 1 {command}"
            elif command.startswith("--") and " " in command:
                yield f"gpt2cli generate {command}"


def is_elsewhere(command: str) -> bool:
    return any(command.startswith(begin) for begin in ELSEWHERE)


def test_each_command_that_is_not_run_is_on_the_pages_once() -> None:
    for begin in ELSEWHERE:
        assert [begin for command in commands() if command.startswith(begin)] == [begin]


@pytest.mark.slow
def test_every_command_works(tmp_path: Path) -> None:
    place = tmp_path / "work"
    place.mkdir()
    shutil.copy(pages.README, place)
    shutil.copytree(TINY, place / "models" / "124M")
    run = [(place, command) for command in commands() if not is_elsewhere(command)]
    other = tmp_path / "other" / "work"
    shutil.copytree(place, other)
    first = "gpt2cli finetune text.txt --model-name 124M --run-name mine"
    run += [(other, command) for command in (PLACE, first, *old_calls())]
    with shell(tmp_path) as do:
        for folder, command in [(place, PLACE), *run]:
            done = do(folder, command)
            assert done.returncode == 0, (command, done.stderr)
    assert len(run) > 25
    assert len(list(old_calls())) >= 12
