"""Beams that are drawn, that slide, and that find too little; and contrastive search that slides.

What beams and contrastive search find within the window, test_huggingface.py judges.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from tests import models, oracle, reference_search

pytestmark = pytest.mark.usefixtures("tensorflow")

ARRAYS = models.random_arrays(models.SMALL, deviation=0.5)
PROMPTS = [[7, 100, 3, 42, 250], [9, 8, 7], list(range(20, 40))]


def searched(
    prompts: list[list[int]], length: int, *, sample: bool = False, **settings: Any
) -> list[list[list[int]]]:
    """Returns the new tokens of all beams of each prompt, which are searched in one batch."""
    from gpt2cli.inference.streams import uniforms

    from gpt2cli.inference.beam_search import BeamDecoder, Beams, Group
    from gpt2cli.inference.tensorflow_sampling import Sampling

    settings = dict(settings)
    beams = Beams(settings.pop("num_beams"), sample)
    decoder = BeamDecoder(ARRAYS, models.SMALL, Sampling(**settings), beams, xla=False)
    groups = [Group(beams, length, lambda _tokens: False) for _ in prompts]
    draws = [uniforms(3, number, 0) for number in range(len(prompts))]
    steps = list(decoder.search(prompts, draws, groups, length))
    assert len(steps) <= length
    return [[beam.tokens for beam in group.best(beams.count)] for group in groups]


SETTINGS: list[dict[str, Any]] = [
    {"num_beams": 3, "temperature": 1.0},
    {"num_beams": 4, "temperature": 0.7, "top_k": 50, "no_repeat_ngram_size": 2},
    {"num_beams": 2, "temperature": 1.5, "top_p": 0.9, "repetition_penalty": 1.3},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_drawn_beams_are_those_of_a_plain_computation(settings: dict[str, Any]) -> None:
    from gpt2cli.inference.streams import uniforms

    found = searched(PROMPTS[:2], 10, sample=True, **settings)
    for number, prompt in enumerate(PROMPTS[:2]):
        plain = {**settings, "length": 10}
        expected = reference_search.beams(
            ARRAYS, models.SMALL, prompt, plain, uniforms(3, number, 0)
        )
        assert found[number] == expected


def test_beams_slide() -> None:
    found = searched(PROMPTS, 45, num_beams=3)
    for prompt, texts in zip(PROMPTS, found, strict=True):
        settings = {"num_beams": 3, "length": 45}
        assert texts == reference_search.beams(ARRAYS, models.SMALL, prompt, settings)


def test_beams_that_the_filters_leave_nothing_for_are_not_returned() -> None:
    (texts,) = searched([[1, 2]], 6, sample=True, num_beams=4, top_k=1)
    assert texts == [oracle.greedy(ARRAYS, models.SMALL.n_head, [1, 2], 6)]


def test_several_draws_never_give_the_same_twice() -> None:
    import tensorflow as tf

    from gpt2cli.inference.beam_search import draw_several

    shares = np.zeros((200, 300), np.float32)
    shares[:, [3, 50, 299]] = (0.7, 0.2, 0.1)
    uniform = np.random.default_rng(0).random((200, 4), np.float32)
    drawn, there = draw_several(tf.constant(shares), tf.constant(uniform))
    assert there.numpy().tolist() == [[True, True, True, False]] * 200
    assert all(sorted(row[:3]) == [3, 50, 299] for row in drawn.numpy().tolist())
    firsts, counts = np.unique(drawn.numpy()[:, 0], return_counts=True)
    assert firsts.tolist() == [3, 50, 299]
    assert counts / 200 == pytest.approx([0.7, 0.2, 0.1], abs=0.08)


def test_contrastive_search_slides_and_without_a_penalty_is_greedy() -> None:
    from gpt2cli.inference.contrastive_search import ContrastiveDecoder
    from gpt2cli.inference.tensorflow_sampling import Sampling

    n_ctx = models.SMALL.n_ctx
    decoder = ContrastiveDecoder(ARRAYS, models.SMALL, Sampling(top_k=3), 0.0, xla=False)
    draws = [itertools.repeat(0.0)] * 3
    found = [chosen.tokens for chosen in decoder.tokens(PROMPTS, draws, 45)]
    for place, prompt in enumerate(PROMPTS):
        context = list(prompt)
        for tokens in found:
            # A candidate needs its place in the window, too.
            context = context if len(context) < n_ctx else context[-(n_ctx // 2) :]
            expected = oracle.greedy(ARRAYS, models.SMALL.n_head, context, 1)
            assert tokens[place] == expected[0]
            context.append(tokens[place])


def test_log_probabilities_of_beams_are_the_models_own() -> None:
    from gpt2cli.inference.beam_search import BeamDecoder, Beams, Group
    from gpt2cli.inference.tensorflow_sampling import Sampling

    beams = Beams(3, length_penalty=0.0)
    sampling = Sampling(repetition_penalty=1.5)
    decoder = BeamDecoder(ARRAYS, models.SMALL, sampling, beams, xla=False)
    group = Group(beams, 8, lambda tokens: tokens[-1] == 139)
    list(decoder.search(PROMPTS[:1], [iter(())], [group], 8))
    for beam in group.best(3):
        tokens = [*PROMPTS[0], *beam.tokens]
        shares = oracle.softmax(oracle.logits(ARRAYS, models.SMALL.n_head, tokens[:-1]))
        own = np.log(shares[range(-len(beam.tokens), 0), beam.tokens])
        np.testing.assert_allclose(beam.log_probabilities, own, atol=2e-5)
        assert beam.score == beam.total < own.sum()


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("share", [2, 40, 1])
def test_beams_go_on_where_most_candidates_end(sample: bool, share: int) -> None:
    from gpt2cli.inference.streams import uniforms

    from gpt2cli.inference.beam_search import BeamDecoder, Beams, Group
    from gpt2cli.inference.tensorflow_sampling import Sampling

    beams, sampling = Beams(3, sample), Sampling()
    decoder = BeamDecoder(ARRAYS, models.SMALL, sampling, beams, xla=False)

    def ended(tokens: list[int]) -> bool:
        return share == 1 or tokens[-1] % share > 0

    groups = [Group(beams, 8, ended) for _ in PROMPTS]
    draws = [uniforms(3, number, 0) for number in range(len(PROMPTS))]
    list(decoder.search(PROMPTS, draws, groups, 8))
    for group in groups:
        texts = [beam.tokens for beam in group.best(3)]
        assert 1 <= len(texts) == len({tuple(text) for text in texts}) <= 3
        for text in texts:
            assert ended(text) or len(text) == 8
            assert not any(ended(text[:end]) for end in range(1, len(text)))


def test_a_beam_that_goes_on_alone_is_followed_to_its_end() -> None:
    from gpt2cli.inference.beam_search import Beams, Group

    group = Group(Beams(2), 2, lambda tokens: tokens[-1] > 1)
    group.advance([(0, 2, -1.0, -1.0), (0, 3, -2.0, -2.0), (0, 4, -3.0, -3.0), (0, 1, -4.0, -4.0)])
    assert group.running[0].tokens == [1]
    assert [beam.total for beam in group.running] == [-4.0, float("-inf")]
    assert group.parents == [0, 0]
