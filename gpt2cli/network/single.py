"""GPT-2 for one text on a CPU, in NumPy: BLAS reads the weights as fast as memory gives them.

A token of one text multiplies each matrix by one row. That is bound by memory, and XLA's products
reach about half of its speed. Besides, TensorFlow need not be loaded, and nothing is compiled.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gpt2cli.hparams import HParams

NORM_EPSILON = np.float32(1e-5)
# Queries are taken in blocks of so many, each against the keys up to its end.
QUERY_BLOCK = 256
Array = np.ndarray[Any, np.dtype[np.float32]]


class SingleModel:
    """The weights of a model, and the keys and values of the one text that it has seen.

    Attributes:
        seen: how many tokens of the text there are.
    """

    def __init__(self, weights: Iterable[tuple[str, Any]], hparams: HParams) -> None:
        """Takes named weights, float32, and the model's shape."""
        self.seen = 0
        self._hparams = hparams
        # A matrix that narrows is read faster by its columns.
        self._weights = {
            name: np.asfortranarray(array[0]) if name.endswith("c_proj/w") else np.squeeze(array)
            for name, array in weights
        }
        self._cache: list[tuple[Array, Array]] = []

    def prefill(self, tokens: Sequence[int], length: int) -> Array:
        """Begins a text, and returns float32 (vocab,): the scores of the token that follows.

        Args:
            tokens: from 1 to n_ctx of them.
            length: how many are to follow, for which room is made as far as the window goes.
        """
        sizes = self._hparams
        slots = min(len(tokens) + length, sizes.n_ctx)
        shape = sizes.n_head, slots, sizes.n_embd // sizes.n_head
        if not self._cache or self._cache[0][0].shape != shape:
            self._cache = [
                (np.empty(shape, np.float32), np.empty(shape, np.float32))
                for _ in range(sizes.n_layer)
            ]
        self.seen = 0
        return self._logits(tokens)

    def step(self, token: int) -> Array:
        """Goes on by a token; returns float32 (vocab,): the scores of the one that follows."""
        return self._logits([token])

    # A model that has diverged is no cause for warnings.
    @np.errstate(all="ignore")
    def _logits(self, tokens: Sequence[int]) -> Array:
        weights, end = self._weights, self.seen + len(tokens)
        x = weights["model/wte"][list(tokens)] + weights["model/wpe"][self.seen : end]
        for layer, cache in enumerate(self._cache):
            place = f"model/h{layer}/"
            x += self._attention(self._norm(x, place + "ln_1"), place + "attn/", cache)
            x += self._mlp(self._norm(x, place + "ln_2"), place + "mlp/")
        self.seen = end
        return np.asarray(weights["model/wte"] @ self._norm(x[-1], "model/ln_f"))

    def _attention(self, x: Array, place: str, cache: tuple[Array, Array]) -> Array:
        """(time, embed) → (time, embed), each position from those before it and the cache."""
        time, heads = len(x), self._hparams.n_head
        mixed = self._dense(x, place + "c_attn").reshape(time, 3, heads, -1)
        query, key, value = mixed.transpose(1, 2, 0, 3)  # (heads, time, head) each
        keys, values = (held[:, : self.seen + time] for held in cache)
        keys[:, self.seen :], values[:, self.seen :] = key, value
        query = query / np.float32(math.sqrt(query.shape[-1]))
        found = [
            attend(query[:, start : start + QUERY_BLOCK], keys, values, self.seen + start)
            for start in range(0, time, QUERY_BLOCK)
        ]
        whole = found[0] if len(found) == 1 else np.concatenate(found, axis=1)
        merged = whole.transpose(1, 0, 2).reshape(time, -1)  # (time, embed)
        return self._dense(merged, place + "c_proj")

    def _mlp(self, x: Array, place: str) -> Array:
        """(time, embed) → (time, embed), each position for itself."""
        return self._dense(gelu(self._dense(x, place + "c_fc")), place + "c_proj")

    def _dense(self, x: Array, name: str) -> Array:
        """(time, width) → (time, columns)."""
        found = x @ self._weights[f"{name}/w"]
        found += self._weights[f"{name}/b"]
        return np.asarray(found)

    def _norm(self, x: Array, name: str) -> Array:
        """Normalises the last axis to mean 0 and variance 1, then scales and shifts it."""
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = np.square(centred).mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt(variance + NORM_EPSILON)
        return np.asarray(scaled * self._weights[f"{name}/g"] + self._weights[f"{name}/b"])


def attend(query: Array, keys: Array, values: Array, first: int) -> Array:
    """Returns the values that scaled queries attend to, of a text's positions from `first` on.

    Args:
        query: (heads, block, head), of no more than QUERY_BLOCK positions.
        keys: (heads, at least first + block, head), of the text from its beginning.
        values: like keys.
        first: the position of the first query.

    Returns:
        (heads, block, head).
    """
    block = query.shape[1]
    end = first + block
    scores = query @ keys[:, :end].transpose(0, 2, 1)  # (heads, block, end)
    if block > 1:
        scores[:, :, first:] += np.triu(np.full((block, block), -np.inf, np.float32), 1)
    scores -= scores.max(axis=-1, keepdims=True)
    shares = np.exp(scores, out=scores)
    shares /= shares.sum(axis=-1, keepdims=True)
    return np.asarray(shares @ values[:, :end])


def gelu(x: Array) -> Array:
    """The tanh approximation of GELU, as gpt2.gelu."""
    inner = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x)))
    return np.asarray(0.5 * x * (1 + inner))
