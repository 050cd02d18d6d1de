"""Logits → logits: penalties, top-k, top-p, …; and the draw from what they leave."""

from __future__ import annotations

import sys
from typing import Any, ClassVar

import tensorflow as tf

from gpt2cli.inference.sampling import Choices

REMOVED = float("-inf")
# The cumulative sum over the vocabulary is taken in two levels, columns in a row of this many.
COLUMNS = 256
# Where a row of the history has no token.
NO_TOKEN = -1
# Below and above every float32, in the order of `ordered`.
LOWEST, HIGHEST = -2139095042, 2139095041
FLOAT_BITS = 32


class Sampling(Choices):
    """How the next tokens of a batch are chosen."""

    filters: ClassVar[Any] = sys.modules[__name__]

    def choose(self, logits: Any, uniform: Any, history: Any) -> tuple[Any, Any]:
        """Returns the next tokens, and their log-probabilities as the model sees them.

        Args:
            logits: float32 (batch, vocab).
            uniform: float32 (batch,), a random number from 0 up to 1 for each row.
            history: int32 (batch, slots), the tokens before, aligned at their ends; NO_TOKEN
                if there is none.

        Returns:
            int32 (batch,), and float32 (batch,) in nats: that of the logits, without filters.
        """
        if self.temperature == 0:
            left = self.without_repeats(logits, history)
            chosen = tf.argmax(left, axis=-1, output_type=tf.int32)
        else:
            chosen = draw(tf.nn.softmax(self.filtered(logits, history)), uniform)
        return chosen, tf.gather(tf.nn.log_softmax(logits), chosen, batch_dims=1)


def penalise(logits: Any, history: Any, penalty: float) -> Any:
    """(batch, vocab) → the same; tokens of the history are less likely, the rest as before."""
    lower = tf.where(logits < 0, logits * penalty, logits / penalty)
    return tf.where(marked(history, logits.shape[-1]), lower, logits)


def remove_repeats(logits: Any, history: Any, size: int) -> Any:
    """(batch, vocab) → the same; tokens that would end a run of `size` seen before are removed.

    If none would be left, all are.
    """
    starts = history.shape[1] - size + 1
    if starts < 1:
        return logits
    same = history[:, :starts] >= 0  # (batch, starts)
    for place in range(size - 1):
        newest = history[:, history.shape[1] - size + 1 + place]  # (batch,)
        same &= history[:, place : place + starts] == newest[:, None]
    ends = tf.where(same, history[:, size - 1 :], NO_TOKEN)  # (batch, starts)
    left = tf.where(marked(ends, logits.shape[-1]), REMOVED, logits)
    return tf.where(tf.reduce_any(left > REMOVED, axis=-1, keepdims=True), left, logits)


def marked(tokens: Any, vocab: int) -> Any:
    """int32 (batch, count) → bool (batch, vocab): which tokens are among them."""
    batch, count = tokens.shape
    # A NO_TOKEN marks a column beyond the last, which is cut off.
    columns = tf.where(tokens < 0, vocab, tokens)
    rows = tf.broadcast_to(tf.range(batch)[:, None], [batch, count])
    places = tf.stack([rows, columns], axis=-1)  # (batch, count, 2)
    found = tf.zeros([batch, vocab + 1], tf.int32)
    return tf.tensor_scatter_nd_max(found, places, tf.ones([batch, count], tf.int32))[:, :-1] > 0


def keep_top_k(logits: Any, k: int) -> Any:
    """(batch, vocab) → the same; all but the k highest of each row are removed."""
    return tf.where(reaching(logits, tf.ones_like(logits), float(k)), logits, REMOVED)


def keep_top_p(logits: Any, p: float) -> Any:
    """(batch, vocab) → the same; the fewest likeliest tokens that reach p are left.

    At least one is (Holtzman et al. 2019, section 3.1).
    """
    return tf.where(reaching(logits, tf.nn.softmax(logits), p), logits, REMOVED)


def keep_min_p(logits: Any, p: float) -> Any:
    """(batch, vocab) → the same; what has less than p of the likeliest's share is removed.

    (Nguyen et al. 2024.)
    """
    shares = tf.nn.softmax(logits)
    least = p * tf.reduce_max(shares, axis=-1, keepdims=True)  # (batch, 1)
    return tf.where(shares >= least, logits, REMOVED)


def keep_typical_p(logits: Any, p: float) -> Any:
    """(batch, vocab) → the same; the tokens nearest to the expected surprise that reach p are left.

    (Meister et al. 2022, section 4.)
    """
    shares, surprise = tf.nn.softmax(logits), -tf.nn.log_softmax(logits)
    surprises = tf.where(shares > 0, shares * surprise, 0.0)
    expected = tf.reduce_sum(surprises, axis=-1, keepdims=True)  # (batch, 1)
    return tf.where(reaching(-tf.abs(surprise - expected), shares, p), logits, REMOVED)


def reaching(ranks: Any, shares: Any, p: float) -> Any:
    """Returns which are the fewest of highest rank whose shares together reach p.

    The rank of the last of them is found by halving the range of float32 as often as it has
    bits, which is exact, and much faster than to sort a vocabulary.

    Args:
        ranks: float32 (batch, vocab).
        shares: float32 (batch, vocab), not negative.
        p: above 0, and no more than the sum of a row.

    Returns:
        bool (batch, vocab).
    """
    places = ordered(ranks)

    def halve(low: Any, high: Any) -> tuple[Any, Any]:
        middle = (low & high) + tf.bitwise.right_shift(low ^ high, 1)
        mass = tf.reduce_sum(tf.where(places >= middle, shares, 0.0), axis=-1, keepdims=True)
        return tf.where(mass >= p, middle, low), tf.where(mass >= p, high, middle)

    low, high = tf.fill([ranks.shape[0], 1], LOWEST), tf.fill([ranks.shape[0], 1], HIGHEST)
    low, _ = tf.while_loop(
        lambda _low, _high: True, halve, (low, high), maximum_iterations=FLOAT_BITS
    )
    return places >= low


def ordered(numbers: Any) -> Any:
    """Returns an int32 for each float32, in the same order."""
    bits = tf.bitcast(numbers, tf.int32)
    return tf.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


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
