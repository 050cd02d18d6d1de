"""Cached decoding against uncached: the oracle computes every token from all before it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from tests import models, oracle

pytestmark = pytest.mark.usefixtures("tensorflow")

ARRAYS = models.random_arrays(models.SMALL, deviation=0.5)
HEADS, N_CTX = models.SMALL.n_head, models.SMALL.n_ctx


def decoded(
    prompts: list[list[int]], length: int, *, seed: int = 0, xla: bool = True, **sampling: Any
) -> Any:
    """Returns each prompt's new tokens, as lists."""
    from gpt2cli.inference.streams import uniforms
    from gpt2cli.inference.tensorflow_engine import Decoder
    from gpt2cli.inference.tensorflow_sampling import Sampling

    decoder = Decoder(ARRAYS, models.SMALL, Sampling(**sampling), xla=xla)
    draws = [uniforms(seed, 0, number) for number in range(len(prompts))]
    return columns(decoder.tokens(prompts, draws, length))


def columns(steps: Iterable[Any]) -> list[list[int]]:
    """Returns each row's tokens of steps that each have one for every row."""
    return [list(row) for row in zip(*(chosen.tokens for chosen in steps), strict=True)]


def slid(prompt: list[int], length: int) -> list[int]:
    """Returns the greedy tokens, computed without a cache, where a full window is halved."""
    context, new = list(prompt), []
    for _ in range(length):
        if len(context) > N_CTX:
            context = context[-(N_CTX // 2) :]
        new += oracle.greedy(ARRAYS, HEADS, context, 1)
        context.append(new[-1])
    return new


def test_cached_decoding_equals_uncached() -> None:
    prompt = [7, 100, 3, 42, 250]
    found = decoded([prompt], 20, temperature=0)
    assert found == [oracle.greedy(ARRAYS, HEADS, prompt, 20)]
    assert len(set(found[0])) >= 5  # a model that repeats itself would prove little


def test_prompts_of_different_lengths_share_a_batch() -> None:
    prompts = [[5], [9, 8, 7], list(range(30, 50)), list(range(100, 116))]
    expected = [oracle.greedy(ARRAYS, HEADS, prompt, 10) for prompt in prompts]
    assert decoded(prompts, 10, temperature=0) == expected


def test_a_full_window_goes_on_from_its_newer_half() -> None:
    for prompt in ([1, 2, 3], list(range(N_CTX))):
        assert decoded([prompt], 60, temperature=0) == [slid(prompt, 60)]


def test_rows_slide_each_in_its_own_time() -> None:
    prompts = [[1, 2, 3], list(range(25))]
    found = decoded(prompts, 60, xla=False, temperature=0)
    assert found == [slid(prompt, 60) for prompt in prompts]


def test_a_sample_is_the_same_in_any_batch() -> None:
    prompts = [[1, 2, 3]] * 3
    together = decoded(prompts, 40, seed=9, temperature=1.5)
    assert decoded(prompts[:1], 40, seed=9, temperature=1.5) == together[:1]
    assert together[0] != together[1]
    assert decoded(prompts, 40, seed=10, temperature=1.5) != together


def test_random_numbers_never_change() -> None:
    from gpt2cli.inference.streams import uniforms

    numbers = uniforms(1, 2, 3)
    assert [round(next(numbers), 6) for _ in range(3)] == [0.744745, 0.356413, 0.636608]
    many = np.array([next(numbers) for _ in range(10_000)])
    assert many.min() >= 0
    assert many.max() < 1
    assert many.mean() == pytest.approx(0.5, abs=0.01)


def test_a_batch_of_another_size_gets_a_cache_of_its_own() -> None:
    from gpt2cli.inference.streams import uniforms
    from gpt2cli.inference.tensorflow_engine import Decoder
    from gpt2cli.inference.tensorflow_sampling import Sampling

    decoder = Decoder(ARRAYS, models.SMALL, Sampling(temperature=0), xla=False)
    for prompts in ([[1, 2]], [[1, 2], [3]], [[4] * 20]):
        draws = [uniforms(0, 0, 0)] * len(prompts)
        found = columns(decoder.tokens(prompts, draws, 5))
        assert found == [oracle.greedy(ARRAYS, HEADS, prompt, 5) for prompt in prompts]


@pytest.mark.parametrize("n_ctx", [8, 64, 100, 1024, 2048])
def test_prompt_sizes_cover_the_window(n_ctx: int) -> None:
    from gpt2cli.inference.tensorflow_cache import prompt_size, prompt_sizes, widest_padding

    for length in range(1, n_ctx + 1):
        assert length <= prompt_size(length, n_ctx) <= n_ctx
        assert prompt_size(length, n_ctx) - length < widest_padding(n_ctx)
    assert prompt_sizes(n_ctx)[-1] == n_ctx
