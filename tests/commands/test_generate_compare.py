"""generate --compare: each strategy writes what it writes by itself; a table on a terminal."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpt2cli.config.generate import GenerateConfig
from gpt2cli.config.strategies import strategies
from gpt2cli.errors import UsageError
from tests.conftest import Run

LENGTH = ["--model-name", "tiny", "--device", "cpu", "--length", "6", "--seed", "1"]
# Each strategy, and the options that say the same.
SAME = {
    "sample": "",
    "greedy": "--temperature 0",
    "beam3": "--num-beams 3",
    "top-k5": "--top-k 5",
    "top-p0.5": "--top-p 0.5",
    "min-p0.1": "--min-p 0.1",
    "typical-p0.6": "--typical-p 0.6",
    "temperature1.5": "--temperature 1.5",
    "contrastive": "--penalty-alpha 0.6 --top-k 4",
    "mine:temperature=2 top-k=9 seed=4": "--temperature 2 --top-k 9 --seed 4",
    "odd:num-beams=4 beam-sample early_stopping=True": (
        "--num-beams 4 --beam-sample --early-stopping"
    ),
}
FEW = ("greedy", "beam3", "contrastive", "mine:temperature=2 top-k=9 seed=4")
OWN = ("strategy", "words", "distinct_words", "seconds", "tokens_per_second")


@pytest.mark.parametrize(
    "entries", [FEW, pytest.param(tuple(SAME), marks=pytest.mark.slow)], ids=len
)
def test_each_strategy_writes_what_its_options_write(cli: Run, entries: tuple[str, ...]) -> None:
    texts = ["ROMEO:", "The LORD"]
    done = cli("generate", *texts, *LENGTH, "--compare", ",".join(entries), "-q")
    assert (done.returncode, done.stderr) == (0, "")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(entries) * len(texts)
    for place, entry in enumerate(entries):
        pair = found[2 * place : 2 * place + 2]
        assert {each["strategy"] for each in pair} == {entry.partition(":")[0]}
        alone = cli("generate", *texts, *LENGTH, *SAME[entry].split(), "--format", "jsonl", "-q")
        expected = [json.loads(line) for line in alone.stdout.splitlines()]
        for one, other in zip(pair, expected, strict=True):
            assert {k: one[k] for k in other if k not in OWN} == {
                k: other[k] for k in other if k not in OWN
            }


def test_other_options_hold_for_those_who_draw() -> None:
    config = GenerateConfig(
        texts=("a",), temperature=1.1, repetition_penalty=1.2, compare=("greedy,top-k5", "beam2")
    )
    greedy, top_k, beams = (each for _, each in strategies(config))
    assert (top_k.temperature, top_k.repetition_penalty, top_k.top_k) == (1.1, 1.2, 5)
    assert (greedy.temperature, greedy.repetition_penalty) == (0, 1)
    assert (beams.num_beams, beams.temperature) == (2, GenerateConfig().temperature)


def test_words_are_counted(cli: Run) -> None:
    done = cli("generate", "The LORD", *LENGTH, "--compare", "greedy,sample", "-q")
    for line in done.stdout.splitlines():
        record = json.loads(line)
        words = record["text"].removeprefix("The LORD").lower().split()
        assert (record["words"], record["distinct_words"]) == (len(words), len(set(words)))
        assert record["log_probability"] == pytest.approx(
            sum(record["log_probabilities"]), abs=1e-5
        )


def test_models_are_compared_too(cli: Run, tmp_path: Path, mini_model: Path) -> None:
    shutil.copytree(mini_model, tmp_path / "models" / "mini")
    strategies_given = "first:model-name=tiny,second:model-name=mini temperature=0.5"
    done = cli("generate", "the", "--device", "cpu", "--length", 3, "--compare", strategies_given)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["strategy"] for line in done.stdout.splitlines()] == [
        "first",
        "second",
    ]
    assert "second: from models/mini/model.ckpt" in done.stderr


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("nope", "there is no strategy 'nope'. Give sample, greedy"),
        ("beam2.5", "num-beams cannot be '2.5'"),
        ("top-k", "there is no strategy 'top-k'"),
        ("top-p2", "--compare top-p2: --top-p must be at most 1"),
        (":top-k=3", "there is no strategy"),
        ("x:folder=3", "--compare x: there is no option 'folder'; there are beam-sample,"),
        ("x:top-k=many", "--compare x: top-k cannot be 'many'"),
        ("x:beam-sample=perhaps", "beam-sample cannot be 'perhaps'"),
        ("x:num-beams=3 top-k=2", "--compare x: --top-k and --num-beams contradict"),
        ("x:precision=int3", "--precision must be one of"),
        ("x:run-name=a/b", "--run-name must be the name of one folder"),
        (",", "--compare needs a strategy"),
        ("\x1b[31m" * 500, "there is no strategy"),
    ],
)
def test_a_strategy_that_cannot_be_is_refused(entry: str, reason: str, cli: Run) -> None:
    done = cli("generate", "a", *LENGTH, "--compare", entry)
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in done.stderr
    assert len(done.stderr) < 500


@pytest.mark.parametrize(
    "option", [["--stream"], ["--destination-path", "x"], ["--nfiles", "2"], ["--folder", "x"]]
)
def test_what_contradicts_a_comparison_is_refused(option: list[str], cli: Run) -> None:
    done = cli("generate", "a", *LENGTH, "--compare", "greedy", *option)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--compare and {option[0]} contradict" in done.stderr


def test_conversations_and_guesses_are_not_compared() -> None:
    for option, given in (
        ("--messages", {"messages": "a.jsonl"}),
        ("--speculate", {"speculate": True}),
    ):
        with pytest.raises(UsageError, match=f"--compare and {option} contradict"):
            GenerateConfig(compare=("greedy",), **given)
    assert GenerateConfig(compare=("greedy",), speculate=False).compare


def test_a_record_cannot_name_the_strategy(cli: Run, tmp_path: Path) -> None:
    asked = {"prompt": "ROMEO:", "strategy": "mine", "id": 4}
    (tmp_path / "asked.jsonl").write_text(json.dumps(asked) + "\n")
    done = cli("generate", "--prompts", "asked.jsonl", *LENGTH, "--compare", "greedy,top-k5", "-q")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(each["strategy"], each["id"]) for each in found] == [("greedy", 4), ("top-k5", 4)]


def test_a_terminal_shows_a_table(tmp_path: Path) -> None:
    main, other = pty.openpty()
    command = [sys.executable, "-m", "gpt2cli", "generate", "ROMEO:", "The LORD", *LENGTH, "-q"]
    with subprocess.Popen(
        [*command, "--compare", "greedy,top-k5,beam2"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=other,
        env=os.environ | {"COLUMNS": "80"},
    ) as process:
        os.close(other)
        shown = b""
        # A terminal that nobody writes to any more answers with an error.
        try:
            while piece := os.read(main, 1000):
                shown += piece
        except OSError:
            pass
        assert process.wait(60) == 0
    os.close(main)
    lines = shown.decode().replace("\r\n", "\n").splitlines()
    assert lines[0] == "ROMEO:"
    assert lines[1].split() == ["strategy", "log-prob.", "distinct", "seconds", "text"]
    assert lines[2].startswith("greedy")
    assert "The LORD" in lines
    assert all(len(line) <= 80 for line in lines)
    rows: list[Any] = [line.split()[0] for line in lines if line and not line.startswith(" ")]
    assert rows.count("top-k5") == rows.count("beam2") == 2
