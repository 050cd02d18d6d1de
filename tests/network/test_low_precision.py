"""Weights held narrow: how far they may be from what they stand for, and what they give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpt2cli
from gpt2cli.hparams import HParams, read_hparams
from gpt2cli.network import rounding
from gpt2cli.text.tokenizer import read_tokenizer
from tests import models, oracle
from tests.docs import pages

pytestmark = pytest.mark.usefixtures("tensorflow")

HPARAMS = models.SMALL
TINY = Path(gpt2cli.__file__).parent / "data" / "tiny"


def logits(weights: Any, hparams: HParams, tokens: Any) -> Any:
    from gpt2cli.network import gpt2

    x = gpt2.embed(weights, tokens)
    return gpt2.logits(weights, gpt2.hidden_states(weights, hparams, x)).numpy()


@pytest.mark.parametrize(
    ("precision", "near"), [("float32", 1e-4), ("float16", 0.02), ("bfloat16", 0.15), ("int8", 0.1)]
)
def test_the_logits_are_nearly_the_oracles(precision: str, near: float) -> None:
    from gpt2cli.network import low_precision

    arrays = models.random_arrays(HPARAMS, deviation=0.1)
    tokens = np.random.default_rng(0).integers(0, HPARAMS.n_vocab, 20)
    held = low_precision.cast_weights(arrays.items(), precision)
    assert held["model/wte"].dtype.name == precision
    found = logits(held, HPARAMS, tokens[None])[0]
    expected = oracle.logits(arrays, HPARAMS.n_head, tokens)
    spread = expected.std()
    assert np.abs(found - expected).max() < near * spread
    if precision != "float32":
        assert np.abs(found - expected).max() > 1e-5 * spread


def test_int8_rows_are_within_half_a_step_of_what_they_stand_for() -> None:
    rows = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)
    rows[3] = 0
    rows[4] *= 1e-6
    numbers, scale = rounding.quantize_rows(rows)
    assert numbers.dtype == np.int8
    assert np.abs(numbers).max(axis=1).tolist() == [127, 127, 127, 0, 127]
    assert np.all(np.abs(numbers * scale[:, None] - rows) <= 0.5001 * scale[:, None])


@pytest.mark.parametrize(
    ("precision", "xla", "rows"),
    [
        ("int8", False, 1),
        ("bfloat16", True, 3),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("int8", True, 1), ("int8", True, 3), ("bfloat16", True, 1))
        ),
        *(pytest.param("float16", True, rows, marks=pytest.mark.slow) for rows in (1, 3)),
    ],
)
def test_cached_decoding_of_narrow_weights_equals_uncached(
    precision: str, xla: bool, rows: int
) -> None:
    from gpt2cli.inference import decode
    from gpt2cli.inference.sampling import SamplingParams
    from gpt2cli.inference.tensorflow_engine import TensorFlowEngine
    from gpt2cli.network import low_precision

    weights = low_precision.cast_weights(models.random_arrays(HPARAMS).items(), precision)
    engine = TensorFlowEngine(weights, HPARAMS, xla=xla)
    texts = [[1, 2, 3], [9, 8, 7, 6, 5], [4]][:rows]
    streams = [decode.random_stream(1, 0, 0)] * rows
    params = SamplingParams(temperature=0.0)
    for chosen in decode.tokens(engine, params, list(texts), streams, 10):
        for number, token in enumerate(chosen.tokens):
            expected = logits(weights, HPARAMS, np.array([texts[number]]))[0, -1]
            # Rounding may decide between two that are nearly alike.
            assert expected[token] >= expected.max() - 0.02 * expected.std()
            texts[number] = [*texts[number], token]
    assert engine.pop_warnings() == []
    assert len(set(texts[0])) > 4


def test_the_perplexity_of_tiny_in_int8_is_within_one_percent() -> None:
    from gpt2cli.network import low_precision
    from gpt2cli.storage import checkpoint
    from gpt2cli.training.evaluation import Evaluator, Score

    hparams = read_hparams(TINY / "hparams.json")
    tokenizer = read_tokenizer(TINY / "encoder.json", TINY / "vocab.bpe")
    text = pages.everything().encode("ascii", "ignore").decode()
    tokens = np.array(tokenizer.encode(text)[: 16 * 128], np.int32)
    windows = np.concatenate([tokens.reshape(-1, 128), np.full((16, 1), -1, np.int32)], axis=1)
    scores = {}
    for precision in ("float32", "int8", "bfloat16"):
        held = low_precision.cast_weights(
            checkpoint.load(TINY / "model.ckpt", hparams.shapes()), precision
        )
        parts = Evaluator(held, hparams, xla=False).batches(windows, 8)
        scores[precision] = sum(parts, Score()).perplexity
    assert scores["int8"] == pytest.approx(scores["float32"], rel=0.01)
    assert scores["bfloat16"] == pytest.approx(scores["float32"], rel=0.02)
    assert scores["int8"] != scores["float32"]
