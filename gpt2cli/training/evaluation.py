"""Loss, perplexity and accuracy over token windows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from gpt2cli.hparams import HParams
from gpt2cli.network import gpt2, loss, low_precision
from gpt2cli.network.compiling import Compiler, best_compile_mode


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Totals:
    """What adds up to a score.

    Attributes:
        nats: the sum of the cross-entropies.
        hits: how many tokens were the model's likeliest.
        count: how many tokens were judged.
    """

    nats: float = 0.0
    hits: int = 0
    count: int = 0

    def plus(self, other: Totals) -> Totals:
        """Returns the totals of both."""
        return Totals(
            nats=self.nats + other.nats, hits=self.hits + other.hits, count=self.count + other.count
        )

    def score(self) -> Score:
        """Returns the means."""
        return Score(self.nats / self.count, self.hits / self.count)


class Evaluator:
    """The compiled forward pass over one model's weights.

    Attributes:
        compiler: what compiles it; it warns if XLA failed.
        n_ctx: the longest window (tokens).
    """

    def __init__(self, weights: Mapping[str, Any], hparams: HParams, *, xla: bool = True) -> None:
        self.compiler = Compiler(xla=xla, mode=best_compile_mode(xla=xla, width=hparams.n_embd))
        self.n_ctx = hparams.n_ctx
        self._weights = weights
        self._hparams = hparams
        self._compiled = self.compiler(self._scores)

    def score(self, windows: Any, batch_size: int) -> Score:
        """Returns the score over windows, each of which has one token to spare.

        Args:
            windows: int32 (count, window + 1); negative tokens don't count, see `batches.PADDING`.
            batch_size: how many to take at once.
        """
        totals = Totals()
        for batch in self.batches(windows, batch_size):
            totals = totals.plus(batch)
        return totals.score()

    def batches(self, windows: Any, batch_size: int) -> Iterator[Totals]:
        """Yields the totals over each batch of windows; what `score` takes and adds up."""
        for start in range(0, len(windows), batch_size):
            batch = windows[start : start + batch_size]
            yield self.judge(batch[:, :-1], batch[:, 1:])

    def judge(self, seen: Any, targets: Any) -> Totals:
        """Returns the totals over one batch of windows.

        Args:
            seen: int32 (batch, window).
            targets: int32 (batch, window), what follows each token; negative ones don't count.
        """
        losses, right = self._compiled(tf.constant(seen), tf.constant(targets))
        nats = math.fsum(losses.numpy().tolist())
        return Totals(
            nats=nats, hits=int(right), count=int(np.count_nonzero(np.asarray(targets) >= 0))
        )

    def _scores(self, seen: Any, targets: Any) -> tuple[Any, Any]:
        x = gpt2.embed(self._weights, loss.seen_tokens(seen))  # (batch, window, embed)
        hidden = gpt2.hidden_states(self._weights, self._hparams, x)
        rows = tf.reshape(hidden, [-1, self._hparams.n_embd])  # (batch * window, embed)
        flat = tf.reshape(targets, [-1])  # (batch * window,)
        wte = low_precision.dequantize(self._weights, low_precision.EMBEDDING)  # (vocab, embed)
        losses, right = loss.token_losses(rows, wte, flat)
        return losses, tf.reduce_sum(tf.cast(right, tf.int32))
