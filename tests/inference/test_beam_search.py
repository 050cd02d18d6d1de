"""Beams that are drawn, that slide, and that find too little; and contrastive search that slides.

What beams and contrastive search find within the window, test_huggingface.py judges.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gpt2cli.inference.beam_search import BeamParams, Group, search
from gpt2cli.inference.contrastive_search import ContrastParams, contrastive_tokens
from gpt2cli.inference.decode import random_stream
from gpt2cli.inference.engine import Engine
from gpt2cli.inference.sampling import SamplingParams
from tests import models, oracle, reference_search
from tests.inference.engines import ARRAYS, HEADS, KINDS, N_CTX, engine_of

PROMPTS = [[7, 100, 3, 42, 250], [9, 8, 7], list(range(20, 40))]
Ended = Callable[[list[int]], bool]


@pytest.fixture(params=KINDS)
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param == "tensorflow":
        request.getfixturevalue("tensorflow")
    return engine_of(request.param)


def never(_tokens: list[int]) -> bool:
    return False


def searched(
    engine: Engine,
    beams: BeamParams,
    *,
    prompts: list[list[int]] = PROMPTS,
    length: int,
    ended: Ended = never,
    **params: Any,
) -> list[Group]:
    """Returns the beams of each prompt, which are searched in one batch."""
    groups = [Group(beams, length, ended) for _ in prompts]
    streams = [random_stream(3, number, 0) for number in range(len(prompts))]
    steps = search(
        engine, SamplingParams(**params), prompts=prompts, streams=streams, groups=groups
    )
    assert len(list(steps)) <= length
    return groups


def texts_of(group: Group) -> list[list[int]]:
    """Returns the new tokens of all beams, best first."""
    return [beam.tokens for beam in group.best(group.beams.count)]


def test_a_model_that_has_diverged_has_a_text_whichever_way_beams_are_followed(
    engine: Engine,
) -> None:
    kind = "cpu" if type(engine).__name__ == "CPUEngine" else "tensorflow"
    broken = engine_of(kind, {name: array * np.float32(1e38) for name, array in ARRAYS.items()})
    for sample in (False, True):
        for group in searched(broken, BeamParams(count=3, sample=sample), length=4):
            assert 1 <= len(texts_of(group)[0]) <= 4


SETTINGS: list[dict[str, Any]] = [
    {"num_beams": 3, "temperature": 1.0},
    {"num_beams": 4, "temperature": 0.7, "top_k": 50, "no_repeat_ngram_size": 2},
    {"num_beams": 2, "temperature": 1.5, "top_p": 0.9, "repetition_penalty": 1.3},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_drawn_beams_are_those_of_a_plain_computation(
    engine: Engine, settings: dict[str, Any]
) -> None:
    params = {name: value for name, value in settings.items() if name != "num_beams"}
    beams = BeamParams(count=settings["num_beams"], sample=True)
    groups = searched(engine, beams, prompts=PROMPTS[:2], length=10, **params)
    for number, prompt in enumerate(PROMPTS[:2]):
        expected = reference_search.beams(
            ARRAYS, models.SMALL, prompt, settings | {"length": 10}, random_stream(3, number, 0)
        )
        assert texts_of(groups[number]) == expected


def test_beams_slide(engine: Engine) -> None:
    groups = searched(engine, BeamParams(count=3), length=45)
    for prompt, group in zip(PROMPTS, groups, strict=True):
        settings = {"num_beams": 3, "length": 45}
        assert texts_of(group) == reference_search.beams(ARRAYS, models.SMALL, prompt, settings)


def test_beams_that_the_filters_leave_nothing_for_are_not_returned(engine: Engine) -> None:
    beams = BeamParams(count=4, sample=True)
    (group,) = searched(engine, beams, prompts=[[1, 2]], length=6, top_k=1)
    assert texts_of(group) == [oracle.greedy(ARRAYS, HEADS, [1, 2], 6)]


@pytest.mark.usefixtures("tensorflow")
def test_several_draws_never_give_the_same_twice() -> None:
    import tensorflow as tf

    from gpt2cli.inference.tensorflow_sampling import draw_several

    probabilities = np.zeros((200, 300), np.float32)
    probabilities[:, [3, 50, 299]] = (0.7, 0.2, 0.1)
    uniform = np.random.default_rng(0).random((200, 4), np.float32)
    drawn, there = draw_several(tf.constant(probabilities), tf.constant(uniform))
    assert there.numpy().tolist() == [[True, True, True, False]] * 200
    assert all(sorted(row[:3]) == [3, 50, 299] for row in drawn.numpy().tolist())
    firsts, counts = np.unique(drawn.numpy()[:, 0], return_counts=True)
    assert firsts.tolist() == [3, 50, 299]
    assert counts / 200 == pytest.approx([0.7, 0.2, 0.1], abs=0.08)


def test_contrastive_search_slides_and_without_a_penalty_is_greedy(engine: Engine) -> None:
    params = SamplingParams(top_k=3)
    steps = contrastive_tokens(engine, params, ContrastParams(0.0), prompts=PROMPTS, length=45)
    found = [chosen.tokens for chosen in steps]
    for place, prompt in enumerate(PROMPTS):
        context = list(prompt)
        for tokens in found:
            # A candidate needs its place in the window, too.
            context = context if len(context) < N_CTX else context[-(N_CTX // 2) :]
            expected = oracle.greedy(ARRAYS, HEADS, context, 1)
            assert tokens[place] == expected[0]
            context.append(tokens[place])


def test_log_probabilities_of_beams_are_the_models_own(engine: Engine) -> None:
    (group,) = searched(
        engine,
        BeamParams(count=3, length_penalty=0.0),
        prompts=PROMPTS[:1],
        length=8,
        ended=lambda tokens: tokens[-1] == 139,
        repetition_penalty=1.5,
    )
    for beam in group.best(3):
        tokens = [*PROMPTS[0], *beam.tokens]
        probabilities = oracle.softmax(oracle.logits(ARRAYS, HEADS, tokens[:-1]))
        own = np.log(probabilities[range(-len(beam.tokens), 0), beam.tokens])
        np.testing.assert_allclose(beam.log_probabilities, own, atol=2e-5)
        assert beam.score == beam.total < own.sum()


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("share", [2, 40, 1])
def test_beams_go_on_where_most_candidates_end(engine: Engine, sample: bool, share: int) -> None:
    def ended(tokens: list[int]) -> bool:
        return share == 1 or tokens[-1] % share > 0

    for group in searched(engine, BeamParams(count=3, sample=sample), length=8, ended=ended):
        texts = texts_of(group)
        assert 1 <= len(texts) == len({tuple(text) for text in texts}) <= 3
        for text in texts:
            assert ended(text) or len(text) == 8
            assert not any(ended(text[:end]) for end in range(1, len(text)))


def test_a_beam_that_goes_on_by_itself_is_followed_to_its_end() -> None:
    group = Group(BeamParams(count=2), 2, lambda tokens: tokens[-1] > 1)
    group.advance([(0, 2, -1.0, -1.0), (0, 3, -2.0, -2.0), (0, 4, -3.0, -3.0), (0, 1, -4.0, -4.0)])
    assert group.running[0].tokens == [1]
    assert [beam.total for beam in group.running] == [-4.0, float("-inf")]
    assert group.parents == [0, 0]
