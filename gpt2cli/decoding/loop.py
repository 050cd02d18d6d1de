"""Prefill, cached decode steps and the sliding window: tokens in, tokens out, one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.compiler.tf2xla.python.xla import dynamic_update_slice

from gpt2cli.decoding.filters import Sampling
from gpt2cli.hparams import HParams
from gpt2cli.network import gpt2
from gpt2cli.network.attention import cached_attention, causal_attention

# Prompts are padded to one of these lengths, so that few programs are compiled.
PROMPT_SIZES = (16, 64, 256, 512, 768, 1024)
SLOT_STEP = 64

Cache = list[tuple[Any, Any]]


def uniforms(seed: int, prompt: int, sample: int) -> Iterator[float]:
    """Yields the random numbers, from 0 up to 1, that choose a sample's tokens.

    They depend on nothing but the seed and on which sample of which prompt it is.
    """
    key = np.array([seed, (prompt << 32) | sample], np.uint64)
    generator = np.random.Philox(key=key)
    while True:
        # 24 bits, as many as float32 can tell apart below 1.
        yield (int(generator.random_raw()) >> 40) * 2.0**-24


class Decoder:
    """The compiled prefill and decode step over one model's weights, and their cache.

    The rows of a batch are aligned at their ends: shorter ones are padded on the left. A slot is
    a place in the padded window; `first` is each row's first slot that holds a token.
    """

    def __init__(
        self,
        weights: Mapping[str, Any],
        hparams: HParams,
        sampling: Sampling,
        *,
        xla: bool = True,
    ) -> None:
        """Takes the model, how tokens are chosen, and whether XLA compiles it."""
        self._put = dynamic_update_slice if xla else put
        self._weights = weights
        self._hparams = hparams
        self._sampling = sampling
        self._cache: Cache = []
        self._prefill = tf.function(self._prefill_graph, jit_compile=xla)
        self._step = tf.function(self._step_graph, jit_compile=xla)

    def tokens(
        self, prompts: Sequence[Sequence[int]], draws: Sequence[Iterator[float]], length: int
    ) -> Iterator[Any]:
        """Yields each row's next token, `length` times.

        A row that has filled the window goes on from its newer half, which is computed anew.

        Args:
            prompts: a row's tokens each, from 1 to n_ctx of them.
            draws: each row's random numbers.
            length: tokens to yield a row.

        Yields:
            int32 (batch,).
        """
        n_ctx = self._hparams.n_ctx
        rows = [list(prompt) for prompt in prompts]
        self._make_cache(rows, length)
        for number in range(length):
            uniform = tf.constant([next(row) for row in draws], tf.float32)
            if number == 0 or max(map(len, rows)) > n_ctx:
                rows = [row if len(row) <= n_ctx else row[-(n_ctx // 2) :] for row in rows]
                place = prompt_size(max(map(len, rows)), n_ctx)
                first = tf.constant([place - len(row) for row in rows], tf.int32)
                tokens = tf.constant([[0] * (place - len(row)) + row for row in rows], tf.int32)
                chosen = self._prefill(tokens, first, uniform, self._cache)
            else:
                newest = tf.constant([row[-1:] for row in rows], tf.int32)
                chosen = self._step(newest, first, tf.constant(place), uniform, self._cache)
                place += 1
            values = chosen.numpy()
            for row, token in zip(rows, values.tolist(), strict=True):
                row.append(token)
            yield values

    def _make_cache(self, rows: Sequence[Sequence[int]], length: int) -> None:
        """Makes keys and values for this many rows and slots, unless they are there already."""
        hparams, longest = self._hparams, max(map(len, rows))
        slots = prompt_size(longest, hparams.n_ctx) + length
        if longest + length > hparams.n_ctx:
            # The window will slide; then a row may be padded from one size to the next.
            slots = hparams.n_ctx + widest_padding(hparams.n_ctx)
        slots = -(-slots // SLOT_STEP) * SLOT_STEP
        shape = [len(rows), hparams.n_head, slots, hparams.n_embd // hparams.n_head]
        if not self._cache or self._cache[0][0].shape != shape:
            self._cache = [
                (tf.Variable(tf.zeros(shape)), tf.Variable(tf.zeros(shape)))
                for _ in range(hparams.n_layer)
            ]

    def _prefill_graph(self, tokens: Any, first: Any, uniform: Any, cache: Cache) -> Any:
        """Fills the cache from whole rows and chooses what follows them.

        Args:
            tokens: int32 (batch, time), padded on the left.
            first: int32 (batch,).
            uniform: float32 (batch,).
            cache: keys and values of each layer, (batch, heads, slots, head).

        Returns:
            int32 (batch,).
        """

        def attend(pair: tuple[Any, Any], query: Any, key: Any, value: Any) -> Any:
            for variable, new in zip(pair, (key, value), strict=True):
                free = variable.shape[2] - new.shape[2]
                variable.assign(tf.pad(new, [[0, 0], [0, 0], [0, free], [0, 0]]))
            return causal_attention(query, key, value, first)

        positions = tf.maximum(tf.range(tokens.shape[1])[None, :] - first[:, None], 0)
        return self._choose(tokens, positions, uniform, [partial(attend, pair) for pair in cache])

    def _step_graph(self, tokens: Any, first: Any, place: Any, uniform: Any, cache: Cache) -> Any:
        """Adds one token a row to the cache, in slot `place`, and chooses what follows it.

        Args:
            tokens: int32 (batch, 1).
            first: int32 (batch,).
            place: int32.
            uniform: float32 (batch,).
            cache: keys and values of each layer, (batch, heads, slots, head).

        Returns:
            int32 (batch,).
        """

        def attend(pair: tuple[Any, Any], query: Any, key: Any, value: Any) -> Any:
            keys, values = (
                variable.assign(self._put(variable, new, [0, 0, place, 0]))
                for variable, new in zip(pair, (key, value), strict=True)
            )
            return cached_attention(query, keys, values, first, place)

        return self._choose(
            tokens, (place - first)[:, None], uniform, [partial(attend, pair) for pair in cache]
        )

    def _choose(
        self, tokens: Any, positions: Any, uniform: Any, attends: Sequence[gpt2.Attend]
    ) -> Any:
        x = gpt2.embed(self._weights, tokens, positions)  # (batch, time, embed)
        hidden = gpt2.hidden_states(self._weights, self._hparams, x, attends=attends)
        logits = gpt2.logits(self._weights, hidden[:, -1])  # (batch, vocab)
        return self._sampling.choose(logits, uniform)


def put(whole: Any, new: Any, begin: Sequence[Any]) -> Any:
    """Returns keys or values with new ones in one slot, as XLA's dynamic_update_slice does.

    Args:
        whole: (batch, heads, slots, head).
        new: (batch, heads, 1, head).
        begin: where `new` comes in each dimension; the third is its slot.
    """
    here = tf.range(whole.shape[2]) == begin[2]  # (slots,)
    return tf.where(here[:, None], new, whole)


def prompt_size(length: int, n_ctx: int) -> int:
    """Returns the padded length of a prompt: the smallest size that holds it."""
    return next(size for size in prompt_sizes(n_ctx) if size >= length)


def prompt_sizes(n_ctx: int) -> list[int]:
    """Returns the lengths that prompts are padded to, ascending; the window is the last."""
    return [*(size for size in PROMPT_SIZES if size < n_ctx), n_ctx]


def widest_padding(n_ctx: int) -> int:
    """Returns how many slots the padding of a prompt takes at most."""
    sizes = prompt_sizes(n_ctx)
    return max(after - before for before, after in zip([0, *sizes], sizes, strict=False))
