"""The filters in NumPy, for one row of logits; and what rows of them choose."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpt2cli.arrays import Array, Logits
from gpt2cli.inference.engine import BeamStep, Candidates, Chosen, History
from gpt2cli.inference.sampling import Filters, SamplingParams

REMOVED = np.float32("-inf")
# This many of the likeliest tokens are sorted first; all of them only if these do not suffice.
FEW = 1024
# This many probabilities are added up before any of them is looked at.
SUMMED = 256


@np.errstate(all="ignore")
def choose(
    params: SamplingParams, logits: Logits, uniforms: Sequence[float], history: History
) -> Chosen:
    """Returns each row's next token, and its log-probability as the model sees it.

    Logits are float32 (rows, vocab); each row has a random number from 0 up to 1.
    """
    rows = [(row, history.row(number)) for number, row in enumerate(logits)]
    if params.temperature == 0:
        tokens = [int(FILTERS.allowed(*row, params).argmax()) for row in rows]
    elif len(rows) == 1:
        # The first command need not wait until the loops for many are compiled.
        tokens = [draw(softmax(FILTERS.filtered(*rows[0], params)), uniforms[0])]
    else:
        tokens = draw_rows(np.stack([FILTERS.filtered(*row, params) for row in rows]), uniforms)
    return Chosen(tokens, nats_of(logits, tokens))


def draw_rows(filtered: Logits, uniforms: Sequence[float]) -> list[int]:
    """Returns a token drawn from each row of logits, (rows, vocab), which are overwritten."""
    from gpt2cli.inference.cpu import sampling_kernels

    tokens = np.empty(len(filtered), np.int64)
    sampling_kernels.draw_all(filtered, np.asarray(uniforms, np.float64), tokens)
    return [int(token) for token in tokens]


def nats_of(logits: Logits, tokens: Sequence[int]) -> list[float]:
    """Returns the log-probability of each row's token under logits (rows, vocab), in nats."""
    if len(tokens) == 1:
        return [log_probability(logits[0], tokens[0])]
    from gpt2cli.inference.cpu import sampling_kernels

    nats = np.empty(len(tokens))
    sampling_kernels.take_nats(logits, np.asarray(tokens, np.int64), nats)
    return [float(value) for value in nats]


@np.errstate(all="ignore")
def likeliest(params: SamplingParams, count: int, logits: Logits, history: History) -> Candidates:
    """Returns each row's likeliest tokens of those allowed, from logits (rows, vocab)."""
    found = []
    for number, row in enumerate(logits):
        left = softmax(FILTERS.allowed(row, history.row(number), params))
        tokens = highest(left, count)
        found.append((tokens, left[tokens], log_softmax(row)[tokens]))
    return as_candidates(found)


@np.errstate(all="ignore")
def beam_candidates(params: SamplingParams, logits: Logits, step: BeamStep) -> Candidates:
    """Returns the best continuations of each prompt's beams, from logits (beams, vocab)."""
    look = FILTERS.filtered if step.uniforms.size else FILTERS.allowed
    own = np.stack([log_softmax(row) for row in logits])  # (prompts * beams, vocab)
    sums = np.stack([look(row, step.history.row(n), params) for n, row in enumerate(own)])
    sums += step.totals.reshape(-1, 1)
    found = []
    by_prompt = [array.reshape(len(step.totals), -1) for array in (sums, own)]
    # (beams * vocab,), (beams * vocab,), (count,)
    for scores, nats, uniforms in zip(*by_prompt, step.uniforms, strict=True):
        if uniforms.size:
            best, places = draw_several(scores, uniforms)
        else:
            places = highest(scores, min(step.count, scores.size))
            best = scores[places]
        found.append((places, best, nats[places]))
    return as_candidates(found)


def draw_several(scores: Logits, uniforms: Array) -> tuple[Array, Array]:
    """Draws columns of scores (columns,), log-probabilities but for a sum, none of them twice.

    Returns the scores of the drawn, best first, -inf if nothing was left to draw; and their
    columns, as many as there are random numbers from 0 up to 1.
    """
    probabilities = softmax(scores)
    places, best = [], []
    for uniform in uniforms:
        places.append(draw(probabilities, float(uniform)))
        best.append(scores[places[-1]] if probabilities[places[-1]] > 0 else REMOVED)
        probabilities[places[-1]] = 0
    order = np.argsort(-np.array(best), kind="stable")
    return np.array(best)[order], np.array(places)[order]


def highest(scores: Array, count: int) -> Array:
    """Returns the places of the highest scores (columns,), best first, the first of equals."""
    best = np.sort(np.argpartition(-scores, count - 1)[:count])
    return best[np.argsort(-scores[best], kind="stable")]


def as_candidates(rows: Sequence[tuple[Array, Array, Array]]) -> Candidates:
    """Returns rows of tokens, scores and log-probabilities as candidates."""
    tokens, scores, log_probabilities = (np.stack(parts) for parts in zip(*rows, strict=True))
    return Candidates(tokens=tokens, scores=scores, log_probabilities=log_probabilities)


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


def remove(logits: Logits, tokens: Sequence[int] | Array) -> Logits:
    """(vocab,) → the same without some tokens; if none would be left, all are."""
    left = logits.copy()
    left[np.asarray(tokens, np.int64)] = REMOVED
    return left if (left > REMOVED).any() else logits


def penalise(logits: Logits, history: Array, penalty: float) -> Logits:
    """(vocab,) → the same; tokens of the history are less likely, the rest as before."""
    lower, seen = logits.copy(), np.unique(history)
    lower[seen] = np.where(lower[seen] < 0, lower[seen] * penalty, lower[seen] / penalty)
    return lower


def remove_repeats(logits: Logits, history: Array, size: int) -> Logits:
    """(vocab,) → the same without the tokens that would end a run of `size` seen before."""
    if len(history) < size:
        return logits
    runs = np.lib.stride_tricks.sliding_window_view(history, size)  # (starts, size)
    newest = history[len(history) - size + 1 :]  # (size - 1,)
    return remove(logits, runs[(runs[:, :-1] == newest).all(axis=1), -1])


def keep_top_k(logits: Logits, k: int) -> Logits:
    """(vocab,) → the same; all but the k highest are removed."""
    return np.where(logits >= np.partition(logits, -k)[-k], logits, REMOVED)


def keep_top_p(logits: Logits, p: float) -> Logits:
    """(vocab,) → the same; the fewest likeliest tokens that reach p are left, and at least one."""
    return np.where(nucleus_mask(logits, softmax(logits), p), logits, REMOVED)


def keep_min_p(logits: Logits, p: float) -> Logits:
    """(vocab,) → the same; what has less than p of the likeliest's probability is removed."""
    probabilities = softmax(logits)
    return np.where(probabilities >= p * probabilities.max(), logits, REMOVED)


def keep_typical_p(logits: Logits, p: float) -> Logits:
    """(vocab,) → the same; leaves the tokens nearest to the expected surprise that reach p."""
    probabilities, surprise = softmax(logits), -log_softmax(logits)
    expected = (probabilities[probabilities > 0] * surprise[probabilities > 0]).sum()
    return np.where(nucleus_mask(-np.abs(surprise - expected), probabilities, p), logits, REMOVED)


def nucleus_mask(ranks: Logits, probabilities: Logits, p: float) -> Array:
    """Returns which tokens are the fewest of highest rank that together reach p; bool (vocab,).

    Probabilities (vocab,) are not negative; p is above 0, and no more than their sum.
    """
    for count in (min(FEW, ranks.size), ranks.size):
        best = np.argpartition(ranks, -count)[-count:]
        order = best[np.argsort(-ranks[best])]  # (count,)
        sums = np.cumsum(probabilities[order], dtype=np.float64)
        if sums[-1] >= p:
            return np.asarray(ranks >= ranks[order[np.searchsorted(sums, p)]])
    return np.ones(ranks.shape, bool)


def draw(probabilities: Logits, uniform: float) -> int:
    """Returns the token in whose stretch of the sum of probabilities (vocab,) a number falls.

    Its own is not 0. The sum is known after every `SUMMED` of them first, then in between.
    """
    starts = np.arange(0, probabilities.size, SUMMED)
    ends = np.cumsum(np.add.reduceat(probabilities, starts, dtype=np.float64))
    aim = uniform * ends[-1]
    place = first_beyond(ends, aim)
    some = probabilities[starts[place] : starts[place] + SUMMED]
    before = ends[place - 1] if place else 0.0
    return int(starts[place]) + first_beyond(np.cumsum(some, dtype=np.float64), aim - before)


def first_beyond(ends: Array, aim: float) -> int:
    """Returns which of cumulative sums is the first beyond an aim.

    Rounding may leave the aim beyond all: then it is the first that is as high as the last.
    """
    last = np.searchsorted(ends, ends[-1])
    return int(min(np.searchsorted(ends, aim, side="right"), last))


FILTERS: Filters[Array] = Filters(
    remove=remove,
    penalise=penalise,
    remove_repeats=remove_repeats,
    keep_top_k=keep_top_k,
    keep_top_p=keep_top_p,
    keep_min_p=keep_min_p,
    keep_typical_p=keep_typical_p,
)
