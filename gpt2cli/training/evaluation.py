"""Loss, perplexity and accuracy over token windows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from gpt2cli.arrays import Array, Tensor, Weights
from gpt2cli.hparams import HParams
from gpt2cli.network import gpt2, loss, low_precision
from gpt2cli.network.compiling import Compiler, best_compile_mode


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """How well a model predicts a text; the scores of two parts add up.

    Attributes:
        nats: the sum of the cross-entropies.
        hits: how many tokens were the model's likeliest.
        count: how many tokens were judged.
    """

    nats: float = 0.0
    hits: int = 0
    count: int = 0

    def __add__(self, other: Score) -> Score:
        return Score(
            nats=self.nats + other.nats, hits=self.hits + other.hits, count=self.count + other.count
        )

    @property
    def loss(self) -> float:
        """The mean cross-entropy (nats per token)."""
        return self.nats / self.count

    @property
    def perplexity(self) -> float:
        """E to the power of the loss."""
        return float(np.exp(self.loss))

    @property
    def accuracy(self) -> float:
        """The share of tokens that were the model's likeliest (0 to 1)."""
        return self.hits / self.count


class Evaluator:
    """The forward pass over one model's weights; its `compiler` warns if XLA failed."""

    def __init__(self, weights: Weights, hparams: HParams, *, xla: bool = True) -> None:
        self.compiler = Compiler(xla=xla, mode=best_compile_mode(xla=xla, width=hparams.n_embd))
        self._weights, self._hparams = weights, hparams
        self._compiled = self.compiler(self._scores)

    def batches(self, windows: Array, batch_size: int) -> Iterator[Score]:
        """Yields the score of each batch of windows, int32 (count, window + 1)."""
        for start in range(0, len(windows), batch_size):
            batch = windows[start : start + batch_size]
            yield self.judge(batch[:, :-1], batch[:, 1:])

    def judge(self, seen: Array, targets: Array) -> Score:
        """Returns the score of a batch of windows, int32 (batch, window), as what follows each.

        Negative targets do not count, see `batches.PADDING`.
        """
        losses, right = self._compiled(tf.constant(seen), tf.constant(targets))
        nats, count = math.fsum(losses.numpy().tolist()), int(np.count_nonzero(targets >= 0))
        return Score(nats=nats, hits=int(right), count=count)

    def _scores(self, seen: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        x = gpt2.embed(self._weights, loss.seen_tokens(seen))  # (batch, window, embed)
        hidden = gpt2.hidden_states(self._weights, self._hparams, x)
        rows = tf.reshape(hidden, [-1, self._hparams.n_embd])  # (batch * window, embed)
        flat = tf.reshape(targets, [-1])  # (batch * window,)
        wte = low_precision.dequantize(self._weights, low_precision.EMBEDDING)  # (vocab, embed)
        losses, right = loss.token_losses(rows, wte, flat)
        return losses, tf.reduce_sum(tf.cast(right, tf.int32))
