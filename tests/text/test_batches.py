"""Windows: pure, without replacement, and the targets are the tokens that follow."""

from __future__ import annotations

import numpy as np
import pytest

from gpt2cli.errors import BadDataError
from gpt2cli.text import batches

TOKENS = np.arange(1003, dtype=np.uint16)


def test_a_window_has_its_tokens_and_the_one_that_follows() -> None:
    drawn = batches.windows(TOKENS, seed=3, first=0, count=50, window=10)
    assert drawn.shape == (50, 11)
    assert drawn.dtype == np.int32
    assert np.all((drawn[:, 1:] - drawn[:, :-1]) % 1003 == 1)


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_no_token_is_predicted_twice_in_an_epoch(epoch: int) -> None:
    drawn = batches.windows(TOKENS, seed=3, first=100 * epoch, count=100, window=10)
    targets = drawn[:, 1:].ravel()
    assert len(set(targets.tolist())) == 1000


def test_windows_depend_on_seed_and_number_alone() -> None:
    whole = batches.windows(TOKENS, seed=5, first=0, count=250, window=10)
    for first, count in ((0, 3), (98, 5), (249, 1)):
        part = batches.windows(TOKENS, seed=5, first=first, count=count, window=10)
        assert part.tolist() == whole[first : first + count].tolist()


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    starts = [
        tuple(batches.windows(TOKENS, seed, 100 * epoch, 100, 10)[:, 0].tolist())
        for seed in (1, 2)
        for epoch in (0, 1)
    ]
    assert len(set(starts)) == 4


def test_the_order_of_a_seed_never_changes() -> None:
    # A run that is continued with a later NumPy must see the windows that it would have seen.
    drawn = batches.windows(TOKENS, seed=7, first=0, count=6, window=100)
    assert drawn[:, 0].tolist() == [841, 441, 141, 641, 341, 241]


def test_a_text_of_one_token_is_refused_with_figures() -> None:
    with pytest.raises(BadDataError, match=r"poem\.txt: 1 tokens found, and at least 2 are needed"):
        batches.check_length(TOKENS[:1], "poem.txt")
    batches.check_length(TOKENS[:2], "poem.txt")


@pytest.mark.parametrize("length", [2, 9, 10])
def test_a_text_that_fills_no_window_is_its_only_one_and_padded(length: int) -> None:
    drawn = batches.windows(TOKENS[:length], seed=3, first=7, count=3, window=10)
    row = [*range(length), *[batches.PADDING] * (11 - length)]
    assert drawn.tolist() == [row] * 3
    assert drawn.dtype == np.int32
    assert batches.spread(TOKENS[:length], count=5, window=10).tolist() == [row]


def test_a_text_of_a_window_and_a_token_is_not_padded() -> None:
    drawn = batches.windows(TOKENS[:11], seed=3, first=0, count=4, window=10)
    assert np.all(drawn >= 0)
    assert batches.spread(TOKENS[:11], count=5, window=10).tolist() == [list(range(11))]


@pytest.mark.parametrize(("length", "count"), [(1003, 100), (19, 1), (20, 2), (10, 1), (3, 1)])
def test_an_epoch_has_as_many_windows_as_fit_and_at_least_one(length: int, count: int) -> None:
    assert batches.per_epoch(length, 10) == count


def test_validation_windows_are_spread_and_do_not_overlap() -> None:
    drawn = batches.spread(TOKENS, count=5, window=10)
    assert drawn[:, 0].tolist() == [0, 250, 500, 740, 990]
    assert batches.spread(TOKENS[:35], count=50, window=10)[:, 0].tolist() == [0, 10, 20]
