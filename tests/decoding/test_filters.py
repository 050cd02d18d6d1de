"""Filters and the draw against plain computations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("tensorflow")

LOGITS = np.random.default_rng(0).normal(0, 3, (4, 700)).astype(np.float32)


def softmax(logits: Any) -> Any:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("k", [1, 5, 699])
def test_top_k_leaves_the_k_likeliest(k: int) -> None:
    from gpt2cli.decoding.filters import keep_top_k

    left = np.isfinite(keep_top_k(LOGITS, k).numpy())
    for row, kept in zip(LOGITS, left, strict=True):
        assert set(np.flatnonzero(kept)) == set(np.argsort(row)[-k:])


@pytest.mark.parametrize("p", [1e-6, 0.3, 0.9, 0.999])
def test_top_p_leaves_the_fewest_that_reach_p(p: float) -> None:
    from gpt2cli.decoding.filters import keep_top_p

    left = np.isfinite(keep_top_p(LOGITS, p).numpy())
    for shares, kept in zip(softmax(LOGITS.astype(np.float64)), left, strict=True):
        order = np.argsort(shares)[::-1]
        count = int(np.searchsorted(np.cumsum(shares[order]), p)) + 1
        assert set(np.flatnonzero(kept)) == set(order[:count])


def test_a_draw_inverts_the_cumulative_sum() -> None:
    import tensorflow as tf

    from gpt2cli.decoding.filters import draw

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

    from gpt2cli.decoding.filters import draw

    for only in {0, vocab // 2, vocab - 1}:
        shares = tf.one_hot([only] * 3, vocab)
        found = draw(shares, tf.constant([0.0, 0.5, 1 - 2**-24])).numpy()
        assert found.tolist() == [only] * 3


def test_draws_have_the_frequencies_of_the_shares() -> None:
    import tensorflow as tf

    from gpt2cli.decoding.filters import draw

    shares = np.array([0.5, 0.0, 0.2, 0.3], np.float32)
    uniform = np.random.default_rng(0).random(20_000, np.float32)
    found = draw(tf.constant(np.tile(shares, (20_000, 1))), tf.constant(uniform)).numpy()
    frequencies = np.bincount(found, minlength=4) / 20_000
    np.testing.assert_allclose(frequencies, shares, atol=0.012)


def test_temperature_0_takes_the_likeliest_and_so_does_top_k_1() -> None:
    from gpt2cli.decoding.filters import Sampling

    uniform = np.full(4, 0.77, np.float32)
    likeliest = LOGITS.argmax(axis=1).tolist()
    assert Sampling(temperature=0).choose(LOGITS, uniform).numpy().tolist() == likeliest
    assert Sampling(top_k=1).choose(LOGITS, uniform).numpy().tolist() == likeliest
    assert Sampling(top_p=1e-9).choose(LOGITS, uniform).numpy().tolist() == likeliest
