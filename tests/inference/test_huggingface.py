"""Greedy, beam and contrastive decoding against what Hugging Face's `generate` made of the same.

The results were stored by huggingface_results.py.
"""

from __future__ import annotations

import itertools
import json
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from gpt2cli.inference import decode
from gpt2cli.inference.beam_search import BeamParams, Group, search
from gpt2cli.inference.contrastive_search import ContrastParams, contrastive_tokens
from gpt2cli.inference.engine import Engine
from gpt2cli.inference.sampling import SamplingParams
from tests.inference.engines import KINDS, columns, engine_of

STORED = json.loads(Path(__file__).with_name("huggingface_results.json").read_text())
FILTERS = ("repetition_penalty", "no_repeat_ngram_size", "top_k")
LENGTH = 20


def grouped(kind: str) -> list[tuple[str, list[Any]]]:
    """Returns the stored cases, those of the same settings together, for one decoder each."""
    by_settings: dict[str, list[Any]] = {}
    for case in STORED[kind]:
        name = str(case["settings"])
        # All rows of a batch have the same ends, if they come late.
        name += f" {case['end']}" if "min_new_tokens" in name else ""
        by_settings.setdefault(name, []).append(case)
    return list(by_settings.items())


@cache
def engine(kind: str, *, xla: bool = False) -> Engine:
    return engine_of(kind, xla=xla)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "tensorflow":
        request.getfixturevalue("tensorflow")
    return str(request.param)


def params_of(case: dict[str, Any]) -> SamplingParams:
    kept = {name: value for name, value in case["settings"].items() if name in FILTERS}
    least = case["settings"].get("min_new_tokens", 0)
    ends = (case["end"],) if least and case["end"] is not None else ()
    return SamplingParams(temperature=0, min_length=least, ends=ends, **kept)


@pytest.mark.parametrize(("name", "cases"), grouped("greedy"), ids=lambda case: str(case)[:60])
def test_greedy_tokens_are_the_same(kind: str, name: str, cases: list[Any]) -> None:
    params, prompts = params_of(cases[0]), [case["prompt"] for case in cases]
    streams = [itertools.repeat(0.5)] * len(prompts)
    found = columns(decode.tokens(engine(kind), params, prompts, streams, LENGTH))
    check_rows(found, cases)


@pytest.mark.parametrize(("name", "cases"), grouped("contrastive"), ids=lambda case: str(case)[:60])
def test_contrastive_tokens_are_the_same(kind: str, name: str, cases: list[Any]) -> None:
    check_contrastive(engine(kind), cases)


@pytest.mark.usefixtures("tensorflow")
def test_contrastive_tokens_are_the_same_under_xla() -> None:
    (cases,) = (cases for name, cases in grouped("contrastive") if "no_repeat" in name)
    check_contrastive(engine("tensorflow", xla=True), cases)


def check_contrastive(engine: Engine, cases: list[Any]) -> None:
    """Compares all cases, which have the same settings; they are decoded in one batch."""
    settings = cases[0]["settings"]
    steps = contrastive_tokens(
        engine,
        params_of(cases[0]),
        ContrastParams(settings["penalty_alpha"]),
        prompts=[case["prompt"] for case in cases],
        length=LENGTH,
    )
    check_rows(columns(steps), cases)


def check_rows(found: list[list[int]], cases: list[Any]) -> None:
    for row, case in zip(found, cases, strict=True):
        end = case["end"]
        assert [row[: row.index(end) + 1] if end in row else row] == case["tokens"]


@pytest.mark.parametrize(("name", "cases"), grouped("beams"), ids=lambda case: str(case)[:60])
def test_beams_are_the_same_with_the_same_scores(kind: str, name: str, cases: list[Any]) -> None:
    check_beams(engine(kind), cases)


@pytest.mark.usefixtures("tensorflow")
def test_beams_are_the_same_under_xla() -> None:
    (cases,) = (cases for name, cases in grouped("beams") if "no_repeat" in name)
    check_beams(engine("tensorflow", xla=True), cases)


def ends_with(end: int | None, tokens: list[int]) -> bool:
    return tokens[-1] == end


def check_beams(engine: Engine, cases: list[Any]) -> None:
    """Compares all cases, which have the same settings; they are decoded in one batch."""
    settings = cases[0]["settings"]
    beams = BeamParams(
        count=settings["num_beams"],
        length_penalty=settings.get("length_penalty", 1.0),
        early_stopping=settings.get("early_stopping", False),
    )
    groups = [Group(beams, LENGTH, partial(ends_with, case["end"])) for case in cases]
    prompts, streams = [case["prompt"] for case in cases], [iter(())] * len(cases)
    params = params_of(cases[0])
    for _ in search(engine, params, prompts=prompts, streams=streams, groups=groups):
        pass
    for group, case in zip(groups, cases, strict=True):
        best = group.best(settings["num_return_sequences"])
        assert [beam.tokens for beam in best] == case["tokens"]
        assert [beam.score for beam in best] == pytest.approx(case["scores"], rel=1e-4, abs=1e-5)


def test_the_stored_results_end_at_different_lengths() -> None:
    lengths = {len(tokens) for case in STORED["beams"] for tokens in case["tokens"]}
    assert len(lengths) >= 5
