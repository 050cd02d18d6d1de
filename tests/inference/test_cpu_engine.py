"""Texts on a CPU; the oracle, the plain filters and the decoder of batches judge them."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from gpt2cli.inference.cpu import sampling
from gpt2cli.inference.cpu.decode import TextsDecoder, means
from gpt2cli.inference.cpu.engine import TextsModel
from gpt2cli.inference.cpu.ops import Arithmetic
from gpt2cli.inference.cpu.sampling import RowSampling
from gpt2cli.inference.streams import uniforms
from tests import models, oracle, reference_filters
from tests.inference.test_sampling import HISTORIES, LOGITS, SETTINGS, softmax
from tests.inference.test_tensorflow_engine import ARRAYS, HEADS, N_CTX, columns, decoded, slid


@pytest.fixture(params=["numba", "numpy"])
def computed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Computes by Numba's loops, and once more as where there is none."""
    if request.param == "numpy":
        monkeypatch.setitem(sys.modules, "numba", None)
    arithmetic, sampling = means("float32", ())
    plain = type(arithmetic) is Arithmetic and type(sampling) is RowSampling
    assert plain == (request.param == "numpy")
    return str(request.param)


def model_of(arrays: dict[str, Any] = ARRAYS) -> TextsModel:
    return TextsModel(arrays.items(), models.SMALL, means("float32", ())[0])


def grown(
    prompts: list[list[int]], length: int, *, seed: int = 0, **choices: Any
) -> list[list[int]]:
    """Returns the new tokens of texts that grow side by side."""
    arithmetic, sampling = means("float32", ())
    model = TextsModel(ARRAYS.items(), models.SMALL, arithmetic)
    decoder = TextsDecoder(model, N_CTX, type(sampling)(**choices))
    draws = [uniforms(seed, 0, number) for number in range(len(prompts))]
    return columns(decoder.tokens(prompts, draws, length))


def after(model: TextsModel, tokens: list[int]) -> Any:
    """Returns the scores of what follows tokens, taken in at once but for the last."""
    model.begin(0, tokens[:-1])
    return model.step(tokens[-1:])[0]


@pytest.mark.usefixtures("computed")
def test_the_network_equals_the_oracle_whole_and_token_by_token() -> None:
    model, tokens = model_of(), list(range(3, 3 + N_CTX))
    model.open(1, N_CTX)
    expected = oracle.logits(ARRAYS, HEADS, tokens)
    np.testing.assert_allclose(after(model, tokens), expected[-1], rtol=2e-4, atol=2e-4)
    found = [after(model, tokens[:1]), *(model.step([token])[0] for token in tokens[1:])]
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)
    # A text that begins anew sees nothing of the one before.
    np.testing.assert_allclose(after(model, tokens[:4]), expected[3], rtol=2e-4, atol=2e-4)


def test_a_text_has_the_same_scores_to_the_bit_alone_and_beside_others() -> None:
    texts = [[7, 100, 3, 42, 250], [5], [9, 8, 7]]
    together, alone = model_of(), [model_of() for _ in texts]
    together.open(len(texts), N_CTX)
    for number, text in enumerate(texts):
        together.begin(number, text[:-1])
        alone[number].open(1, N_CTX)
        alone[number].begin(0, text[:-1])
    for tokens in ([250, 5, 7], [17, 3, 40], [1, 1, 2]):
        scores = together.step(tokens)
        found = [model.step([token])[0] for model, token in zip(alone, tokens, strict=True)]
        np.testing.assert_array_equal(scores, found)


def test_queries_in_blocks_see_what_they_see_in_one(
    computed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokens = model_of(), list(range(5, 5 + N_CTX))
    model.open(1, N_CTX)
    whole = after(model, tokens)
    monkeypatch.setattr("gpt2cli.inference.cpu.ops.QUERY_BLOCK", 5)
    if computed == "numba":
        monkeypatch.setattr("gpt2cli.inference.cpu.numba_ops.LONG_PROMPT", 4)
        monkeypatch.setattr("gpt2cli.inference.cpu.numba_ops.FEW_ROWS", 1)
    np.testing.assert_allclose(after(model, tokens), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("computed")
def test_greedy_tokens_are_the_oracles_whatever_grows_beside_them() -> None:
    prompts = [[7, 100, 3, 42, 250], [5], [9, 8, 7], [7, 100, 3, 42, 250]]
    expected = [oracle.greedy(ARRAYS, HEADS, prompt, 20) for prompt in prompts]
    assert grown(prompts, 20, temperature=0) == expected
    assert grown(prompts[:1], 20, temperature=0) == expected[:1]


@pytest.mark.usefixtures("computed")
def test_a_full_window_goes_on_from_its_newer_half_each_in_its_own_time() -> None:
    prompts = [[1, 2, 3], list(range(N_CTX)), list(range(25))]
    assert grown(prompts, 60, temperature=0) == [slid(prompt, 60) for prompt in prompts]


@pytest.mark.usefixtures("computed")
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
    prompts = [[9, 8, 7]] * 2
    expected = decoded(prompts, 50, seed=4, xla=False, **sampling)
    assert grown(prompts, 50, seed=4, **sampling) == expected
    assert grown(prompts[:1], 50, seed=4, **sampling) == expected[:1]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_filters_of_a_row_leave_what_a_plain_computation_leaves(settings: dict[str, Any]) -> None:
    for history, logits in zip(HISTORIES, LOGITS, strict=True):
        row = RowSampling(**settings).filtered(logits, history)
        expected = reference_filters.filtered(logits, history, **settings)
        assert row.dtype == np.float32
        assert set(np.flatnonzero(np.isfinite(row))) == set(np.flatnonzero(np.isfinite(expected)))
        np.testing.assert_allclose(row, expected, rtol=1e-5)


@pytest.mark.parametrize("uniform", [0.0, 0.1, 0.5, 0.77, 1 - 2**-24])
def test_a_row_chooses_what_a_plain_computation_chooses(uniform: float) -> None:
    for history, logits in zip(HISTORIES, LOGITS, strict=True):
        left = reference_filters.filtered(logits, history, **SETTINGS[-1])
        token, nats = RowSampling(**SETTINGS[-1]).choose(logits, uniform, history)
        assert token == reference_filters.drawn(left, uniform)
        assert nats == pytest.approx(np.log(softmax(logits.astype(np.float64)))[token], rel=1e-5)


def test_the_few_likeliest_are_enough_or_all_are_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = softmax(LOGITS[0])
    for p in (0.2, 0.9, 0.9999):
        monkeypatch.setattr(sampling, "FEW", 3)
        few = sampling.reaching(LOGITS[0], shares, p)
        monkeypatch.setattr(sampling, "FEW", 10_000)
        assert few.tolist() == sampling.reaching(LOGITS[0], shares, p).tolist()


def test_where_every_token_would_be_a_repeat_all_are_left_to_a_row() -> None:
    logits = LOGITS[0, :4]
    assert sampling.remove_repeats(logits, [0, 1, 2, 3], 1).tolist() == logits.tolist()


def test_a_row_never_draws_a_token_without_a_share() -> None:
    for vocab in (1, 2, 700):
        for only in {0, vocab // 2, vocab - 1}:
            shares = np.zeros(vocab, np.float32)
            shares[only] = 1
            assert {sampling.draw(shares, u) for u in (0.0, 0.5, 1 - 2**-24)} == {only}


@pytest.mark.usefixtures("computed")
def test_a_model_that_has_diverged_writes_something_without_a_warning() -> None:
    broken = {name: array * np.float32("nan") for name, array in ARRAYS.items()}
    for arrays in (broken, {name: array * np.float32(1e38) for name, array in ARRAYS.items()}):
        arithmetic, sampling = means("float32", ())
        model = TextsModel(arrays.items(), models.SMALL, arithmetic)
        decoder = TextsDecoder(model, N_CTX, sampling)
        draws = [uniforms(0, 0, number) for number in range(2)]
        for found in columns(decoder.tokens([[1], [1, 2]], draws, 4)):
            assert len(found) == 4
            assert all(0 <= token < models.SMALL.n_vocab for token in found)


@pytest.mark.usefixtures("computed")
def test_texts_of_one_length_have_one_cache() -> None:
    model = model_of()
    decoder = TextsDecoder(model, N_CTX, means("float32", ())[1])
    kept = []
    for seed in range(3):
        draws = [uniforms(seed, 0, number) for number in range(2)]
        columns(decoder.tokens([[1, 2, 3], [4]], draws, 5))
        kept.append(model._cache)
    assert kept[0] is kept[1] is kept[2]
