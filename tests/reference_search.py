"""Beam search once more, in plain Python over the oracle's logits, every text from its beginning.

There is no end of text: all beams have the same length.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests import oracle, reference_filters

# A text: its context within the window, its new tokens, its score.
Text = tuple[list[int], list[int], float]


def beams(
    weights: dict[str, Any],
    shape: Any,
    prompt: list[int],
    settings: dict[str, Any],
    uniforms: Iterator[float] | None = None,
) -> list[list[int]]:
    """Returns the new tokens of all beams, best first.

    Candidates are the best ones, or where there are random numbers drawn one after the other.
    """
    settings = dict(settings)
    count, length = settings.pop("num_beams"), settings.pop("length")
    texts: list[Text] = [(list(prompt), [], 0.0)]
    for _ in range(length):
        scores = []
        for number, (context, new, total) in enumerate(texts):
            if len(context) > shape.n_ctx:
                texts[number] = (context := context[-(shape.n_ctx // 2) :], new, total)
            own = np.log(oracle.softmax(oracle.logits(weights, shape.n_head, context)[-1:])[0])
            scores.append(reference_filters.filtered(own, [*prompt, *new], **settings) + total)
        flat = np.concatenate(scores)
        chosen = best(flat, 2 * count) if uniforms is None else drawn(flat, 2 * count, uniforms)
        texts = [
            ([*context, int(token)], [*new, int(token)], float(flat[place]))
            for place in chosen[:count]
            for (context, new, _), token in [(texts[place // shape.n_vocab], place % shape.n_vocab)]
        ]
    return [new for _, new, _ in texts]


def best(scores: Any, count: int) -> list[int]:
    return [int(place) for place in np.argsort(-scores)[:count]]


def drawn(scores: Any, count: int, uniforms: Iterator[float]) -> list[int]:
    shares, found = reference_filters.shares(scores), []
    for _ in range(count):
        uniform = next(uniforms) * shares.sum()
        found.append(int(np.searchsorted(np.cumsum(shares), uniform, side="right")))
        shares[found[-1]] = 0
    return sorted(found, key=lambda place: -scores[place])
