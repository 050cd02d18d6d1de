"""tokens: ids and pieces of a text, and back, from the vocabulary that is meant."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests import models
from tests.conftest import Run

SENTENCE = "Once upon a time"
# What openai/gpt-2's own encoder gives for it.
IDS = [7454, 2402, 257, 640]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The current directory of `cli`, with the shape and vocabulary of 124M."""
    models.write_description(tmp_path / "models" / "124M", models.GPT2_124M)
    return tmp_path


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """Returns the records of a command that succeeded."""
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_each_token_has_a_line(place: Path, cli: Run) -> None:
    done = cli("tokens", SENTENCE, "a\n日<|endoftext|>")
    assert done.stdout == (
        ' 7454  "Once"\n 2402  " upon"\n  257  " a"\n  640  " time"\n\n'
        '   64  "a"\n  198  "\\n"\n33768  "\\xe6\\x97"\n   98  "\\xa5"\n50256  "<|endoftext|>"\n'
    )
    assert done.stderr.splitlines() == [
        "vocabulary: models/124M, 50,257 tokens",
        "9 tokens, 34 bytes of text",
    ]
    assert cli("tokens", SENTENCE, "-q").stderr == ""


def test_json_lines_hold_every_byte(place: Path, cli: Run) -> None:
    text = 'naïve €5 🎉\t"quoted"\r\n'
    found = lines(cli("tokens", text, SENTENCE, "--format", "jsonl"))
    first = [record for record in found if record["text"] == 0]
    assert b"".join(bytes.fromhex(record["bytes"]) for record in first) == text.encode()
    assert [record["position"] for record in first] == list(range(len(first)))
    assert [record["id"] for record in found if record["text"] == 1] == IDS
    whole = [record for record in found if record["piece"] is not None]
    assert all(record["piece"].encode().hex() == record["bytes"] for record in whole)
    assert 0 < len(whole) < len(found)


def test_ids_become_the_text_again(place: Path, cli: Run) -> None:
    for given in ("7454,2402,257,640", "7454 2402  257\n640", "[7454, 2402, 257, 640]"):
        assert cli("tokens", "--ids", given).stdout == f"{SENTENCE}\n"
    assert cli("tokens", "--ids", "7454", "--ids", "640").stdout == "Once\n time\n"
    assert cli("tokens", "--ids", "33768").stdout == "\ufffd\n"
    (record,) = lines(cli("tokens", "--ids", "33768", "--format", "jsonl"))
    assert (record["piece"], record["bytes"]) == (None, "e697")


def test_files_and_stdin_are_taken_as_they_are(place: Path, cli: Run) -> None:
    (place / "a.txt").write_bytes(b"Once upon\r\n")
    expected = ["4f6e6365", "2075706f6e", "0d", "0a"]
    found = [lines(cli("tokens", "--file", "a.txt", "--format", "jsonl"))]
    for arguments in ([], ["-"], ["--file", "-"]):
        with (place / "a.txt").open() as stdin:
            found.append(lines(cli("tokens", *arguments, "--format", "jsonl", stdin=stdin)))
    assert [[record["bytes"] for record in each] for each in found] == [expected] * 4


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["--ids", "1,x"], 2, "'x'"),
        (["--ids", "-1"], 2, "'-1'"),
        (["--ids", ","], 2, "--ids takes"),
        (["--ids", "9" * 30], 2, "--ids takes"),
        (["--ids", "50256,50257"], 2, "50257 is beyond the vocabulary of 124M"),
        (["--ids", "1", "text"], 2, "--ids and TEXT contradict"),
        (["--ids", "1", "--file", "a.txt"], 2, "--ids and --file contradict"),
        ([], 2, "There is no text"),
        (["--file", "none.txt"], 66, "none.txt"),
        (["--file", "latin.txt"], 65, "latin.txt, line 1: byte 2"),
        (["--run-name", "none", "a"], 66, "no run checkpoint/none"),
        (["--model-name", "none", "a"], 66, "no model models/none"),
        (["--model-name", "355M", "--offline", "a"], 66, "--offline"),
        (["--model-name", "broken", "a"], 65, "vocab.bpe, line 2"),
        ([b"\xe9"], 65, "half a character"),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: list[str], code: int, reason: str, place: Path, cli: Run
) -> None:
    (place / "latin.txt").write_bytes(b"h\xe9")
    shutil.copytree(place / "models" / "124M", place / "models" / "broken")
    (place / "models" / "broken" / "vocab.bpe").write_text("#version: 0.2\na\n")
    words = [
        word.decode(errors="surrogateescape") if isinstance(word, bytes) else word
        for word in arguments
    ]
    done = cli("tokens", *words, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (code, "")
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def test_the_vocabulary_is_that_which_is_found_first(tmp_path: Path, cli: Run) -> None:
    def used(*arguments: str) -> str:
        return cli("tokens", "a", *arguments).stderr.splitlines()[0]

    assert used().startswith("vocabulary: tiny, 2,048 tokens, bundled with gpt2cli")
    assert list(tmp_path.iterdir()) == []
    for name in ("models/mine", "models/355M", "models/124M", "checkpoint/run1", "checkpoint/b"):
        models.write_description(tmp_path / name)
        expected = "checkpoint/run1" if name == "checkpoint/b" else name
        assert used() == f"vocabulary: {expected}, 260 tokens"
    assert used("--run-name", "b").startswith("vocabulary: checkpoint/b")
    assert used("--model-name", "mine").startswith("vocabulary: models/mine")


def test_only_the_vocabulary_is_read_and_at_once(place: Path, cli: Run) -> None:
    seconds = []
    for _ in range(5):
        began = time.monotonic()
        lines(cli("tokens", SENTENCE, "--format", "jsonl", "--model-name", "124M"))
        seconds.append(time.monotonic() - began)
    # Half a second on an idle machine; others may work on this one.
    assert statistics.median(seconds) < 1.5, seconds
