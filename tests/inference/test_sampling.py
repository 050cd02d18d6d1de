"""Filters and the draw against plain computations."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from gpt2cli.inference.sampling import SamplingParams
from tests import reference_filters

pytestmark = pytest.mark.usefixtures("tensorflow")

LOGITS = np.random.default_rng(0).normal(0, 3, (4, 700)).astype(np.float32)


# Tokens before, with repeats; the rows are of different lengths.
HISTORIES = [[5, 6, 5], [], [1, 2, 3, 1, 2, 9, 1, 2], [*range(40), 3, 4]]
NO_HISTORY = np.zeros((4, 0), np.int32)


def softmax(logits: Any) -> Any:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def aligned(histories: list[list[int]]) -> Any:
    """Returns the tokens as the filters get them: aligned at their ends."""
    return np.array([[-1] * (64 - len(row)) + row for row in histories], np.int32)


SETTINGS: list[dict[str, Any]] = [
    {"temperature": 0.7},
    *({"top_k": k} for k in (1, 5, 699)),
    *({"top_p": p} for p in (1e-6, 0.3, 0.9, 0.999)),
    *({"min_p": p} for p in (1e-4, 0.1, 1.0)),
    *({"typical_p": p} for p in (1e-6, 0.2, 0.9, 0.999)),
    *({"repetition_penalty": p} for p in (0.5, 1.3)),
    *({"no_repeat_ngram_size": n} for n in (1, 2, 3, 4, 64, 65)),
    {"min_length": 1, "ends": (3, 699)},
    {"temperature": 0.4, "top_k": 40, "top_p": 0.9},
    {"temperature": 1.7, "repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "top_p": 0.95},
    {"top_k": 300, "top_p": 0.97, "min_p": 0.002, "typical_p": 0.8},
    {
        "temperature": 0.9,
        "min_length": 1,
        "ends": (0, 5, 650),
        "repetition_penalty": 2.0,
        "no_repeat_ngram_size": 2,
        "top_k": 200,
        "top_p": 0.99,
        "min_p": 0.001,
        "typical_p": 0.95,
    },
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_filters_leave_what_a_plain_computation_leaves(settings: dict[str, Any]) -> None:
    from gpt2cli.inference.tensorflow_sampling import FILTERS

    params = SamplingParams(**settings)
    found = np.asarray(FILTERS.filtered(LOGITS, aligned(HISTORIES), params))
    for row, history, logits in zip(found, HISTORIES, LOGITS, strict=True):
        expected = reference_filters.filtered(logits, history, **settings)
        assert set(np.flatnonzero(np.isfinite(row))) == set(np.flatnonzero(np.isfinite(expected)))
        np.testing.assert_allclose(row, expected, rtol=1e-5)


def test_all_filters_compiled_by_xla_choose_what_a_plain_computation_chooses() -> None:
    import tensorflow as tf

    from gpt2cli.inference import tensorflow_sampling

    settings = SETTINGS[-1]
    head = partial(tensorflow_sampling.choose, SamplingParams(**settings))
    choose = tf.function(head, jit_compile=True)
    uniform = np.array([0.1, 0.5, 0.77, 0.999], np.float32)
    tokens, log_probabilities = choose(
        tf.constant(LOGITS), tf.constant(uniform), tf.constant(aligned(HISTORIES))
    )
    left = [
        reference_filters.filtered(row, history, **settings)
        for row, history in zip(LOGITS, HISTORIES, strict=True)
    ]
    expected = [reference_filters.drawn(row, u) for row, u in zip(left, uniform, strict=True)]
    assert tokens.numpy().tolist() == expected
    unfiltered = np.log(softmax(LOGITS.astype(np.float64)))[range(4), expected]
    np.testing.assert_allclose(log_probabilities, unfiltered, rtol=1e-5)


def test_where_every_token_would_be_a_repeat_all_are_left() -> None:
    from gpt2cli.network.logit_filters import remove, remove_repeats

    logits = LOGITS[:, :4]
    history = np.tile(np.arange(4, dtype=np.int32), (4, 1))
    assert remove_repeats(logits, history, 1).numpy().tolist() == logits.tolist()
    assert remove(logits, range(4)).numpy().tolist() == logits.tolist()


def test_the_likeliest_token_is_taken_among_those_that_are_no_repeat() -> None:
    from gpt2cli.inference.tensorflow_sampling import choose

    best, second = np.argsort(-LOGITS[0])[:2].tolist()
    history = aligned([[7, best, 7]] * 4)[:1]
    params = SamplingParams(temperature=0, no_repeat_ngram_size=2)
    found, _ = choose(params, LOGITS[:1], np.zeros(1, np.float32), history)
    assert found.numpy().tolist() == [second]


def test_a_draw_inverts_the_cumulative_sum() -> None:
    import tensorflow as tf

    from gpt2cli.network.logit_filters import draw

    shares = softmax(LOGITS.astype(np.float64))
    ends = np.cumsum(shares, axis=1)
    for uniform in np.linspace(0, 0.9999, 50):
        found = draw(tf.constant(shares, tf.float32), tf.fill([4], np.float32(uniform))).numpy()
        for row, token in enumerate(found):
            begin = ends[row, token] - shares[row, token]
            assert begin - 1e-5 <= uniform <= ends[row, token] + 1e-5


@pytest.mark.parametrize("vocab", [1, 2, 255, 256, 257, 700])
def test_a_token_without_a_share_is_never_drawn(vocab: int) -> None:
    import tensorflow as tf

    from gpt2cli.network.logit_filters import draw

    for only in {0, vocab // 2, vocab - 1}:
        shares = tf.one_hot([only] * 3, vocab)
        found = draw(shares, tf.constant([0.0, 0.5, 1 - 2**-24])).numpy()
        assert found.tolist() == [only] * 3


def test_draws_have_the_frequencies_of_the_shares() -> None:
    import tensorflow as tf

    from gpt2cli.network.logit_filters import draw

    shares = np.array([0.5, 0.0, 0.2, 0.3], np.float32)
    uniform = np.random.default_rng(0).random(20_000, np.float32)
    found = draw(tf.constant(np.tile(shares, (20_000, 1))), tf.constant(uniform)).numpy()
    frequencies = np.bincount(found, minlength=4) / 20_000
    np.testing.assert_allclose(frequencies, shares, atol=0.012)


def test_temperature_0_takes_the_likeliest_and_so_does_top_k_1() -> None:
    from gpt2cli.inference.tensorflow_sampling import choose

    uniform = np.full(4, 0.77, np.float32)
    likeliest = LOGITS.argmax(axis=1).tolist()
    for settings in ({"temperature": 0}, {"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1}):
        chosen, _ = choose(SamplingParams(**settings), LOGITS, uniform, NO_HISTORY)
        assert chosen.numpy().tolist() == likeliest
