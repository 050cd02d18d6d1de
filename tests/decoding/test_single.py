"""One text in NumPy; the oracle, the plain filters and the decoder of batches judge it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpt2cli.decoding import row_filters
from gpt2cli.decoding.row_filters import RowSampling
from gpt2cli.decoding.rows import uniforms
from gpt2cli.decoding.single import SingleDecoder
from gpt2cli.network.single import SingleModel
from tests import models, oracle, plain_filters
from tests.decoding.test_filters import HISTORIES, LOGITS, SETTINGS, softmax
from tests.decoding.test_loop import ARRAYS, HEADS, N_CTX, columns, decoded, slid


def single(prompt: list[int], length: int, *, seed: int = 0, **sampling: Any) -> list[int]:
    """Returns the new tokens of one text."""
    model = SingleModel(ARRAYS.items(), models.SMALL)
    decoder = SingleDecoder(model, N_CTX, RowSampling(**sampling))
    return columns(decoder.tokens([prompt], [uniforms(seed, 0, 0)], length))[0]


def test_the_network_equals_the_oracle_whole_and_token_by_token() -> None:
    model, tokens = SingleModel(ARRAYS.items(), models.SMALL), list(range(3, 3 + N_CTX))
    expected = oracle.logits(ARRAYS, HEADS, tokens)
    np.testing.assert_allclose(model.prefill(tokens, 5), expected[-1], rtol=2e-4, atol=2e-4)
    found = [model.prefill(tokens[:1], N_CTX), *map(model.step, tokens[1:])]
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)
    # A text that begins anew sees nothing of the one before.
    np.testing.assert_allclose(model.prefill(tokens[:4], 9), expected[3], rtol=2e-4, atol=2e-4)


def test_queries_in_blocks_see_what_they_see_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = list(range(5, 5 + N_CTX))
    whole = SingleModel(ARRAYS.items(), models.SMALL).prefill(tokens, 1)
    monkeypatch.setattr("gpt2cli.network.single.QUERY_BLOCK", 5)
    cut = SingleModel(ARRAYS.items(), models.SMALL).prefill(tokens, 1)
    np.testing.assert_allclose(cut, whole, rtol=1e-4, atol=1e-4)


def test_greedy_tokens_are_the_oracles_and_a_full_window_goes_on_from_its_newer_half() -> None:
    prompt = [7, 100, 3, 42, 250]
    assert single(prompt, 20, temperature=0) == oracle.greedy(ARRAYS, HEADS, prompt, 20)
    for prompt in ([1, 2, 3], list(range(N_CTX))):
        assert single(prompt, 60, temperature=0) == slid(prompt, 60)


@pytest.mark.usefixtures("tensorflow")
@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0.9},
        {"temperature": 1.2, "top_k": 20, "top_p": 0.9},
        {"temperature": 0.0, "no_repeat_ngram_size": 2},
        {"min_p": 0.05, "repetition_penalty": 1.3},
        {"typical_p": 0.8, "no_repeat_ngram_size": 3},
    ],
    ids=str,
)
def test_a_sample_is_the_one_that_a_batch_gives(sampling: dict[str, Any]) -> None:
    prompt = [9, 8, 7]
    assert [single(prompt, 50, seed=4, **sampling)] == decoded(
        [prompt], 50, seed=4, xla=False, **sampling
    )


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_filters_of_a_row_leave_what_a_plain_computation_leaves(settings: dict[str, Any]) -> None:
    for history, logits in zip(HISTORIES, LOGITS, strict=True):
        row = RowSampling(**settings).filtered(logits, history)
        expected = plain_filters.filtered(logits, history, **settings)
        assert row.dtype == np.float32
        assert set(np.flatnonzero(np.isfinite(row))) == set(np.flatnonzero(np.isfinite(expected)))
        np.testing.assert_allclose(row, expected, rtol=1e-5)


@pytest.mark.parametrize("uniform", [0.0, 0.1, 0.5, 0.77, 1 - 2**-24])
def test_a_row_chooses_what_a_plain_computation_chooses(uniform: float) -> None:
    for history, logits in zip(HISTORIES, LOGITS, strict=True):
        left = plain_filters.filtered(logits, history, **SETTINGS[-1])
        token, nats = RowSampling(**SETTINGS[-1]).choose(logits, uniform, history)
        assert token == plain_filters.drawn(left, uniform)
        assert nats == pytest.approx(np.log(softmax(logits.astype(np.float64)))[token], rel=1e-5)


def test_the_few_likeliest_are_enough_or_all_are_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = softmax(LOGITS[0])
    for p in (0.2, 0.9, 0.9999):
        monkeypatch.setattr(row_filters, "FEW", 3)
        few = row_filters.reaching(LOGITS[0], shares, p)
        monkeypatch.setattr(row_filters, "FEW", 10_000)
        assert few.tolist() == row_filters.reaching(LOGITS[0], shares, p).tolist()


def test_where_every_token_would_be_a_repeat_all_are_left_to_a_row() -> None:
    logits = LOGITS[0, :4]
    assert row_filters.remove_repeats(logits, [0, 1, 2, 3], 1).tolist() == logits.tolist()


def test_a_row_never_draws_a_token_without_a_share() -> None:
    for vocab in (1, 2, 700):
        for only in {0, vocab // 2, vocab - 1}:
            shares = np.zeros(vocab, np.float32)
            shares[only] = 1
            assert {row_filters.draw(shares, u) for u in (0.0, 0.5, 1 - 2**-24)} == {only}


def test_a_model_that_has_diverged_writes_something_without_a_warning() -> None:
    broken = {name: array * np.float32("nan") for name, array in ARRAYS.items()}
    for arrays in (broken, {name: array * np.float32(1e38) for name, array in ARRAYS.items()}):
        decoder = SingleDecoder(SingleModel(arrays.items(), models.SMALL), N_CTX, RowSampling())
        (found,) = columns(decoder.tokens([[1]], [uniforms(0, 0, 0)], 4))
        assert len(found) == 4
        assert all(0 <= token < models.SMALL.n_vocab for token in found)
