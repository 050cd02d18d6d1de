"""Causal attention: each position looks at itself and at what came before it.

Tensors are (batch, heads, time, head) unless said otherwise; scores are scaled by 1/√head
(Vaswani et al. 2017, section 3.2.1; openai/gpt-2, src/model.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from gpt2cli.network import pieces

# Queries are taken in blocks of this many, each against the keys up to its end: nearly half of the
# square of scores is never computed. One program has few, or XLA is long about it; where products
# are TensorFlow's, smaller ones are as fast and leave out more.
QUERY_BLOCK, APART_QUERY_BLOCK = 256, 128
# Large enough to vanish in a softmax, small enough for float16's range.
MASKED = -3e4


def self_attention(mixed: Any, n_head: int) -> Any:
    """Returns the values that each position attends to, itself and all before it; differentiable.

    Args:
        mixed: (batch, time, 3 * embed): query, key and value of every head.
        n_head: how many heads.

    Returns:
        (batch, time, embed).
    """

    def attended(mixed: Any) -> tuple[Any, Callable[[Any], Any]]:
        query, key, value = scaled_heads(mixed, n_head)
        blocks = [
            tf.matmul(causal_shares(query[:, :, start:end], key[:, :, :end]), value[:, :, :end])
            for start, end in query_blocks(mixed.shape[1])
        ]
        found = merge_heads(tf.concat(blocks, axis=2))
        return found, lambda upstream: attention_gradient(mixed, found, upstream, n_head)

    return tf.custom_gradient(attended)(mixed)


def attention_gradient(mixed: Any, found: Any, upstream: Any, n_head: int) -> Any:
    """Returns the gradient of `self_attention`, for which each block's shares are computed again.

    The gradient of a softmax is p · (dp - Σ p · dp); and Σ p · dp over a position's shares is
    Σ o · do over its output, which is far shorter (Dao et al. 2022, appendix B.2).

    Args:
        mixed: (batch, time, 3 * embed), what went in.
        found: (batch, time, embed), what came out.
        upstream: like found, its gradient.
        n_head: how many heads.

    Returns:
        Like mixed.
    """
    (mixed,) = pieces.later([mixed], upstream)
    query, key, value = scaled_heads(mixed, n_head)
    of_found = split_heads(upstream, n_head)  # (batch, heads, time, head)
    common = row_products(of_found, split_heads(found, n_head))  # (batch, heads, time, 1)
    of_query: list[Any] = []
    of_key, of_value = [], []
    for start, end in query_blocks(mixed.shape[1]):
        # One after another, so that only one block's shares are held.
        before = of_query[-1] if of_query else common
        block, of_block = pieces.later(
            [query[:, :, start:end], of_found[:, :, start:end]], before
        )  # (batch, heads, block, head)
        shares = causal_shares(block, key[:, :, :end])  # (batch, heads, block, end)
        of_shares = tf.matmul(of_block, value[:, :, :end], transpose_b=True)
        of_scores = scores_gradient(shares, of_shares, common[:, :, start:end])
        of_query.append(tf.matmul(of_scores, key[:, :, :end]))
        of_key.append(tf.matmul(of_scores, block, transpose_a=True))
        of_value.append(tf.matmul(shares, of_block, transpose_a=True))
    return mixed_gradient(of_query, of_key, of_value)


def query_blocks(time: int) -> list[tuple[int, int]]:
    """Returns where each block of queries begins and ends."""
    size = APART_QUERY_BLOCK if pieces.are_apart() else QUERY_BLOCK
    return [(start, min(start + size, time)) for start in range(0, time, size)]


def causal_shares(query: Any, key: Any) -> Any:
    """Returns how much each of the last positions attends to those up to it.

    Args:
        query: (batch, heads, queries, head), scaled.
        key: (batch, heads, keys, head); the last one is of the last query.

    Returns:
        (batch, heads, queries, keys).
    """
    scores = masked(tf.matmul(query, key, transpose_b=True))
    return tf.cast(tf.nn.softmax(scores), query.dtype)


@pieces.compiled
def masked(scores: Any) -> Any:
    """Returns float32 scores, (batch, heads, queries, keys), without those of later positions."""
    queries, keys = scores.shape[-2:]
    seen = tf.range(keys)[None, :] <= tf.range(keys - queries, keys)[:, None]  # (queries, keys)
    return tf.where(seen, tf.cast(scores, tf.float32), MASKED)


@pieces.compiled
def row_products(left: Any, right: Any) -> Any:
    """Returns float32 (batch, heads, time, 1): the scalar product of each two rows."""
    products = tf.cast(left, tf.float32) * tf.cast(right, tf.float32)
    return tf.reduce_sum(products, axis=-1, keepdims=True)


@pieces.compiled
def scores_gradient(shares: Any, of_shares: Any, common: Any) -> Any:
    """Returns the gradient of a softmax's scores from that of the shares, and their mean of it."""
    wide = tf.cast(shares, tf.float32) * (tf.cast(of_shares, tf.float32) - common)
    return tf.cast(wide, of_shares.dtype)


@pieces.compiled
def mixed_gradient(of_query: list[Any], of_key: list[Any], of_value: list[Any]) -> Any:
    """Returns (batch, time, 3 * embed) from each block's share in it.

    Args:
        of_query: (batch, heads, block, head), of scaled queries.
        of_key: (batch, heads, end, head): of the keys up to the block's end.
        of_value: like of_key.
    """
    queries = tf.concat(of_query, axis=2) * scale_of(of_query[0])
    return tf.concat([merge_heads(x) for x in (queries, summed(of_key), summed(of_value))], axis=-1)


def summed(parts: list[Any]) -> Any:
    """Returns the sum of parts of (batch, heads, end, head), each of which begins at 0."""
    time = parts[-1].shape[2]
    return tf.add_n([tf.pad(x, [[0, 0], [0, 0], [0, time - x.shape[2]], [0, 0]]) for x in parts])


def scaled_heads(mixed: Any, n_head: int) -> tuple[Any, Any, Any]:
    """(batch, time, 3 * embed) → query, scaled by 1/√head, key and value."""
    query, key, value = heads_of(mixed, n_head)
    return query * scale_of(query), key, value


def scale_of(query: Any) -> Any:
    """Returns what scores are multiplied by, in the queries' precision."""
    return tf.cast(query.shape[-1] ** -0.5, query.dtype)


def padded_attention(query: Any, key: Any, value: Any, first: Any) -> Any:
    """Returns the values that each position attends to, where rows begin with padding.

    Args:
        query: (batch, heads, time, head).
        key: like query.
        value: like query.
        first: (batch,) int32, each row's first position that holds a token.

    Returns:
        (batch, heads, time, head).
    """
    blocks = []
    for start, end in query_blocks(query.shape[2]):
        causal = tf.range(end)[None, :] <= tf.range(start, end)[:, None]  # (block, end)
        begun = tf.range(end)[None, :] >= first[:, None]  # (batch, end)
        seen = causal[None, None] & begun[:, None, None]  # (batch, 1, block, end)
        blocks.append(attend(query[:, :, start:end], key[:, :, :end], value[:, :, :end], seen))
    return blocks[0] if len(blocks) == 1 else tf.concat(blocks, axis=2)


@pieces.compiled
def cached_attention(query: Any, key: Any, value: Any, first: Any, last: Any) -> Any:
    """Returns the values that one new position attends to, among those seen before.

    Args:
        query: (batch, heads, 1, head).
        key: (batch, heads, slots, head), filled up to `last`.
        value: like key.
        first: (batch,) int32, each row's first slot that holds a token.
        last: int32, the slot of the new position.

    Returns:
        (batch, heads, 1, head).
    """
    slots = tf.range(key.shape[2])
    seen = (slots[None, :] >= first[:, None]) & (slots[None, :] <= last)  # (batch, slots)
    return attend(query, key, value, seen[:, None, None])


def attend(query: Any, key: Any, value: Any, seen: Any) -> Any:
    """Returns softmax(query · keyᵀ / √head) · value over the positions that are seen.

    Args:
        query: (batch, heads, queries, head).
        key: (batch, heads, keys, head).
        value: like key.
        seen: bool, broadcast to (batch, heads, queries, keys).

    Returns:
        (batch, heads, queries, head).
    """
    scores = tf.matmul(
        query * scale_of(query), key, transpose_b=True
    )  # (batch, heads, queries, keys)
    scores = tf.where(seen, tf.cast(scores, tf.float32), MASKED)
    weights = tf.cast(tf.nn.softmax(scores), value.dtype)
    return tf.matmul(weights, value)  # (batch, heads, queries, head)


def heads_of(mixed: Any, n_head: int) -> list[Any]:
    """(batch, time, 3 * embed) → query, key and value, each (batch, heads, time, head)."""
    return [split_heads(part, n_head) for part in tf.split(mixed, 3, axis=-1)]


def split_heads(x: Any, n_head: int) -> Any:
    """(batch, time, embed) → (batch, heads, time, head)."""
    batch, time, embed = lengths_of(x)
    x = tf.reshape(x, [batch, time, n_head, embed // n_head])  # (batch, time, heads, head)
    return tf.transpose(x, [0, 2, 1, 3])


def merge_heads(x: Any) -> Any:
    """(batch, heads, time, head) → (batch, time, embed)."""
    batch, heads, time, head = lengths_of(x)
    x = tf.transpose(x, [0, 2, 1, 3])  # (batch, time, heads, head)
    return tf.reshape(x, [batch, time, heads * head])


def lengths_of(x: Any) -> list[Any]:
    """Returns the lengths of a tensor's axes: numbers where the graph knows them, else tensors."""
    return [tf.shape(x)[axis] if n is None else n for axis, n in enumerate(x.shape)]
