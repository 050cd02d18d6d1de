"""Prompts in, tokens out, one at a time: drawn or likeliest, with a window that slides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gpt2cli.hparams import HParams
from gpt2cli.inference.streams import Chosen, Row, newer_half
from gpt2cli.inference.tensorflow_cache import SLOT_STEP, CachedModel
from gpt2cli.inference.tensorflow_sampling import NO_TOKEN, Sampling
from gpt2cli.network import xla_clusters


class History:
    """The tokens so far of each row, for the filters that look back.

    They are aligned at their ends; the size is fixed, and one of few.
    """

    def __init__(
        self, prompts: Sequence[Row], length: int, least: int, *, wanted: bool = True
    ) -> None:
        """Takes the prompts, how many tokens are to come, and the least size.

        Unless it is wanted, it is empty.
        """
        longest = max(least, max(map(len, prompts)) + length)
        size = -(-longest // SLOT_STEP) * SLOT_STEP if wanted else 0
        self.tokens = np.full((len(prompts), size), NO_TOKEN, np.int32)
        if wanted:
            for row, prompt in zip(self.tokens, prompts, strict=True):
                row[size - len(prompt) :] = prompt

    def add(self, newest: Sequence[int], parents: Any = None) -> None:
        """Adds a token to each row, after it has become a copy of the parent that is given."""
        if parents is not None:
            self.tokens = self.tokens[parents]
        if self.tokens.shape[1]:
            self.tokens[:, :-1] = self.tokens[:, 1:].copy()
            self.tokens[:, -1] = newest

    def tensor(self) -> Any:
        """Returns it as int32 (batch, slots)."""
        return tf.constant(self.tokens)


class Decoder:
    """Continues prompts token by token, each drawn or the likeliest.

    Attributes:
        model: the model over its cache.
    """

    def __init__(
        self, weights: Mapping[str, Any], hparams: HParams, sampling: Sampling, *, xla: bool = True
    ) -> None:
        """Takes the model, how tokens are chosen, and whether XLA compiles it."""
        self.model = CachedModel(weights, hparams, self._finish, xla=xla, apart=True)
        self._n_ctx, self._sampling = hparams.n_ctx, sampling

    def tokens(
        self, prompts: Sequence[Row], draws: Sequence[Iterator[float]], length: int
    ) -> Iterator[Chosen]:
        """Yields each row's next token, `length` times.

        A row that has filled the window goes on from its newer half, which is computed anew.

        Args:
            prompts: a row's tokens each, from 1 to n_ctx of them.
            draws: each row's random numbers.
            length: tokens to yield a row.
        """
        rows = [list(prompt) for prompt in prompts]
        self.model.make_room(len(rows), max(map(len, rows)), length)
        looks_back = self._sampling.looks_back
        history = History(prompts, length, self.model.slots, wanted=looks_back)
        for number in range(length):
            uniform = tf.constant([next(row) for row in draws], tf.float32)
            if number == 0 or max(map(len, rows)) > self._n_ctx:
                rows = [newer_half(row, self._n_ctx) for row in rows]
                found = self.model.prefill(rows, uniform, history.tensor())
            else:
                newest = [row[-1] for row in rows]
                found = self.model.step(newest, uniform, history.tensor())
            chosen = Chosen(found[0].numpy().tolist(), found[1].numpy().tolist())
            for row, token in zip(rows, chosen.tokens, strict=True):
                row.append(token)
            history.add(chosen.tokens)
            yield chosen

    def pop_warnings(self) -> list[str]:
        """Returns a line for each thing that went otherwise than asked, once."""
        return self.model.compiler.pop_warnings()

    def _finish(self, hidden: Any, _first: Any, _place: Any, uniform: Any, history: Any) -> Any:
        choose = xla_clusters.cluster(self._sampling.choose)
        return choose(self.model.logits(hidden[:, -1]), uniform, history)
