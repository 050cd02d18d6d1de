"""Loss, perplexity and accuracy over token windows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from gpt2cli.hparams import HParams
from gpt2cli.network import gpt2, loss


@dataclasses.dataclass(frozen=True)
class Score:
    """How well a model predicts a text.

    Attributes:
        loss: mean cross-entropy (nats per token).
        accuracy: the share of tokens that were the model's likeliest (0 to 1).
    """

    loss: float
    accuracy: float

    @property
    def perplexity(self) -> float:
        """E to the power of the loss."""
        return float(np.exp(self.loss))


class Evaluator:
    """The compiled forward pass over one model's weights."""

    def __init__(self, weights: Mapping[str, Any], hparams: HParams, *, xla: bool = True) -> None:
        self._weights = weights
        self._hparams = hparams
        self._compiled = tf.function(self._scores, jit_compile=xla)

    def score(self, windows: Any, batch_size: int) -> Score:
        """Returns the score over windows, each of which has one token to spare.

        Args:
            windows: int32 (count, window + 1); negative tokens are padding and do not count.
            batch_size: how many to take at once.
        """
        total, hits, count = 0.0, 0, 0
        for start in range(0, len(windows), batch_size):
            batch = windows[start : start + batch_size]
            losses, right = self._compiled(tf.constant(batch))
            total += float(np.sum(losses.numpy(), dtype=np.float64))
            hits += int(right)
            count += int(np.count_nonzero(batch[:, 1:] >= 0))
        return Score(total / count, hits / count)

    def _scores(self, tokens: Any) -> tuple[Any, Any]:
        x = gpt2.embed(self._weights, tf.maximum(tokens[:, :-1], 0))  # (batch, window, embed)
        hidden = gpt2.hidden_states(self._weights, self._hparams, x)
        rows = tf.reshape(hidden, [-1, self._hparams.n_embd])  # (batch * window, embed)
        targets = tf.reshape(tokens[:, 1:], [-1])  # (batch * window,)
        losses, right = loss.next_token_scores(rows, self._weights["model/wte"], targets)
        return losses, tf.reduce_sum(tf.cast(right, tf.int32))
