"""What generate continues: texts without an option, records that say more, a coprocess."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run
from tests.marks import few

LENGTH = ["--model-name", "tiny", "--device", "cpu", "--length", "6", "--seed", "1", "-q"]
# Facts about time, which are others each time.
TIMES = ("seconds", "tokens_per_second")


def answers(text: str) -> list[dict[str, Any]]:
    """Returns the records that a command printed, without their times."""
    found = [json.loads(line) for line in text.splitlines()]
    return [{k: v for k, v in each.items() if k not in TIMES} for each in found]


def written(cli: Run, *arguments: str, **options: Any) -> list[dict[str, Any]]:
    done = cli("generate", *LENGTH, "--format", "jsonl", *arguments, **options)
    assert done.returncode == 0, done.stderr
    return answers(done.stdout)


def test_a_text_without_an_option_is_a_prefix(cli: Run) -> None:
    assert written(cli, "The LORD", "ROMEO:") == written(
        cli, "--prefix", "The LORD", "--prefix", "ROMEO:"
    )
    done = cli("generate", *LENGTH, "The LORD", "--prefix", "ROMEO:")
    assert (done.returncode, done.stdout) == (2, "")
    assert "TEXT and --prefix contradict" in done.stderr


def test_a_record_says_what_holds_for_its_samples(cli: Run, tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [
        {"prompt": "The LORD", "id": 7, "meta": {"by": ["x"]}},
        {"prompt": "The LORD", "length": 3, "seed": 5},
        {"prompt": "The LORD", "stop": "e"},
        {"prompt": "The LORD", "stop": ["zzz", "e"], "text": "ours counts"},
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    first, second, third, fourth = written(cli, "--prompts", "p.jsonl")
    assert (first["id"], first["meta"]) == (7, {"by": ["x"]})
    assert [first] == [
        {**each, "id": 7, "meta": {"by": ["x"]}} for each in written(cli, "The LORD")
    ]
    # The same as alone, wherever it stands.
    assert [second] == written(cli, "The LORD", "--length", "3", "--seed", "5")
    assert "e" not in third["text"].removeprefix("The LORD")
    assert fourth["text"].startswith("The LORD")


@pytest.mark.parametrize(
    ("record", "reason"),
    few(
        [
            ({"length": 0}, "line 1: length must be a whole number from 1"),
            ({"length": True}, "line 1: length"),
            ({"length": "9" * 500}, "line 1: length"),
            ({"seed": -1}, "line 1: seed must be a whole number from 0 to 4,294,967,295, not -1"),
            ({"seed": 1.0}, "line 1: seed"),
            ({"stop": ""}, "line 1: stop must be a text or a list of texts"),
            ({"stop": ["a", 1]}, "line 1: stop"),
            ({"stop": "\ud83d"}, "line 1: the stop holds U+D83D"),
        ],
        2,
    ),
)
def test_a_record_that_asks_for_what_cannot_be_is_refused(
    record: dict[str, Any], reason: str, cli: Run, tmp_path: Path
) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": "a", **record}))
    for arguments, given in ((["--prompts", "p.jsonl"], None), (["--stream"], record)):
        options = {"input": json.dumps({"prompt": "a", **record})} if given else {}
        done = cli("generate", *LENGTH, *arguments, **options)
        assert (done.returncode, done.stdout) == (65, "")
        assert reason in done.stderr
        assert len(done.stderr) < 500


@pytest.mark.parametrize("arguments", [[], ["--prompts", "-"]])
def test_a_coprocess_answers_each_line_before_the_next_comes(
    arguments: list[str], tmp_path: Path, cli: Run
) -> None:
    lines = [json.dumps({"prompt": text, "id": text}) for text in ("The LORD", "ROMEO:", "And")]
    command = [sys.executable, "-m", "gpt2cli", "generate", *LENGTH, "--stream"]
    with subprocess.Popen(
        [*command, "--format", "jsonl", *arguments],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        found = []
        for line in lines:
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            # It would wait for ever if the answer waited for the next line.
            found += answers(process.stdout.readline())
        process.stdin.close()
        assert process.stdout.read() == ""
        assert process.wait(60) == 0
    assert found == written(cli, input="\n".join(lines))


def test_a_coprocess_prints_text_as_a_file_of_prompts_does(cli: Run) -> None:
    given = "The LORD\n\nROMEO:\n"
    streamed = cli("generate", *LENGTH, "--stream", input=given)
    assert streamed.returncode == 0, streamed.stderr
    assert streamed.stdout == cli("generate", *LENGTH, input=given).stdout
    assert cli("generate", *LENGTH, "--stream", input="").stdout == ""


def test_a_bad_line_ends_a_coprocess_after_the_answers_before_it(cli: Run) -> None:
    for bad, reason in (("\udcff", "line 2: byte 1 of it is not UTF-8"), ("x" * (1 << 25), "over")):
        done = cli(
            "generate",
            *LENGTH,
            "--stream",
            input=f"The LORD\n{bad}\n",
            encoding="utf-8",
            errors="surrogateescape",
        )
        assert done.returncode == 65
        assert done.stdout.startswith("The LORD")
        assert reason in done.stderr
