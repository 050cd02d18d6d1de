"""The filters of tensorflow_sampling.py in NumPy for one row: what one text on a CPU needs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from gpt2cli.inference.sampling import Choices

Logits = np.ndarray[Any, np.dtype[np.float32]]

REMOVED = np.float32("-inf")
# This number of the likeliest tokens is sorted first; all of them only where these do not suffice.
FEW = 1024
# This number of shares is added up before any of them is looked at.
SUMMED = 256


class RowSampling(Choices):
    """How the next token of one row is chosen."""

    filters: ClassVar[Any] = sys.modules[__name__]

    def choose_all(
        self, logits: Logits, uniforms: Sequence[float], histories: Sequence[Sequence[int]]
    ) -> tuple[list[int], list[float]]:
        """Returns each row's next token, and its log-probability; logits are (rows, vocab)."""
        chosen = list(map(self.choose, logits, uniforms, histories))
        return [token for token, _ in chosen], [nats for _, nats in chosen]

    @np.errstate(all="ignore")
    def choose(self, logits: Logits, uniform: float, history: Sequence[int]) -> tuple[int, float]:
        """Returns the next token, and its log-probability as the model sees it.

        Args:
            logits: float32 (vocab,).
            uniform: a random number from 0 up to 1.
            history: the tokens before.

        Returns:
            The token, and nats: those of the logits, without filters.
        """
        if self.temperature == 0:
            chosen = int(self.without_repeats(logits, history).argmax())
        else:
            chosen = draw(softmax(self.filtered(logits, history)), uniform)
        return chosen, log_probability(logits, chosen)


def softmax(logits: Logits) -> Logits:
    """Returns the probabilities of logits (vocab,)."""
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())


def log_softmax(logits: Logits) -> Logits:
    """Returns the log-probabilities of logits (vocab,), in nats."""
    centred = logits - logits.max()
    return np.asarray(centred - np.log(np.exp(centred).sum()))


def log_probability(logits: Logits, token: int) -> float:
    """Returns the log-probability of one token under logits (vocab,), in nats."""
    most = logits.max()
    return float(logits[token] - most - np.log(np.exp(logits - most).sum()))


def penalise(logits: Logits, history: Sequence[int], penalty: float) -> Logits:
    """(vocab,) → the same; tokens of the history are less likely, the rest as before."""
    lower, seen = logits.copy(), np.unique(np.asarray(history, np.int64))
    lower[seen] = np.where(lower[seen] < 0, lower[seen] * penalty, lower[seen] / penalty)
    return lower


def remove_repeats(logits: Logits, history: Sequence[int], size: int) -> Logits:
    """(vocab,) → the same; tokens that would end a run of `size` seen before are removed.

    If none would be left, all are.
    """
    if len(history) < size:
        return logits
    runs = np.lib.stride_tricks.sliding_window_view(np.asarray(history), size)  # (starts, size)
    newest = np.asarray(history[len(history) - size + 1 :])  # (size - 1,)
    left = logits.copy()
    left[runs[(runs[:, :-1] == newest).all(axis=1), -1]] = REMOVED
    return left if (left > REMOVED).any() else logits


def keep_top_k(logits: Logits, k: int) -> Logits:
    """(vocab,) → the same; all but the k highest are removed."""
    return np.where(logits >= np.partition(logits, -k)[-k], logits, REMOVED)


def keep_top_p(logits: Logits, p: float) -> Logits:
    """(vocab,) → the same; the fewest likeliest tokens that reach p are left, and at least one."""
    return np.where(reaching(logits, softmax(logits), p), logits, REMOVED)


def keep_min_p(logits: Logits, p: float) -> Logits:
    """(vocab,) → the same; what has less than p of the likeliest's share is removed."""
    shares = softmax(logits)
    return np.where(shares >= p * shares.max(), logits, REMOVED)


def keep_typical_p(logits: Logits, p: float) -> Logits:
    """(vocab,) → the same; the tokens nearest to the expected surprise that reach p are left."""
    shares, surprise = softmax(logits), -log_softmax(logits)
    expected = (shares[shares > 0] * surprise[shares > 0]).sum()
    return np.where(reaching(-np.abs(surprise - expected), shares, p), logits, REMOVED)


def reaching(ranks: Logits, shares: Logits, p: float) -> Any:
    """Returns which are the fewest of highest rank whose shares together reach p; bool (vocab,).

    Args:
        ranks: float32 (vocab,).
        shares: float32 (vocab,), not negative.
        p: above 0, and no more than their sum.
    """
    for count in (min(FEW, ranks.size), ranks.size):
        best = np.argpartition(ranks, -count)[-count:]
        order = best[np.argsort(-ranks[best])]  # (count,)
        sums = np.cumsum(shares[order], dtype=np.float64)
        if sums[-1] >= p:
            return ranks >= ranks[order[np.searchsorted(sums, p)]]
    return np.ones(ranks.shape, bool)


def draw(shares: Logits, uniform: float) -> int:
    """Returns the token in whose stretch of the cumulative sum of shares (vocab,) a number falls.

    Its share is not 0. The sum is known after every SUMMED shares first, then between two of them.
    """
    starts = np.arange(0, shares.size, SUMMED)
    ends = np.cumsum(np.add.reduceat(shares, starts, dtype=np.float64))
    aim = uniform * ends[-1]
    place = first_beyond(ends, aim)
    some = shares[starts[place] : starts[place] + SUMMED]
    before = ends[place - 1] if place else 0.0
    return int(starts[place]) + first_beyond(np.cumsum(some, dtype=np.float64), aim - before)


def first_beyond(ends: Any, aim: float) -> int:
    """Returns which of cumulative sums is the first beyond an aim.

    Rounding may leave the aim beyond all: then it is the first that is as high as the last.
    """
    last = np.searchsorted(ends, ends[-1])
    return int(min(np.searchsorted(ends, aim, side="right"), last))
