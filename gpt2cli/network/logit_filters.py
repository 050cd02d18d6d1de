"""Logits → logits in TensorFlow: penalties, top-k, top-p, …; and the draw from what they leave."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from gpt2cli.arrays import Tensor
from gpt2cli.network.attention import shape_of

REMOVED = float("-inf")
# Stands before a row's first token in a history.
NO_TOKEN = -1
# The cumulative sum over the vocabulary is taken in two levels, columns in a row of this many.
COLUMNS = 256
# Below and above every float32, in the order of `ordered`.
LOWEST, HIGHEST = -2139095042, 2139095041
FLOAT_BITS = 32


def remove(logits: Tensor, tokens: Sequence[int]) -> Tensor:
    """(batch, vocab) → the same without some tokens; if none would be left in a row, all are."""
    vocab = logits.shape[-1]
    return without(logits, tf.reduce_any(tf.range(vocab)[:, None] == list(tokens), axis=-1))


def without(logits: Tensor, removed: Tensor) -> Tensor:
    """(batch, vocab) → the same without those that bool (…, vocab) marks, if any are left."""
    left = tf.where(removed, REMOVED, logits)
    return tf.where(tf.reduce_any(left > REMOVED, axis=-1, keepdims=True), left, logits)


def penalise(logits: Tensor, history: Tensor, penalty: float) -> Tensor:
    """(batch, vocab) → the same; tokens of the history are less likely, the rest as before."""
    lower = tf.where(logits < 0, logits * penalty, logits / penalty)
    return tf.where(marked(history, logits.shape[-1]), lower, logits)


def remove_repeats(logits: Tensor, history: Tensor, size: int) -> Tensor:
    """(batch, vocab) → the same without the tokens that would end a run of `size` seen before."""
    starts = history.shape[1] - size + 1
    if starts < 1:
        return logits
    same = history[:, :starts] >= 0  # (batch, starts)
    for place in range(size - 1):
        newest = history[:, history.shape[1] - size + 1 + place]  # (batch,)
        same &= history[:, place : place + starts] == newest[:, None]
    ends = tf.where(same, history[:, size - 1 :], NO_TOKEN)  # (batch, starts)
    return without(logits, marked(ends, logits.shape[-1]))


def marked(tokens: Tensor, vocab: int) -> Tensor:
    """int32 (batch, count) → bool (batch, vocab): which tokens are among them."""
    batch, count = tokens.shape
    # NO_TOKEN marks a column beyond the last, which is cut off.
    columns = tf.where(tokens < 0, vocab, tokens)
    rows = tf.broadcast_to(tf.range(batch)[:, None], [batch, count])
    places = tf.stack([rows, columns], axis=-1)  # (batch, count, 2)
    found = tf.zeros([batch, vocab + 1], tf.int32)
    return tf.tensor_scatter_nd_max(found, places, tf.ones([batch, count], tf.int32))[:, :-1] > 0


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """(batch, vocab) → the same; all but the k highest of each row are removed."""
    ones = tf.ones_like(logits)
    return tf.where(nucleus_mask(logits, ones, tf.cast(k, tf.float32)), logits, REMOVED)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """(batch, vocab) → the same; the fewest likeliest tokens that reach p are left.

    At least one is (Holtzman et al. 2019, section 3.1).
    """
    return tf.where(nucleus_mask(logits, tf.nn.softmax(logits), p), logits, REMOVED)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """(batch, vocab) → the same; what has less than p of the likeliest's probability is removed.

    (Nguyen et al. 2024.)
    """
    probabilities = tf.nn.softmax(logits)
    least = p * tf.reduce_max(probabilities, axis=-1, keepdims=True)  # (batch, 1)
    return tf.where(probabilities >= least, logits, REMOVED)


def keep_typical_p(logits: Tensor, p: float) -> Tensor:
    """(batch, vocab) → the same; leaves the tokens nearest to the expected surprise that reach p.

    (Meister et al. 2022, section 4.)
    """
    probabilities, surprise = tf.nn.softmax(logits), -tf.nn.log_softmax(logits)
    surprises = tf.where(probabilities > 0, probabilities * surprise, 0.0)
    expected = tf.reduce_sum(surprises, axis=-1, keepdims=True)  # (batch, 1)
    return tf.where(nucleus_mask(-tf.abs(surprise - expected), probabilities, p), logits, REMOVED)


def nucleus_mask(ranks: Tensor, probabilities: Tensor, p: float) -> Tensor:
    """Returns which tokens are the fewest of highest rank whose probabilities together reach p.

    The rank of the last of them is found by halving the range of float32 as often as it has
    bits, which is exact, and much faster than to sort a vocabulary.

    All are (batch, vocab); ranks and probabilities, which are not negative, float32. P is above 0;
    if it is more than the sum of a row, all its tokens are left.
    """
    places = ordered(ranks)

    def halve(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Halves the range in which each row's bound is."""
        middle = (low & high) + tf.bitwise.right_shift(low ^ high, 1)
        mass = tf.reduce_sum(tf.where(places >= middle, probabilities, 0.0), axis=-1, keepdims=True)
        return tf.where(mass >= p, middle, low), tf.where(mass >= p, high, middle)

    column = [shape_of(ranks)[0], 1]
    low, high = tf.fill(column, LOWEST), tf.fill(column, HIGHEST)
    low, _ = tf.while_loop(
        lambda _low, _high: True, halve, (low, high), maximum_iterations=FLOAT_BITS
    )
    return places >= low


def ordered(numbers: Tensor) -> Tensor:
    """Returns an int32 for each float32, in the same order."""
    bits = tf.bitcast(numbers, tf.int32)
    return tf.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


def draw(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Returns int32 (batch,): the token in whose stretch of the cumulative sum the number falls.

    Probabilities are float32 (batch, vocab), each row's sum about 1; a token whose probability is 0
    is never drawn. The numbers are float32 (batch,), from 0 up to 1.
    """
    batch, vocab = shape_of(probabilities)
    rows = -(-vocab // COLUMNS)
    padded = tf.pad(probabilities, [[0, 0], [0, rows * COLUMNS - vocab]])
    table = tf.reshape(padded, [batch, rows, COLUMNS])
    ends = tf.cumsum(tf.reduce_sum(table, axis=-1), axis=-1)  # (batch, rows)
    aim = uniform * ends[:, -1]  # (batch,)
    row = tf.reduce_sum(tf.cast(ends <= aim[:, None], tf.int32), axis=-1)  # (batch,)
    row = tf.minimum(row, rows - 1)
    begins = tf.concat([tf.zeros([batch, 1]), ends[:, :-1]], axis=-1)  # (batch, rows)
    rest = aim - tf.gather(begins, row, batch_dims=1)  # (batch,)
    inside = tf.gather(table, row, batch_dims=1)  # (batch, COLUMNS)
    passed = tf.cumsum(inside, axis=-1) <= rest[:, None]
    # Rounding may leave the aim beyond the row's last token: take the last that is probable.
    last = tf.reduce_max(tf.where(inside > 0, tf.range(COLUMNS)[None], 0), axis=-1)
    column = tf.minimum(tf.reduce_sum(tf.cast(passed, tf.int32), axis=-1), last)
    return row * COLUMNS + column
