"""Causal attention: each position looks at itself and at what came before it.

Tensors are (batch, heads, time, head) unless said otherwise; scores are scaled by 1/√head
(Vaswani et al. 2017, section 3.2.1; openai/gpt-2, src/model.py).
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

# Queries are taken in blocks of this many, each against the keys up to its end: half of the
# square of scores is never computed.
QUERY_BLOCK = 256
# Large enough to vanish in a softmax, small enough for float16's range.
MASKED = -3e4


def causal_attention(query: Any, key: Any, value: Any, first: Any = None) -> Any:
    """Returns the values that each position attends to.

    Args:
        query: (batch, heads, time, head).
        key: like query.
        value: like query.
        first: (batch,) int32, each row's first position that holds a token; what stands before
            is padding. None where there is no padding.

    Returns:
        (batch, heads, time, head).
    """
    time = query.shape[2]
    blocks = []
    for start in range(0, time, QUERY_BLOCK):
        end = min(start + QUERY_BLOCK, time)
        seen = tf.range(end)[None, :] <= tf.range(start, end)[:, None]  # (block, end)
        if first is not None:
            begun = tf.range(end)[None, :] >= first[:, None]  # (batch, end)
            seen = seen[None, None] & begun[:, None, None]  # (batch, 1, block, end)
        blocks.append(attend(query[:, :, start:end], key[:, :, :end], value[:, :, :end], seen))
    return blocks[0] if len(blocks) == 1 else tf.concat(blocks, axis=2)


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
    scale = tf.cast(query.shape[-1] ** -0.5, query.dtype)
    scores = tf.matmul(query * scale, key, transpose_b=True)  # (batch, heads, queries, keys)
    scores = tf.where(seen, tf.cast(scores, tf.float32), MASKED)
    weights = tf.cast(tf.nn.softmax(scores), value.dtype)
    return tf.matmul(weights, value)  # (batch, heads, queries, head)


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
