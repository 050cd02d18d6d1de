"""Contrastive search: of the likeliest candidates the one least like the text before."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from gpt2cli.arrays import Array
from gpt2cli.inference.decode import newer_half
from gpt2cli.inference.engine import Chosen, Engine, History, Row
from gpt2cli.inference.sampling import SamplingParams


@dataclasses.dataclass(frozen=True)
class ContrastParams:
    """How candidates are weighed: `alpha`, from 0 to 1, is the weight of their likeness."""

    alpha: float


def contrastive_tokens(
    engine: Engine,
    params: SamplingParams,
    contrast: ContrastParams,
    *,
    prompts: Sequence[Row],
    length: int,
) -> Iterator[Chosen]:
    """Yields each row's next token, `length` times (Su et al. 2022).

    The model sees each candidate; its score is (1 - alpha) times its probability, less alpha
    times the highest cosine between its hidden state and one of the text before. Of `params` top_k
    is the number of candidates; the others are `Filters.allowed`. Prompts have 1 to n_ctx tokens.
    """
    rows, sizes = [list(prompt) for prompt in prompts], engine.hparams
    count = min(params.top_k, sizes.n_vocab)
    engine.make_room(len(rows) * count, max(map(len, rows)), length)
    history = History(prompts, length, wanted=params.looks_back)
    # The directions of the hidden states so far, of each row; a candidate needs a place, too.
    context = np.empty((len(rows), sizes.n_ctx, sizes.n_embd), np.float32)
    parents: list[int] | None = None
    for number in range(length):
        if number == 0 or max(map(len, rows)) >= sizes.n_ctx:
            rows, parents = [newer_half(row, sizes.n_ctx, 1) for row in rows], None
            states = engine.hidden_states(rows)
            for kept, own in zip(context, states, strict=True):
                kept[: len(own)] = direction(own)
            newest = np.stack([own[-1] for own in states])  # (rows, embed)
        found = engine.likeliest(newest, params.after(number), count, history)
        hidden = np.asarray(engine.step(found.tokens.ravel().tolist(), parents))
        own = hidden.reshape(len(rows), count, -1)  # (rows, candidates, embed)
        own_directions = direction(own)
        winners = [
            winner(own_directions[n], context[n, : len(row)], found.scores[n], contrast.alpha)
            for n, row in enumerate(rows)
        ]
        places = range(len(rows)), winners
        newest = own[places]  # (rows, embed)
        tokens = found.tokens[places].tolist()
        for kept, row, token, state in zip(context, rows, tokens, newest, strict=True):
            kept[len(row)] = direction(state)
            row.append(token)
        parents = [place * count + best for place, best in enumerate(winners) for _ in range(count)]
        history.add(tokens)
        yield Chosen(tokens, found.log_probabilities[places].tolist())


# A model that has diverged must not cause warnings.
@np.errstate(all="ignore")
def winner(own: Array, context: Array, probabilities: Array, alpha: float) -> int:
    """Returns which candidate has the highest score.

    Args:
        own: (candidates, embed), the directions of their hidden states.
        context: (tokens, embed), those of the text before.
        probabilities: (candidates,), after the filters.
        alpha: how much it counts that a candidate is like the text before.
    """
    likeness = (own @ context.T).max(axis=-1)  # (candidates,)
    return int(np.argmax((1 - alpha) * probabilities - alpha * likeness))


@np.errstate(all="ignore")
def direction(hidden: Array) -> Array:
    """(…, embed) → the same, each vector scaled to length 1."""
    return np.asarray(hidden / np.linalg.norm(hidden, axis=-1, keepdims=True))
