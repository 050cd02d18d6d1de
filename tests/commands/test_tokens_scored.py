"""tokens with a model: its figures are the oracle's, and what may come next is what is drawn."""

from __future__ import annotations

import json
import math
import os
import pty
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gpt2cli.text.tokenizer import read_tokenizer
from tests import models, oracle
from tests.conftest import Run

MODEL = ["--model-name", "mini", "--device", "cpu", "--no-xla", "-q"]
TEXT = "the weather, their other feather"


@pytest.fixture
def place(tmp_path: Path, mini_model: Path) -> Path:
    """The current directory of `cli`, with models/mini."""
    shutil.copytree(mini_model, tmp_path / "models" / "mini")
    return tmp_path


def records(cli: Run, *arguments: object) -> list[dict[str, Any]]:
    done = cli("tokens", *arguments, *MODEL, "--format", "jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_probabilities_are_those_of_the_oracle(place: Path, cli: Run) -> None:
    folder = place / "models" / "mini"
    tokenizer = read_tokenizer(folder / "encoder.json", folder / "vocab.bpe")
    ids = tokenizer.encode(TEXT)
    found = records(cli, TEXT, "--probabilities")
    losses = oracle.losses(
        models.random_arrays(models.MINI), models.MINI.n_head, [tokenizer.end_of_text, *ids]
    )
    assert [each["id"] for each in found] == ids
    assert [-each["log_probability"] for each in found] == pytest.approx(list(losses), abs=1e-4)
    assert all(1 <= each["rank"] <= models.MINI.n_vocab for each in found)
    by_ids = records(cli, "--ids", ",".join(map(str, ids)), "--probabilities")
    assert by_ids == found
    shown = cli("tokens", TEXT, *MODEL, "--probabilities").stdout.splitlines()
    for line, each in zip(shown, found, strict=True):
        token, probability, rank = line.split()[:3]
        assert (int(token), int(rank)) == (each["id"], each["rank"])
        assert float(probability[:-1]) / 100 == pytest.approx(
            math.exp(each["log_probability"]), abs=6e-5
        )


def test_the_next_tokens_are_those_that_generate_draws(place: Path, cli: Run) -> None:
    options = ["--temperature", "1.5", "--top-k", "3"]
    found = records(cli, TEXT, "--next", "5", *options)
    assert [each["next"] for each in found] == [1, 2, 3, 4, 5]
    assert all(next(iter(each["probabilities"])) == "model" for each in found)
    last = [each["probabilities"]["top-k 3"] for each in found]
    assert last[3:] == [0, 0]
    assert sum(last) == pytest.approx(1, abs=1e-5)
    many = ["--length", "1", "--nsamples", "400", "--batch-size", "400", "--seed", "3"]
    done = cli("generate", TEXT, *MODEL, *options, *many, "--format", "jsonl")
    drawn = Counter(json.loads(line)["tokens"][0] for line in done.stdout.splitlines())
    for each, share in zip(found, last, strict=True):
        assert drawn[each["id"]] / 400 == pytest.approx(share, abs=0.1)


def test_filters_look_back_no_further_than_the_window(place: Path, cli: Run) -> None:
    n_ctx = models.MINI.n_ctx
    window = [7 + number % 50 for number in range(n_ctx)]
    options = ["--next", "200", "--repetition-penalty", "50", "--temperature", "1"]
    short, long = (
        records(cli, "--ids", ",".join(map(str, ids)), *options)
        for ids in (window, [*range(60, 200), *window])
    )
    assert long == short


def test_a_table_has_a_column_for_each_filter(place: Path, cli: Run) -> None:
    shown = cli("tokens", "the", *MODEL, "--next", "4", "--top-p", "0.5").stdout.splitlines()
    assert shown[0].split() == ["id", "next", "model", "temperature", "0.7", "top-p", "0.5"]
    assert len(shown) == 5
    assert len(cli("tokens", "", *MODEL, "--next", "2").stdout.splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["a", "--next", "-1"], 2, "--next"),
        (["a", "--next", "5000"], 2, "--next"),
        (["--ids", "260", "--probabilities"], 2, "260 is beyond the vocabulary of mini"),
        (["a", "--next", "3", "--temperature", "-2"], 2, "--temperature"),
        (["a", "--next", "3", "--device", "gpu"], 1, "--device gpu"),
        (["--file", "none", "--next", "3"], 66, "none"),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: list[str], code: int, reason: str, place: Path, cli: Run
) -> None:
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = cli("tokens", *MODEL, *arguments, env=environment)
    assert (done.returncode, done.stdout) == (code, "")
    assert reason in done.stderr
    assert "none" in cli("tokens", "a", "--next", "1", "--run-name", "none").stderr


@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_terminal_shows_probabilities_in_colour(no_color: str, place: Path) -> None:
    main, other = pty.openpty()
    command = [sys.executable, "-m", "gpt2cli", "tokens", "the", *MODEL, "--probabilities"]
    environment = os.environ | {"NO_COLOR": no_color}
    with subprocess.Popen(command, cwd=place, stdout=other, env=environment) as process:
        os.close(other)
        assert process.wait(60) == 0
    shown = os.read(main, 10_000)
    os.close(main)
    assert (b"\x1b[48;5;" in shown) == (not no_color)
    assert b'"' in shown
