"""Compiled draws against those of a row in NumPy."""

from __future__ import annotations

import numpy as np

from gpt2cli.inference.cpu import sampling, sampling_kernels


def test_tokens_and_nats_of_rows_are_those_of_each_row() -> None:
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


def test_a_token_without_a_share_is_never_drawn() -> None:
    for vocab in (1, 2, 700):
        for only in {0, vocab // 2, vocab - 1}:
            logits = np.full((3, vocab), -np.inf, np.float32)
            logits[:, only] = 1
            tokens = np.empty(3, np.int64)
            sampling_kernels.draw_all(logits, np.array([0.0, 0.5, 1 - 2**-24]), tokens)
            assert tokens.tolist() == [only] * 3
