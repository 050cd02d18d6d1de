"""What is particular to the CPU's engine: bits that no neighbour changes, and blocks of queries."""

from __future__ import annotations

import numpy as np
import pytest

from gpt2cli.arrays import Array
from gpt2cli.inference.cpu.engine import CPUEngine
from tests import models
from tests.inference.engines import ARRAYS, N_CTX


def new_engine() -> CPUEngine:
    return CPUEngine(ARRAYS.items(), models.SMALL)


def logits_after(engine: CPUEngine, tokens: list[int]) -> Array:
    """Returns the scores of what follows tokens, taken in at once but for the last."""
    engine.make_room(1, len(tokens), 0)
    return np.asarray(engine.logits(engine.prefill([tokens])))


def test_a_row_has_the_same_scores_to_the_bit_by_itself_and_beside_others() -> None:
    rows = [[7, 100, 3, 42, 250], [5], [9, 8, 7]]
    together, single = new_engine(), [new_engine() for _ in rows]
    together.make_room(len(rows), 5, 8)
    together.prefill(rows)
    for engine, row in zip(single, rows, strict=True):
        engine.make_room(1, 5, 8)
        engine.prefill([row])
    for tokens in ([250, 5, 7], [17, 3, 40], [1, 1, 2]):
        scores = together.logits(together.step(tokens))
        found = [e.logits(e.step([t]))[0] for e, t in zip(single, tokens, strict=True)]
        np.testing.assert_array_equal(scores, found)


def test_rows_that_go_on_from_others_have_the_bits_of_rows_of_their_own() -> None:
    shared, own = new_engine(), new_engine()
    for engine in (shared, own):
        engine.make_room(3, 4, 8)
    shared.prefill([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    shared.step([30, 31, 32])
    moved = shared.step([40, 41, 42], [2, 0, 0])
    own.prefill([[7, 8, 9], [1, 2, 3], [1, 2, 3]])
    own.step([32, 30, 30])
    np.testing.assert_array_equal(moved, own.step([40, 41, 42]))


def test_what_the_cache_holds_is_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, filled = new_engine(), []
    fill = engine._fill

    def watched(number: int, tokens: list[int], *, whole: bool) -> Array:
        filled.append(number)
        return fill(number, tokens, whole=whole)

    monkeypatch.setattr(engine, "_fill", watched)
    engine.make_room(3, 4, 4)
    engine.prefill([[1, 2, 3], [1, 2, 9], [4, 5]])
    assert filled == [0, 2]
    engine.prefill([[1, 2, 3, 8], [6, 5, 4], [4, 5, 6]])
    assert filled == [0, 2, 1]


def test_queries_in_blocks_see_what_they_see_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, tokens = new_engine(), list(range(5, 5 + N_CTX))
    whole = logits_after(engine, tokens)
    monkeypatch.setattr("gpt2cli.inference.cpu.ops.QUERY_BLOCK", 5)
    for long_prompt in (4, 10_000):
        monkeypatch.setattr("gpt2cli.inference.cpu.ops.LONG_PROMPT", long_prompt)
        for few_rows in (1, 128):
            monkeypatch.setattr("gpt2cli.inference.cpu.ops.FEW_ROWS", few_rows)
            found = logits_after(engine, tokens)
            np.testing.assert_allclose(found, whole, rtol=1e-4, atol=1e-4)


def test_an_engine_that_memory_ran_out_for_makes_its_cache_anew() -> None:
    engine, tokens = new_engine(), [7, 100, 3, 42]
    expected = logits_after(new_engine(), tokens)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpt2cli.inference.cpu.ops.new_cache", lambda _: np.empty(1 << 50))
        with pytest.raises(MemoryError):
            engine.make_room(1, len(tokens), 0)
    np.testing.assert_array_equal(logits_after(engine, tokens), expected)
