"""Cached decoding against uncached, on each engine: the oracle computes every token anew."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from gpt2cli.inference import decode
from gpt2cli.inference.engine import Engine
from tests import models, oracle
from tests.inference.engines import ARRAYS, HEADS, KINDS, N_CTX, SMALL, engine_of, grown, slid

PROMPT = [7, 100, 3, 42, 250]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "tensorflow":
        request.getfixturevalue("tensorflow")
    return str(request.param)


@pytest.fixture
def engine(kind: str) -> Engine:
    return engine_of(kind)


def test_cached_decoding_equals_uncached(engine: Engine) -> None:
    found = grown(engine, [PROMPT], 20, temperature=0)
    assert found == [oracle.greedy(ARRAYS, HEADS, PROMPT, 20)]
    assert len(set(found[0])) >= 5  # a model that repeats itself would prove little


@pytest.mark.usefixtures("tensorflow")
def test_cached_decoding_compiled_by_xla_equals_uncached() -> None:
    found = grown(engine_of("tensorflow", xla=True), [PROMPT], 20, temperature=0)
    assert found == [oracle.greedy(ARRAYS, HEADS, PROMPT, 20)]


def test_logits_equal_the_oracles_whole_and_token_by_token(engine: Engine) -> None:
    tokens = list(range(3, 3 + N_CTX))
    expected = oracle.logits(ARRAYS, HEADS, tokens)
    engine.make_room(1, 1, N_CTX - 1)
    near = partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-4)
    found = [engine.logits(engine.prefill([tokens[:1]]))]
    found += [engine.logits(engine.step([token])) for token in tokens[1:]]
    near(np.concatenate(found), expected)
    engine.make_room(1, N_CTX, 0)
    near(engine.logits(engine.prefill([tokens]))[0], expected[-1])
    # A row that begins anew sees nothing of the one before.
    near(engine.logits(engine.prefill([tokens[:4]]))[0], expected[3])


def test_hidden_states_are_those_of_every_token(engine: Engine) -> None:
    rows = [PROMPT, [9, 8, 7]]
    engine.make_room(4, 5, 2)
    states = engine.hidden_states(rows)
    assert [len(row) for row in states] == [5, 3]
    for row, hidden in zip(rows, states, strict=True):
        expected = oracle.logits(ARRAYS, HEADS, row)
        np.testing.assert_allclose(engine.logits(hidden), expected, rtol=2e-4, atol=2e-4)
    # Each row filled two of the cache, and goes on from either.
    found = engine.logits(engine.step([11, 12, 11, 12], [0, 0, 3, 2]))
    for hidden, row in zip(
        found, ([*rows[0], 11], [*rows[0], 12], [*rows[1], 11], [*rows[1], 12]), strict=True
    ):
        expected = oracle.logits(ARRAYS, HEADS, row)[-1]
        np.testing.assert_allclose(hidden, expected, rtol=2e-4, atol=2e-4)


def test_rows_go_on_from_their_parents(engine: Engine) -> None:
    rows = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    engine.make_room(3, 3, 8)
    engine.prefill(rows)
    for step, parents in enumerate([None, [1, 1, 0], [2, 0, 0], [0, 1, 2], [1, 2, 2]]):
        rows = [[*rows[parent], 20 + step + n] for n, parent in enumerate(parents or range(3))]
        found = engine.logits(engine.step([row[-1] for row in rows], parents))
        for logits, row in zip(found, rows, strict=True):
            expected = oracle.logits(ARRAYS, HEADS, row)[-1]
            np.testing.assert_allclose(logits, expected, rtol=2e-4, atol=2e-4)


def test_prompts_of_different_lengths_share_a_batch(engine: Engine) -> None:
    prompts = [[5], [9, 8, 7], list(range(30, 50)), list(range(100, 116)), [9, 8, 7]]
    expected = [oracle.greedy(ARRAYS, HEADS, prompt, 10) for prompt in prompts]
    assert grown(engine, prompts, 10, temperature=0) == expected


def test_a_full_window_goes_on_from_its_newer_half(engine: Engine) -> None:
    for prompt in ([1, 2, 3], list(range(N_CTX))):
        assert grown(engine, [prompt], 60, temperature=0) == [slid(prompt, 60)]


def test_rows_slide_each_in_its_own_time(engine: Engine) -> None:
    prompts = [[1, 2, 3], list(range(N_CTX)), list(range(25))]
    found = grown(engine, prompts, 60, temperature=0)
    assert found == [slid(prompt, 60) for prompt in prompts]


def test_a_sample_is_the_same_in_any_batch(engine: Engine) -> None:
    prompts = [[1, 2, 3]] * 3
    together = grown(engine, prompts, 40, seed=9, temperature=1.5)
    assert grown(engine, prompts[:1], 40, seed=9, temperature=1.5) == together[:1]
    assert together[0] != together[1]
    assert grown(engine, prompts, 40, seed=10, temperature=1.5) != together


@pytest.mark.usefixtures("tensorflow")
@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 0.9},
        {"temperature": 1.2, "top_k": 20, "top_p": 0.9},
        {"temperature": 0.0, "no_repeat_ngram_size": 2},
        {"min_p": 0.05, "repetition_penalty": 1.3},
        {"typical_p": 0.8, "no_repeat_ngram_size": 3},
    ],
    ids=str,
)
def test_both_engines_write_the_same(params: dict[str, Any]) -> None:
    cpu, tensorflow = map(engine_of, KINDS)
    prompts = [[9, 8, 7]] * 2
    expected = grown(tensorflow, prompts, 50, seed=4, **params)
    assert grown(cpu, prompts, 50, seed=4, **params) == expected
    assert grown(cpu, prompts[:1], 50, seed=4, **params) == expected[:1]


def test_random_numbers_never_change() -> None:
    numbers = decode.random_stream(1, 2, 3)
    assert [round(next(numbers), 6) for _ in range(3)] == [0.744745, 0.356413, 0.636608]
    many = np.array([next(numbers) for _ in range(10_000)])
    assert many.min() >= 0
    assert many.max() < 1
    assert many.mean() == pytest.approx(0.5, abs=0.01)


def test_a_batch_of_another_size_gets_a_cache_of_its_own(engine: Engine) -> None:
    for prompts in ([[1, 2]], [[1, 2], [3]], [[4] * 20]):
        expected = [oracle.greedy(ARRAYS, HEADS, prompt, 5) for prompt in prompts]
        assert grown(engine, prompts, 5, temperature=0) == expected


def test_batches_of_one_shape_have_one_cache(engine: Engine) -> None:
    caches = []
    for seed in range(3):
        grown(engine, [[1, 2, 3], [4]], 5, seed=seed)
        caches.append(getattr(engine, "_room", None) or engine._cache)  # type: ignore[attr-defined]
    assert caches[0] is caches[1] is caches[2]


def test_tensorflow_traces_a_step_once_for_each_number_of_rows_that_take_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from gpt2cli.inference.tensorflow_engine import TensorFlowEngine

    traced: list[int] = []
    graph = TensorFlowEngine._step_graph

    def watched(self: Any, tokens: Any, *given: Any, **cache: Any) -> Any:
        traced.append(tokens.shape[0])
        return graph(self, tokens, *given, **cache)

    monkeypatch.setattr(TensorFlowEngine, "_step_graph", watched)
    engine = engine_of("tensorflow", ARRAYS)
    for prompts in ([[1, 2]], [[1, 2], [3]], [[4]], [[5], [6]]):
        grown(engine, prompts, 5)
    assert traced == [1, 2]


def test_a_model_that_has_diverged_writes_something_without_a_warning(kind: str) -> None:
    for factor in (np.float32("nan"), np.float32(1e38)):
        broken = {name: array * factor for name, array in ARRAYS.items()}
        for found in grown(engine_of(kind, broken), [[1], [1, 2]], 4):
            assert len(found) == 4
            assert all(0 <= token < models.SMALL.n_vocab for token in found)


@pytest.mark.parametrize("n_ctx", [8, 64, 100, 1024, 2048])
@pytest.mark.usefixtures("tensorflow")
def test_prompt_sizes_cover_the_window(n_ctx: int) -> None:
    from gpt2cli.inference.tensorflow_cache import prompt_size, prompt_sizes, widest_padding

    for length in range(1, n_ctx + 1):
        assert length <= prompt_size(length, n_ctx) <= n_ctx
        assert prompt_size(length, n_ctx) - length < widest_padding(n_ctx)
    assert prompt_sizes(n_ctx)[-1] == n_ctx


@pytest.mark.usefixtures("tensorflow")
@pytest.mark.parametrize("xla", [False, True])
def test_tokens_taken_in_at_once_have_the_scores_that_they_have_one_by_one(xla: bool) -> None:
    from gpt2cli.inference.tensorflow_engine import TensorFlowEngine

    engine = TensorFlowEngine(ARRAYS, SMALL, xla=xla)
    engine.make_room(1, 3, N_CTX)
    engine.prefill([[1, 2, 3]])
    tokens = [1, 2, 3]
    for new, dropped in (([9, 8], 1), ([7], 0), ([6, 5, 4, 3, 2], 3), (list(range(20, 37)), 2)):
        found = engine.logits(engine.extend([new]))
        expected = oracle.logits(ARRAYS, HEADS, [*tokens, *new])[len(tokens) :]
        np.testing.assert_allclose(found[: len(new)], expected, rtol=2e-4, atol=2e-4)
        engine.drop([dropped])
        tokens += new[: len(new) - dropped]
    # The last places of the cache leave no room for padding.
    rest = list(range(N_CTX - len(tokens)))
    found = engine.logits(engine.extend([rest]))
    expected = oracle.logits(ARRAYS, HEADS, [*tokens, *rest])[len(tokens) :]
    np.testing.assert_allclose(found[: len(rest)], expected, rtol=2e-4, atol=2e-4)
