"""GPT-2 for texts that grow on a CPU, without TensorFlow: each at a place of its own, no padding.

A token multiplies each matrix by one row a text. That is bound by memory, and XLA's products reach
about half of its speed. Besides, TensorFlow need not be loaded, and nothing is traced.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gpt2cli.hparams import HParams
from gpt2cli.inference.cpu.ops import Arithmetic, Array

EMBEDDING = "model/wte"


class TextsModel:
    """The weights of a model, and the keys and values of the texts that it has seen."""

    def __init__(
        self, weights: Iterable[tuple[str, Any]], hparams: HParams, arithmetic: Arithmetic
    ) -> None:
        """Takes named weights, float32, the model's shape, and what multiplies."""
        self._hparams, self._arithmetic = hparams, arithmetic
        self._matrices, self._vectors = {}, {}
        for name, array in weights:
            if name == EMBEDDING:
                self._matrices[name] = arithmetic.matrix(array)
            elif array.ndim == 3:
                self._matrices[name] = arithmetic.matrix(array[0].T)
            else:
                # Compiled loops are made for arrays that may be written to.
                self._vectors[name] = np.require(np.squeeze(array), np.float32, ["C", "W"])
        self._cache: list[tuple[Array, Array]] = []
        self._seen = np.zeros(0, np.int64)

    def open(self, count: int, length: int) -> None:
        """Allocates the KV cache for `count` texts of up to `length` tokens each."""
        sizes = self._hparams
        slots = min(length, sizes.n_ctx)
        shape = count, sizes.n_head, slots, sizes.n_embd // sizes.n_head
        if not self._cache or self._cache[0][0].shape != shape:
            # What was there goes before its successor comes.
            self._cache = []
            self._cache = [
                (np.empty(shape, np.float32), np.empty(shape, np.float32))
                for _ in range(sizes.n_layer)
            ]
        self._seen = np.zeros(count, np.int64)

    # A model that has diverged must not cause warnings.
    @np.errstate(all="ignore")
    def begin(self, text: int, tokens: Sequence[int]) -> None:
        """Begins a text anew, by its number, with as many tokens as there is room for, or none."""
        self._seen[text] = len(tokens)
        if not tokens:
            return
        x = self._embed(tokens, np.arange(len(tokens)))
        for layer, pair in enumerate(self._cache):
            mixed, keys, values = self._mixed(x, layer), pair[0][text], pair[1][text]
            keep(mixed, keys, values)
            # Of the last layer only keys and values are needed.
            if layer < len(self._cache) - 1:
                x = self._rest(x, self._arithmetic.attend_prompt(mixed, keys, values), layer)

    def copy(self, source: int, text: int) -> None:
        """Lets a text go on from where another is."""
        end = self._seen[source]
        for pair in self._cache:
            for held in pair:
                held[text, :, :end] = held[source, :, :end]
        self._seen[text] = end

    @np.errstate(all="ignore")
    def step(self, tokens: Sequence[int]) -> Array:
        """Goes on by a token each text; returns float32 (texts, vocab): what may follow."""
        x = self._embed(tokens, self._seen)
        for layer, pair in enumerate(self._cache):
            mixed = self._mixed(x, layer)
            x = self._rest(x, self._arithmetic.attend_newest(mixed, *pair, self._seen), layer)
        self._seen += 1
        return self._matrices[EMBEDDING].times(self._norm(x, "model/ln_f"))

    def _embed(self, tokens: Sequence[int], positions: Any) -> Array:
        places = self._vectors["model/wpe"][positions]
        return np.asarray(self._matrices[EMBEDDING].rows(tokens) + places)

    def _mixed(self, x: Array, layer: int) -> Array:
        """(time, embed) → (time, 3 * embed): queries, keys and values."""
        place = f"model/h{layer}/"
        return self._dense(self._norm(x, place + "ln_1"), place + "attn/c_attn")

    def _rest(self, x: Array, attended: Array, layer: int) -> Array:
        """Returns what a layer makes of its input and of what this attends to; (time, embed)."""
        place = f"model/h{layer}/"
        x = x + self._dense(attended, place + "attn/c_proj")
        wide = self._dense(self._norm(x, place + "ln_2"), place + "mlp/c_fc")
        x += self._dense(self._arithmetic.gelu(wide), place + "mlp/c_proj")
        return x

    def _dense(self, x: Array, name: str) -> Array:
        """(time, width) → (time, columns)."""
        return self._matrices[f"{name}/w"].times(x, self._vectors[f"{name}/b"])

    def _norm(self, x: Array, name: str) -> Array:
        """Normalises the last axis to mean 0 and variance 1, then scales and shifts it."""
        return self._arithmetic.norm(x, self._vectors[f"{name}/g"], self._vectors[f"{name}/b"])


def keep(mixed: Array, keys: Array, values: Array) -> None:
    """Begins a text's keys and values.

    Args:
        mixed: (time, 3 * embed), of a text from its beginning: queries, keys and values.
        keys: (heads, slots, head), which are set.
        values: like keys.
    """
    heads, _, head = keys.shape
    _, key, value = mixed.reshape(-1, 3, heads, head).transpose(1, 2, 0, 3)
    keys[:, : len(mixed)], values[:, : len(mixed)] = key, value
