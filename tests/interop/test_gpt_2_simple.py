"""The calls of the README's table for those who come from gpt-2-simple, judged by what it does.

Not compared: what a seed gives (the random numbers are others), and downloads.
"""

from __future__ import annotations

import collections
import csv
import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2cli.hparams import HParams
from gpt2cli.storage import checkpoint
from gpt2cli.text.token_files import open_tokens
from gpt2cli.text.tokenizer import Tokenizer
from tests import models
from tests.interop import simple
from tests.interop.simple import PREFIX

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    # Importing it would switch TensorFlow to graphs in this process.
    pytest.mark.skipif(find_spec("gpt_2_simple") is None, reason="needs the extra `interop`"),
]

HPARAMS = HParams(n_vocab=50257, n_ctx=1024, n_embd=64, n_head=4, n_layer=2)
TEXT = "Night and day the mill turned, and nobody in the valley heard it any more.\n" * 200
ROWS = ["The mill turned.", 'It said "stop",\nand stopped.', "", "Nobody heard it, day or night."]
# New tokens.
LENGTH = simple.LENGTH
# Where the keys are in a bias of query, key and value.
KEYS = slice(HPARAMS.n_embd, 2 * HPARAMS.n_embd)
# One step, soon done.
QUICK = ("--steps", 1, "--window", 32, "--sample-every", 0, "--val-fraction", 0, "--no-xla")


def gpt2cli(place: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs the command line; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "gpt2cli", *map(str, arguments)],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def write_texts(place: Path) -> Path:
    """Writes the command line's folder: a model that has the real vocabulary, and texts."""
    models.write_model(place / "models" / "small", HPARAMS, deviation=0.3)
    (place / "text.txt").write_text(TEXT)
    with (place / "tweets.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text"], *([row] for row in ROWS)])
    return place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tensorflow: None) -> Path:
    """Runs and exports of ours, one of them in a tar in `drive/`."""
    place = write_texts(tmp_path_factory.mktemp("both"))
    train = ("finetune", "text.txt", "--model-name", "small", "--learning-rate", 1e-2, *QUICK[2:])
    gpt2cli(place, *train, "--save-every", 1, "--steps", 2)
    gpt2cli(place, *train, "--steps", 1, "--run-name", "ours")
    gpt2cli(place, "export", "models/exported", "--format", "openai")
    (place / "drive").mkdir()
    gpt2cli(place, "export", "drive/checkpoint_ours.tar", "--run-name", "ours")
    # Gone from the machine: only the drive has it.
    (place / "checkpoint" / "ours").rename(place / "ours")
    (place / "stop.txt").write_text(greedy(place)[-8:-4])
    return place


def greedy(place: Path, *arguments: object) -> str:
    """Returns the likeliest continuation of the prompt, without the line's end."""
    options = ("--temperature", 0, "--length", LENGTH, *arguments)
    return gpt2cli(place, "generate", "--prefix", PREFIX, *options).stdout.removesuffix("\n")


@pytest.fixture(scope="module")
def theirs(place: Path) -> Any:
    return json.loads(simple.run(["-m", "tests.interop.simple", "calls"], place).splitlines()[-1])


def test_generate_from_our_run_from_one_of_its_checkpoints_and_from_a_model(
    place: Path, theirs: Any
) -> None:
    assert theirs["prefix"] == [greedy(place)]
    assert theirs["checkpoint"] == [greedy(place, "--checkpoint", 1)]
    assert theirs["model"] == [greedy(place, "--model-name", "small")]
    assert len({*theirs["prefix"], *theirs["checkpoint"], *theirs["model"]}) > 1
    begun = gpt2cli(place, "generate", "--temperature", 0, "--length", simple.LENGTH)
    assert theirs["no prefix"] == [begun.stdout.removesuffix("\n").lstrip("\n")]


def test_truncate_and_include_prefix_cut_the_same(place: Path, theirs: Any) -> None:
    stop = ("--truncate", (place / "stop.txt").read_text())
    assert theirs["truncated"] == [greedy(place, *stop)]
    without = greedy(place, *stop, "--no-include-prefix")
    assert theirs["truncated without prefix"] == [without]
    assert theirs["truncated"] == [PREFIX + without]
    assert len(without) < len(theirs["prefix"][0]) - len(PREFIX)


def test_return_as_list_is_what_jsonl_gives(place: Path, theirs: Any) -> None:
    lines = greedy(place, "--format", "jsonl", "--nsamples", 2).splitlines()
    assert [json.loads(line)["text"] for line in lines] == theirs["prefix"] * 2


@pytest.mark.parametrize("way", simple.WAYS)
def test_temperature_top_k_and_top_p_sample_as_often(
    place: Path, theirs: Any, tokenizer: Tokenizer, way: str
) -> None:
    options = [f"--{name.replace('_', '-')}={value}" for name, value in simple.WAYS[way].items()]
    shown = gpt2cli(
        place, "tokens", PREFIX, "--run-name", "run1", "--next", 1000, "--format", "jsonl", *options
    )
    drawn = collections.Counter(text.removeprefix(PREFIX) for text in theirs[way])
    assert sum(drawn.values()) == simple.DRAWS
    found = [line for line in map(json.loads, shown.stdout.splitlines()) if "next" in line]
    # Tokens that are only a part of a character count among the rest.
    found = [line for line in found if line["piece"] is not None]
    filtered, plain = (collections.defaultdict[str, float](float) for _ in range(2))
    for line in found:
        first, *_, last = (value or 0.0 for value in line["probabilities"].values())
        filtered[line["piece"]] += last
        plain[line["piece"]] += first
    assert surprise(drawn, filtered) < 5
    # And it would be seen: the model's own probabilities are others.
    assert surprise(drawn, plain) > 10


def surprise(drawn: dict[str, int], expected: dict[str, float]) -> float:
    """Returns by how many standard deviations chi-squared is above its mean."""
    often = {piece: p * simple.DRAWS for piece, p in expected.items() if p * simple.DRAWS >= 5}
    rest = simple.DRAWS - sum(often.values())
    other = sum(count for piece, count in drawn.items() if piece not in often)
    squares = [(drawn.get(piece, 0) - count) ** 2 / count for piece, count in often.items()]
    squares.append((other - rest) ** 2 / max(rest, 1))
    return float((sum(squares) - len(often)) / np.sqrt(2 * len(often)))


def test_files_of_samples_have_the_same_layout(place: Path, theirs: Any) -> None:
    four = ("--nsamples", 4, "--batch-size", 2)
    for name, options, after in (
        ("one.txt", (), ""),
        ("four.txt", four, "=" * 20 + "\n"),
        ("delim.txt", (*four, "--sample-delim", simple.DELIMITER), simple.DELIMITER),
    ):
        greedy(place, *options, "--destination-path", f"ours-{name}")
        # Ours stands between two samples, and not behind the last.
        assert (place / name).read_text() == (place / f"ours-{name}").read_text() + after
    greedy(place, "--nfiles", 1, "--nsamples", 2, "--folder", "ours-gen")
    (gen,) = (place / "gen").iterdir()
    (ours,) = (place / "ours-gen").iterdir()
    assert gen.read_text() == ours.read_text() + "=" * 20 + "\n"


def test_it_takes_our_export_for_a_model_that_is_downloaded(theirs: Any) -> None:
    assert theirs["is exported there"] is True
    # It asks for the seventh file, the graph's, which nothing reads.
    assert theirs["is small there"] is False


def test_encode_csv_has_the_rows_that_we_read(
    place: Path, theirs: Any, tokenizer: Tokenizer
) -> None:
    encoded = (place / "csv_encoded.txt").read_text()
    rows = re.findall(r"<\|startoftext\|>(.*?)<\|endoftext\|>\n", encoded, re.DOTALL)
    gpt2cli(place, "finetune", "tweets.csv", "--run-name", "rows", "--model-name", "small", *QUICK)
    tokens = corpus(place / "checkpoint" / "rows")
    ends = np.flatnonzero(tokens == tokenizer.end_of_text)
    parts = (tokenizer.decode(list(part)) for part in np.split(tokens, ends + 1)[:-1])
    documents = [text.removesuffix("<|endoftext|>") for text in parts]
    assert [*filter(None, documents)] == [*filter(None, rows)] == [*filter(None, ROWS)]


def corpus(run: Path) -> Any:
    """Returns the tokens that a run was trained on."""
    (path,) = run.glob("tokens-*.u16")
    return np.asarray(open_tokens(path))


def test_encode_dataset_gives_the_tokens_that_we_make(
    place: Path, theirs: Any, tokenizer: Tokenizer
) -> None:
    with np.load(place / "text_encoded.npz") as file:
        (chunk,) = (file[name] for name in file.files)
    # It writes the name of the end token behind a short text, as plain letters.
    end = tokenizer.encode("<|endoftext|>", special=False)
    assert list(chunk) == [*tokenizer.encode(TEXT), *end]
    gpt2cli(
        place, "finetune", "text_encoded.npz", "--run-name", "npz", "--model-name", "small", *QUICK
    )
    assert list(corpus(place / "checkpoint" / "npz"))[: len(chunk)] == list(chunk)


def test_runs_are_copied_both_ways_as_tar(place: Path, theirs: Any) -> None:
    ours = place / "ours"
    (place / "away" / "checkpoint").mkdir(parents=True)
    shutil.copytree(ours, place / "away" / "checkpoint" / "run1")
    assert theirs["from drive"] == [greedy(place / "away")]
    other = place / "other"
    other.mkdir()
    subprocess.run(["tar", "xf", "../drive/checkpoint_run1.tar"], cwd=other, check=True)
    assert greedy(other) == greedy(place)
    assert (place / "drive" / "text.txt").read_text() == TEXT


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer, tensorflow: None
) -> Any:
    """Runs that gpt-2-simple trained, and what it printed; all on the same tokens."""
    place = write_texts(tmp_path_factory.mktemp("trained"))
    tokens = np.array(tokenizer.encode(TEXT)[: HPARAMS.n_ctx - 1])
    # It never takes the last token of a text that fills one window.
    np.savez_compressed(place / "theirs.npz", np.array([*tokens, tokenizer.end_of_text, 0]))
    np.savez_compressed(place / "ours.npz", tokens)
    return place, simple.run(["-m", "tests.interop.simple", "train"], place)


@pytest.mark.parametrize("name", simple.TRAINING)
def test_finetune_takes_the_same_steps(trained: Any, name: str) -> None:
    place, printed = trained
    step = r"^\[(\d+) \| \d+\.\d\d\] loss=(\d+\.\d\d) avg=(\d+\.\d\d)"
    lines = re.findall(step, printed.partition(f"run {name}\n")[2], re.MULTILINE)[: simple.STEPS]
    how = dict(simple.TRAINING[name])
    if how["optimizer"] == "sgd":
        # Gradients are added up there, and averaged here.
        how["learning_rate"] *= how["accumulate_gradients"]
    options = [f"--{key.replace('_', '-')}={value}" for key, value in how.items()]
    same = ("--clip-norm", 0, "--val-fraction", 0, "--sample-every", 0, "--precision", "float32")
    ours = ("--model-name", "small", "--run-name", f"our-{name}", "--steps", simple.STEPS)
    done = gpt2cli(place, "finetune", "ours.npz", *ours, *same, *options)
    assert len(lines) == simple.STEPS
    assert re.findall(step, done.stderr, re.MULTILINE) == lines
    start, theirs, found = (
        dict(checkpoint.load(place / prefix, HPARAMS.shapes()))
        for prefix in (
            "models/small/model.ckpt",
            f"checkpoint/{name}/model-{simple.STEPS}",
            f"checkpoint/our-{name}/model-{simple.STEPS}",
        )
    )
    for weight, before in start.items():
        moved, apart = theirs[weight] - before, found[weight] - theirs[weight]
        if weight.endswith("/c_attn/b"):
            # The bias of the keys changes no probability: its gradient is nothing but rounding.
            moved, apart = (np.delete(change, KEYS) for change in (moved, apart))
        assert np.linalg.norm(apart) <= 1e-2 * np.linalg.norm(moved), weight


def test_a_run_that_gpt_2_simple_wrote_is_continued_and_generated_from(trained: Any) -> None:
    place, _ = trained
    run = place / "checkpoint" / "adam"
    assert (run / "model-3.meta").exists()
    done = gpt2cli(place, "finetune", "text.txt", "--run-name", "adam", *QUICK)
    assert "no optimiser state" in done.stderr
    assert "[4 |" in done.stderr
    assert (run / "model-3.meta").exists()
    text = gpt2cli(place, "generate", "--run-name", "adam", "--prefix", PREFIX, "--length", 5)
    assert text.stdout.startswith(PREFIX)
