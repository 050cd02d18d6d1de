"""Pipes of the shell are texts to the commands: none is cut, and none ends them by a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def bash(line: str, place: Path) -> subprocess.CompletedProcess[str]:
    """Runs a line of bash, with gpt2cli as $GPT2CLI."""
    return subprocess.run(
        ["bash", "-c", f'gpt2cli() {{ "{sys.executable}" -m gpt2cli "$@"; }}\n{line}'],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_texts_and_prompts_come_through_pipes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The cat.")
    (tmp_path / "b.txt").write_bytes(b"Another cat.\r\n" * 20)
    read = "gpt2cli evaluate {} --model-name tiny --format jsonl --no-xla"
    done = bash(read.format("a.txt <(cat b.txt)"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["bytes"] == len("The cat.") + 20 * len("Another cat.\n")
    assert r"line ends in /dev/fd/63: \r\n and \r became \n; --keep-line-ends" in done.stderr
    write = "gpt2cli generate --model-name tiny --length 1 --device cpu {}"
    done = bash(write.format("--prompts <(printf '<|startoftext|>a\\nb')"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "<|startoftext|> is not a token of this model" in done.stderr
    assert done.stdout.count("=" * 20) == 1


def test_an_empty_pipe_is_refused_at_once(tmp_path: Path) -> None:
    done = bash("gpt2cli finetune <(true) --model-name tiny", tmp_path)
    assert done.returncode == 65
    told, refused = done.stderr.splitlines()
    assert told == "reading /dev/fd/63 to its end"
    assert refused == "gpt2cli: /dev/fd/63: empty. Give a file with text."
    assert list(tmp_path.iterdir()) == []
