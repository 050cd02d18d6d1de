"""Logits → logits: temperature, top-k, top-p; and the draw from what they leave."""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf

REMOVED = float("-inf")
# The cumulative sum over the vocabulary is taken in two levels, columns in a row of this many.
COLUMNS = 256


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: logits are divided by it; 0: the likeliest token is taken.
        top_k: how many of the likeliest tokens are left; 0: all.
        top_p: the likeliest tokens that together reach this probability are left; 0: all.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 0.0

    def choose(self, logits: Any, uniform: Any) -> Any:
        """Returns the next tokens.

        Args:
            logits: float32 (batch, vocab).
            uniform: float32 (batch,), a random number from 0 up to 1 for each row.

        Returns:
            int32 (batch,).
        """
        if self.temperature == 0:
            return tf.argmax(logits, axis=-1, output_type=tf.int32)
        logits = logits / self.temperature
        if 0 < self.top_k < logits.shape[-1]:
            logits = keep_top_k(logits, self.top_k)
        if 0 < self.top_p < 1:
            logits = keep_top_p(logits, self.top_p)
        return draw(tf.nn.softmax(logits), uniform)


def keep_top_k(logits: Any, k: int) -> Any:
    """(batch, vocab) → the same; all but the k highest of each row are removed."""
    lowest = tf.math.top_k(logits, k).values[:, -1:]  # (batch, 1)
    return tf.where(logits >= lowest, logits, REMOVED)


def keep_top_p(logits: Any, p: float) -> Any:
    """(batch, vocab) → the same; the fewest likeliest tokens that reach p are left.

    At least one is (Holtzman et al. 2019, section 3.1).
    """
    ordered = tf.sort(logits, axis=-1, direction="DESCENDING")  # (batch, vocab)
    before = tf.cumsum(tf.nn.softmax(ordered), axis=-1, exclusive=True)  # (batch, vocab)
    lowest = tf.reduce_min(tf.where(before < p, ordered, float("inf")), axis=-1, keepdims=True)
    return tf.where(logits >= lowest, logits, REMOVED)


def draw(shares: Any, uniform: Any) -> Any:
    """Returns for each row the token in whose stretch of the cumulative sum the number falls.

    Args:
        shares: float32 (batch, vocab), each row's sum is about 1.
        uniform: float32 (batch,), from 0 up to 1.

    Returns:
        int32 (batch,); a token whose share is 0 is never drawn.
    """
    batch, vocab = shares.shape
    rows = -(-vocab // COLUMNS)
    padded = tf.pad(shares, [[0, 0], [0, rows * COLUMNS - vocab]])
    table = tf.reshape(padded, [batch, rows, COLUMNS])
    ends = tf.cumsum(tf.reduce_sum(table, axis=-1), axis=-1)  # (batch, rows)
    aim = uniform * ends[:, -1]  # (batch,)
    row = tf.reduce_sum(tf.cast(ends <= aim[:, None], tf.int32), axis=-1)  # (batch,)
    row = tf.minimum(row, rows - 1)
    begins = tf.concat([tf.zeros([batch, 1]), ends[:, :-1]], axis=-1)  # (batch, rows)
    rest = aim - tf.gather(begins, row, batch_dims=1)  # (batch,)
    inside = tf.gather(table, row, batch_dims=1)  # (batch, COLUMNS)
    passed = tf.cumsum(inside, axis=-1) <= rest[:, None]
    # Rounding may leave the aim beyond the row's last share: take the last token that has one.
    last = tf.reduce_max(tf.where(inside > 0, tf.range(COLUMNS)[None], 0), axis=-1)
    column = tf.minimum(tf.reduce_sum(tf.cast(passed, tf.int32), axis=-1), last)
    return row * COLUMNS + column
