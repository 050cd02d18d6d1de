"""Greedy, beam and contrastive decoding against what Hugging Face's `generate` made of the same.

The results were stored by huggingface_results.py.
"""

from __future__ import annotations

import itertools
import json
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import models

pytestmark = pytest.mark.usefixtures("tensorflow")

ARRAYS = models.random_arrays(models.SMALL, deviation=0.5)
STORED = json.loads(Path(__file__).with_name("huggingface_results.json").read_text())
FILTERS = ("repetition_penalty", "no_repeat_ngram_size", "top_k")
LENGTH = 20


def grouped(kind: str) -> list[tuple[str, list[Any]]]:
    """Returns the stored cases, those of the same settings together, for one decoder each."""
    ordered = sorted(STORED[kind], key=lambda case: str(case["settings"]))
    by_settings = itertools.groupby(ordered, key=lambda case: str(case["settings"]))
    return [(name, list(cases)) for name, cases in by_settings]


def sampling(settings: dict[str, Any]) -> Any:
    from gpt2cli.inference.tensorflow_sampling import Sampling

    kept = {name: value for name, value in settings.items() if name in FILTERS}
    return Sampling(temperature=0, **kept)


def columns(decoder: Any, prompts: list[list[int]]) -> list[list[int]]:
    """Returns each prompt's new tokens, all decoded in one batch."""
    draws = [itertools.repeat(0.5)] * len(prompts)
    steps = [chosen.tokens for chosen in decoder.tokens(prompts, draws, LENGTH)]
    return np.transpose(steps).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(("name", "cases"), grouped("greedy"), ids=lambda case: str(case)[:60])
def test_greedy_tokens_are_the_same(name: str, cases: list[Any]) -> None:
    from gpt2cli.inference.tensorflow_engine import Decoder

    decoder = Decoder(ARRAYS, models.SMALL, sampling(cases[0]["settings"]), xla=False)
    found = columns(decoder, [case["prompt"] for case in cases])
    assert [[row] for row in found] == [case["tokens"] for case in cases]


@pytest.mark.parametrize(("name", "cases"), grouped("contrastive"), ids=lambda case: str(case)[:60])
def test_contrastive_tokens_are_the_same(name: str, cases: list[Any]) -> None:
    check_contrastive(cases, xla=False)


def test_contrastive_tokens_are_the_same_under_xla() -> None:
    (cases,) = (cases for name, cases in grouped("contrastive") if "no_repeat" in name)
    check_contrastive(cases, xla=True)


def check_contrastive(cases: list[Any], *, xla: bool) -> None:
    """Compares all cases, which have the same settings; they are decoded in one batch."""
    settings = cases[0]["settings"]
    found = columns(contrastive(settings, xla=xla), [case["prompt"] for case in cases])
    assert [[row] for row in found] == [case["tokens"] for case in cases]


def contrastive(settings: dict[str, Any], *, xla: bool) -> Any:
    from gpt2cli.inference.contrastive_search import ContrastiveDecoder

    alpha = settings["penalty_alpha"]
    return ContrastiveDecoder(ARRAYS, models.SMALL, sampling(settings), alpha, xla=xla)


@cache
def beam_decoder(count: int, penalty: float, early: bool, filters: str, *, xla: bool) -> Any:
    from gpt2cli.inference.beam_search import BeamDecoder, Beams

    beams = Beams(count, length_penalty=penalty, early_stopping=early)
    return BeamDecoder(ARRAYS, models.SMALL, sampling(json.loads(filters)), beams, xla=xla)


@pytest.mark.parametrize(("name", "cases"), grouped("beams"), ids=lambda case: str(case)[:60])
def test_beams_are_the_same_with_the_same_scores(name: str, cases: list[Any]) -> None:
    check_beams(cases, xla=False)


def test_beams_are_the_same_under_xla() -> None:
    (cases,) = (cases for name, cases in grouped("beams") if "no_repeat" in name)
    check_beams(cases, xla=True)


def ends_with(end: int | None, tokens: list[int]) -> bool:
    return tokens[-1] == end


def check_beams(cases: list[Any], *, xla: bool) -> None:
    """Compares all cases, which have the same settings; they are decoded in one batch."""
    from gpt2cli.inference.beam_search import Group

    settings = cases[0]["settings"]
    penalty, early = settings.get("length_penalty", 1.0), settings.get("early_stopping", False)
    filters = json.dumps({k: v for k, v in settings.items() if k in FILTERS})
    decoder = beam_decoder(settings["num_beams"], penalty, early, filters, xla=xla)
    groups = [Group(decoder.beams, LENGTH, partial(ends_with, case["end"])) for case in cases]
    prompts = [case["prompt"] for case in cases]
    for _ in decoder.search(prompts, [iter(())] * len(cases), groups, LENGTH):
        pass
    for group, case in zip(groups, cases, strict=True):
        best = group.best(settings["num_return_sequences"])
        assert [beam.tokens for beam in best] == case["tokens"]
        assert [beam.score for beam in best] == pytest.approx(case["scores"], rel=1e-4, abs=1e-5)


def test_the_stored_results_end_at_different_lengths() -> None:
    lengths = {len(tokens) for case in STORED["beams"] for tokens in case["tokens"]}
    assert len(lengths) >= 5
