"""A SavedModel, asked in a process that has no gpt2cli; the oracle judges its answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2cli.commands.export import export
from gpt2cli.config.export import ExportConfig
from tests import models, oracle

PROGRAM = """
import json, sys
sys.path = [path for path in sys.path if path]
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
tokens = tf.constant([[1, 2, 3, 4, 5], [9, 8, 0, 0, 0], [7, 259, 7, 0, 0]])
lengths = tf.constant([5, 2, 3])
logits = model.signatures["serving_default"](tokens=tokens, lengths=lengths)["logits"]
def generate(lengths=lengths, length=12, temperature=0.0, top_k=0, top_p=0.0, seed=1):
    return model.signatures["generate"](
        tokens=tokens, lengths=lengths, length=tf.constant(length),
        temperature=tf.constant(temperature), top_k=tf.constant(top_k),
        top_p=tf.constant(top_p), seed=tf.constant(seed),
    )["tokens"].numpy().tolist()
def refusal(**options):
    try:
        generate(**options)
    except tf.errors.InvalidArgumentError as error:
        return str(error)
answers = {
    "logits": logits.numpy().tolist(),
    "greedy": generate(),
    "top_k 1": generate(temperature=1.0, top_k=1),
    "top_p 0.0001": generate(temperature=3.0, top_p=0.0001),
    "cold": generate(temperature=0.001),
    "one": generate(temperature=2.0, seed=1),
    "one again": generate(temperature=2.0, seed=1),
    "two": generate(temperature=2.0, seed=2),
    "top_k 3": [generate(length=1, temperature=9.0, top_k=3, seed=n) for n in range(40)],
    "too long": refusal(length=28),
    "beyond": refusal(lengths=tf.constant([6, 2, 3])),
    "loaded": sorted(name for name in sys.modules if name.startswith("gpt2cli")),
}
json.dump(answers, sys.stdout)
"""
PROMPTS = [[1, 2, 3, 4, 5], [9, 8], [7, 259, 7]]


@pytest.fixture(scope="module")
def answers(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("served")
    config = ExportConfig(
        destination=str(folder / "gpt2"), format="savedmodel", model_name=str(small_model)
    )
    list(export(config))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder / "gpt2" / "1")],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found | {"files": sorted(str(p.relative_to(folder)) for p in folder.rglob("*.*"))}


@pytest.fixture(scope="module")
def greedy() -> list[list[int]]:
    weights = models.random_arrays(models.SMALL)
    rows = [oracle.greedy(weights, models.SMALL.n_head, prompt, 12) for prompt in PROMPTS]
    ends = [row.index(259) if 259 in row else 12 for row in rows]
    return [row[:end] + [259] * (12 - end) for row, end in zip(rows, ends, strict=True)]


@pytest.mark.slow
def test_it_was_asked_without_gpt2cli(answers: dict[str, Any]) -> None:
    assert answers["loaded"] == []


@pytest.mark.slow
def test_the_layout_is_that_of_tensorflow_serving(answers: dict[str, Any]) -> None:
    assert answers["files"] == [
        *(
            "gpt2/.gpt2cli-export.json",
            "gpt2/1/assets.extra",
            "gpt2/1/assets.extra/encoder.json",
        ),
        *("gpt2/1/assets.extra/hparams.json", "gpt2/1/assets.extra/vocab.bpe"),
        *("gpt2/1/saved_model.pb", "gpt2/1/variables/variables.data-00000-of-00001"),
        "gpt2/1/variables/variables.index",
    ]


def test_logits_of_a_padded_batch_equal_the_oracles(answers: dict[str, Any]) -> None:
    weights = models.random_arrays(models.SMALL)
    for prompt, found in zip(PROMPTS, answers["logits"], strict=True):
        expected = oracle.logits(weights, models.SMALL.n_head, prompt)[-1]
        assert np.abs(np.array(found) - expected).max() < 1e-4


@pytest.mark.parametrize("way", ["greedy", "top_k 1", "top_p 0.0001", "cold"])
def test_the_likeliest_tokens_equal_the_oracles(
    way: str, answers: dict[str, Any], greedy: list[list[int]]
) -> None:
    assert answers[way] == greedy


def test_a_seed_decides(answers: dict[str, Any]) -> None:
    assert answers["one"] == answers["one again"] != answers["two"]


def test_top_k_leaves_the_k_likeliest(answers: dict[str, Any]) -> None:
    for row in range(3):
        best = np.argsort(answers["logits"][row])[-3:]
        assert {drawn[row][0] for drawn in answers["top_k 3"]} == set(best.tolist())


def test_more_than_the_window_is_refused(answers: dict[str, Any]) -> None:
    assert "must fit 32 tokens" in answers["too long"]


def test_lengths_beyond_the_tokens_are_refused(answers: dict[str, Any]) -> None:
    assert "lengths must not exceed the tokens given" in answers["beyond"]
