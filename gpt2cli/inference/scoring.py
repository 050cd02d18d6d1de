"""What a model makes of a text: each token's probability and rank, and which may come next."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from gpt2cli.arrays import Array, Logits
from gpt2cli.inference.cpu.sampling import FILTERS, softmax
from gpt2cli.inference.engine import Engine
from gpt2cli.inference.sampling import SamplingParams
from gpt2cli.text.batches import Windows

# Positions whose logits are held at once.
AT_ONCE = 64
# What a filter leaves as it is, by its field, in the order in which the filters work.
NEUTRAL = dataclasses.asdict(SamplingParams())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """What the model gives a token after those before it.

    Attributes:
        log_probability: without filters (nats).
        rank: its place by likelihood, from 1; tokens that are equally likely share theirs.
    """

    log_probability: float
    rank: int


def scores(engine: Engine, tokens: Sequence[int], start: int) -> Iterator[Score]:
    """Yields the score of each token of a text, the first after `start`.

    A text longer than the window is read in windows that overlap by half.
    """
    row = [start, *tokens]
    n_ctx, judged = engine.hparams.n_ctx, 0
    for begin in range(0, len(row), max(n_ctx // 2, 1)):
        window = row[begin : begin + n_ctx]
        targets = row[begin + 1 : begin + n_ctx + 1]
        engine.make_room(1, len(window), 1)
        (hidden,) = engine.hidden_states([window])  # (tokens, embed)
        for place in range(max(judged - begin, 0), len(targets), AT_ONCE):
            some = targets[place : place + AT_ONCE]
            logits = engine.logits(hidden[place : place + len(some)])  # (tokens, vocab)
            yield from map(score_of, logits, some)
        judged = begin + len(targets)
        if judged >= len(tokens):
            return


def window_scores(engine: Engine, seen: Windows, targets: Windows) -> Iterator[tuple[int, Score]]:
    """Yields the tokens that follow in a window, each with its score.

    Of int32 (window,) seen, ~t stands for a token t that is read and does not count; of the
    targets that follow, int32 (window,), negative ones are not scored.
    """
    wanted = np.flatnonzero(targets >= 0)
    if not wanted.size:
        return
    row = seen[: wanted[-1] + 1]
    row = np.maximum(row, ~row).tolist()
    engine.make_room(1, len(row), 1)
    (hidden,) = engine.hidden_states([row])  # (tokens, embed)
    for start in range(0, len(wanted), AT_ONCE):
        places = wanted[start : start + AT_ONCE]
        tokens = targets[places].tolist()
        yield from zip(tokens, map(score_of, engine.logits(hidden[places]), tokens), strict=True)


def score_of(logits: Logits, token: int) -> Score:
    """Returns the score of a token from the logits (vocab,) at its place."""
    wide = logits.astype(np.float64)
    peak = wide.max()
    total = float(np.log(np.exp(wide - peak).sum()) + peak)
    rank = 1 + int(np.count_nonzero(logits > logits[token]))
    return Score(log_probability=float(wide[token]) - total, rank=rank)


def next_logits(engine: Engine, tokens: Sequence[int]) -> Logits:
    """Returns the logits (vocab,) of what follows tokens, at least one, or their newest window."""
    row = tokens[-engine.hparams.n_ctx :]
    engine.make_room(1, len(row), 1)
    return np.asarray(engine.logits(engine.prefill([row]))[0])


def filtered_steps(
    logits: Logits, history: Array, params: SamplingParams
) -> Iterator[tuple[str, Array]]:
    """Yields probabilities (vocab,) as the model gives them, and after each filter in its turn.

    Each has the name and value of the filter; those that are not asked for are left out.
    """
    yield "model", softmax(logits)
    partial = SamplingParams()
    for name, neutral in NEUTRAL.items():
        value = getattr(params, name)
        if value == neutral:
            continue
        partial = dataclasses.replace(partial, **{name: value})
        yield f"{name.replace('_', '-')} {value:g}", probabilities(logits, history, partial)


def probabilities(logits: Logits, history: Array, params: SamplingParams) -> Array:
    """Returns the probabilities (vocab,) from which the next token is drawn."""
    if params.temperature > 0:
        return softmax(FILTERS.filtered(logits, history, params))
    left = FILTERS.allowed(logits, history, params)
    certain = np.zeros_like(left)
    certain[left.argmax()] = 1
    return certain
