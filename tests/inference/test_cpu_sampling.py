"""The CPU's filters and draws against plain computations, and compiled draws against NumPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpt2cli.inference.cpu import sampling, sampling_kernels
from gpt2cli.inference.engine import History
from gpt2cli.inference.sampling import SamplingParams
from tests import reference_filters
from tests.inference.test_sampling import HISTORIES, LOGITS, SETTINGS, softmax


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_filters_of_a_row_leave_what_a_plain_computation_leaves(settings: dict[str, Any]) -> None:
    for history, logits in zip(HISTORIES, LOGITS, strict=True):
        before = np.array(history, np.int32)
        row = sampling.FILTERS.filtered(logits, before, SamplingParams(**settings))
        expected = reference_filters.filtered(logits, history, **settings)
        assert row.dtype == np.float32
        assert set(np.flatnonzero(np.isfinite(row))) == set(np.flatnonzero(np.isfinite(expected)))
        np.testing.assert_allclose(row, expected, rtol=1e-5)


@pytest.mark.parametrize("uniform", [0.0, 0.1, 0.5, 0.77, 1 - 2**-24])
def test_rows_choose_what_a_plain_computation_chooses(uniform: float) -> None:
    params = SamplingParams(**SETTINGS[-1])
    expected = [
        reference_filters.drawn(reference_filters.filtered(row, before, **SETTINGS[-1]), uniform)
        for row, before in zip(LOGITS, HISTORIES, strict=True)
    ]
    nats = np.log(softmax(LOGITS.astype(np.float64)))[range(4), expected]
    together = sampling.choose(params, LOGITS, [uniform] * 4, History(HISTORIES, 0))
    assert together.tokens == expected
    np.testing.assert_allclose(together.log_probabilities, nats, rtol=1e-5)
    for number, history in enumerate(HISTORIES):
        row = LOGITS[number : number + 1]
        found = sampling.choose(params, row, [uniform], History([history], 0))
        assert found.tokens == [expected[number]]
        np.testing.assert_allclose(found.log_probabilities, nats[number], rtol=1e-5)


def test_the_few_likeliest_are_enough_or_all_are_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    probabilities = softmax(LOGITS[0])
    for p in (0.2, 0.9, 0.9999):
        monkeypatch.setattr(sampling, "FEW", 3)
        few = sampling.nucleus_mask(LOGITS[0], probabilities, p)
        monkeypatch.setattr(sampling, "FEW", 10_000)
        assert few.tolist() == sampling.nucleus_mask(LOGITS[0], probabilities, p).tolist()


def test_if_every_token_would_be_a_repeat_all_are_left_to_a_row() -> None:
    logits = LOGITS[0, :4]
    assert sampling.remove_repeats(logits, np.arange(4), 1).tolist() == logits.tolist()
    assert sampling.remove(logits, range(4)).tolist() == logits.tolist()


def test_a_row_never_draws_a_token_without_a_probability() -> None:
    for vocab in (1, 2, 700):
        for only in {0, vocab // 2, vocab - 1}:
            probabilities = np.zeros(vocab, np.float32)
            probabilities[only] = 1
            assert {sampling.draw(probabilities, u) for u in (0.0, 0.5, 1 - 2**-24)} == {only}


def test_several_draws_never_give_the_same_twice() -> None:
    scores = np.full(300, -np.inf, np.float32)
    scores[[3, 50, 299]] = np.log([0.7, 0.2, 0.1])
    firsts = []
    for uniforms in np.random.default_rng(0).random((500, 4), np.float32):
        best, places = sampling.draw_several(scores, uniforms)
        assert sorted(places[:3]) == [3, 50, 299]
        assert best.tolist() == [*sorted(scores[places[:3]], reverse=True), -np.inf]
        probabilities = sampling.softmax(scores)
        firsts.append(sampling.draw(probabilities, float(uniforms[0])))
    tokens, counts = np.unique(firsts, return_counts=True)
    assert tokens.tolist() == [3, 50, 299]
    assert counts / 500 == pytest.approx([0.7, 0.2, 0.1], abs=0.06)


def test_compiled_draws_and_nats_are_those_of_each_row() -> None:
    noise = np.random.default_rng(0)
    logits = (noise.normal(size=(64, 700)) * 4).astype(np.float32)
    logits[1::3, 5:] = -np.inf
    uniforms = np.concatenate([[0, 0, 1 - 2**-24, 1 - 2**-24], noise.random(60)])
    tokens, nats = np.empty(64, np.int64), np.empty(64)
    sampling_kernels.draw_all(logits.copy(), uniforms, tokens)
    expected = [
        sampling.draw(sampling.softmax(row), uniform)
        for row, uniform in zip(logits, uniforms, strict=True)
    ]
    assert tokens.tolist() == expected
    assert len(set(expected)) > 30
    sampling_kernels.take_nats(logits, tokens, nats)
    found = [sampling.log_softmax(row)[token] for row, token in zip(logits, tokens, strict=True)]
    np.testing.assert_allclose(nats, found, rtol=1e-5, atol=1e-5)


def test_a_token_without_a_probability_is_never_drawn_by_compiled_loops() -> None:
    for vocab in (1, 2, 700):
        for only in {0, vocab // 2, vocab - 1}:
            logits = np.full((3, vocab), -np.inf, np.float32)
            logits[:, only] = 1
            tokens = np.empty(3, np.int64)
            sampling_kernels.draw_all(logits, np.array([0.0, 0.5, 1 - 2**-24]), tokens)
            assert tokens.tolist() == [only] * 3
