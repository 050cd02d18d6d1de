"""Probabilities and ranks of tokens against the oracle; filters one by one against a second one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2cli.hparams import HParams
from gpt2cli.inference.engine import Engine
from gpt2cli.inference.load import EngineParams, load_engine, load_on_tensorflow
from gpt2cli.inference.sampling import SamplingParams
from gpt2cli.inference.scoring import filtered_steps, next_logits, score_of, scores
from tests import models, oracle, reference_filters

SHAPE: HParams = models.SMALL
ARRAYS = models.random_arrays(SHAPE)
START = SHAPE.n_vocab - 1


@pytest.fixture(scope="module", params=["numba", "tensorflow"])
def engine(request: pytest.FixtureRequest, small_model: Path) -> Engine:
    params = EngineParams(device="cpu", xla=False)
    load = load_engine if request.param == "numba" else load_on_tensorflow
    return load(small_model / "model.ckpt", SHAPE, params=params)


def tokens(length: int) -> list[int]:
    return np.random.default_rng(length).integers(0, SHAPE.n_vocab, length).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("length", [0, 1, 2, 31, 32, 33, 48, 49, 100])
def test_each_token_is_scored_as_the_oracle_does(length: int, engine: Engine) -> None:
    row = [START, *tokens(length)]
    found = list(scores(engine, row[1:], START))
    assert len(found) == length
    n_ctx, judged = SHAPE.n_ctx, 0
    while judged < length:
        # The window in which a token is judged first.
        begin = 0 if judged == 0 else judged - n_ctx // 2
        window = row[begin : begin + n_ctx]
        logits = oracle.logits(ARRAYS, SHAPE.n_head, window)
        shares = oracle.softmax(logits)
        for place in range(judged - begin, min(n_ctx, length - begin)):
            token = row[begin + place + 1]
            assert found[judged].log_probability == pytest.approx(
                float(np.log(shares[place, token])), abs=1e-4
            )
            better = int((shares[place] > shares[place, token] * (1 + 1e-4)).sum())
            close = int((shares[place] >= shares[place, token] * (1 - 1e-4)).sum())
            assert better < found[judged].rank <= close
            judged += 1


def test_probabilities_sum_to_one() -> None:
    logits = np.random.default_rng(1).normal(0, 30, 500).astype(np.float32)
    found = [score_of(logits, token) for token in range(500)]
    assert sum(np.exp(each.log_probability) for each in found) == pytest.approx(1)
    assert sorted(each.rank for each in found) == list(range(1, 501))


@pytest.mark.parametrize("length", [1, 5, 32, 90])
def test_the_next_token_is_that_of_the_newest_window(length: int, engine: Engine) -> None:
    row = tokens(length)
    expected = oracle.logits(ARRAYS, SHAPE.n_head, row[-SHAPE.n_ctx :])[-1]
    np.testing.assert_allclose(next_logits(engine, row), expected, atol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.7},
        {"temperature": 1.3, "top_k": 9, "top_p": 0.8},
        {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2, "min_p": 0.05},
        {"temperature": 0.9, "repetition_penalty": 1.2, "top_k": 40, "typical_p": 0.7},
    ],
)
def test_each_filter_has_a_column(settings: dict[str, Any]) -> None:
    logits = np.random.default_rng(3).normal(0, 2, 120).astype(np.float32)
    history = [5, 7, 5, 7, 5]
    found = dict(filtered_steps(logits, np.array(history), SamplingParams(**settings)))
    names = ["model", *(f"{name.replace('_', '-')} {value:g}" for name, value in settings.items())]
    assert list(found) == names
    for count, name in enumerate(names):
        part = dict(list(settings.items())[:count])
        expected = reference_filters.shares(reference_filters.filtered(logits, history, **part))
        np.testing.assert_allclose(found[name], expected, atol=1e-5)


def test_a_temperature_of_zero_is_certain() -> None:
    logits = np.array([0, 3, 2.9], np.float32)
    params = SamplingParams(temperature=0, repetition_penalty=2)
    found = dict(filtered_steps(logits, np.array([1]), params))
    assert found["temperature 0"].tolist() == [0, 1, 0]
    assert found["repetition-penalty 2"].tolist() == [0, 0, 1]
