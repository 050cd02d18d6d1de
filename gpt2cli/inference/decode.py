"""Prompts in, tokens out, one at a time, on any engine; the window slides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from gpt2cli.inference.engine import Chosen, Engine, History, Row
from gpt2cli.inference.sampling import SamplingParams


def tokens(
    engine: Engine,
    params: SamplingParams,
    prompts: Sequence[Row],
    streams: Sequence[Iterator[float]],
    length: int,
) -> Iterator[Chosen]:
    """Yields each row's next token, `length` times; prompts have from 1 to n_ctx tokens.

    A row that has filled the window goes on from its newer half, which is computed anew.
    """
    rows, n_ctx = [list(prompt) for prompt in prompts], engine.hparams.n_ctx
    engine.make_room(len(rows), max(map(len, rows)), length)
    history = History(prompts, length, wanted=params.looks_back)
    for number in range(length):
        if number == 0 or max(map(len, rows)) > n_ctx:
            rows = [newer_half(row, n_ctx) for row in rows]
            hidden = engine.prefill(rows)
        else:
            hidden = engine.step([row[-1] for row in rows])
        uniforms = [next(stream) for stream in streams]
        chosen = engine.choose(hidden, params.after(number), uniforms, history)
        for row, token in zip(rows, chosen.tokens, strict=True):
            row.append(token)
        history.add(chosen.tokens)
        yield chosen


def newer_half(row: Row, n_ctx: int, more: int = 0) -> list[int]:
    """Returns a row, or the newer half of a window if it cannot hold the row and `more`."""
    return list(row) if len(row) + more <= n_ctx else list(row[-max(n_ctx // 2, 1) :])


def random_stream(seed: int, prompt: int, sample: int) -> Iterator[float]:
    """Yields the random numbers, from 0 up to 1, that choose a sample's tokens.

    They depend only on the seed and on which sample of which prompt it is.
    """
    from numpy.random import Philox

    key = np.array([seed, (prompt << 32) | sample], np.uint64)
    generator = Philox(key=key)
    while True:
        # 24 bits, as many as float32 can tell apart below 1.
        yield (int(generator.random_raw()) >> 40) * 2.0**-24
