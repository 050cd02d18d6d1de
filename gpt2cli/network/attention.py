"""Causal attention: each position looks at itself and at what came before it.

Tensors are (batch, heads, time, head) unless said otherwise; scores are scaled by 1/√head
(Vaswani et al. 2017, section 3.2.1; openai/gpt-2, src/model.py).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from gpt2cli.network import xla_clusters

# Queries are taken in blocks of this many, each against the keys up to its end: nearly half of the
# square of scores is never computed. One program has few, or XLA is long about it, and a GPU would
# wait between many; where products are a CPU's own, smaller ones are as fast and leave out more.
QUERY_BLOCK, CPU_QUERY_BLOCK = 256, 128
# Large enough to vanish in a softmax, small enough for float16's range.
MASKED = -3e4


# c_attn's product (batch, time, 3 * embed), its bias, the number of heads → what each position
# attends to, (batch, time, embed).
Attend = Callable[[Any, Any, int], Any]


def over_heads(attend: Callable[[Any, Any, Any], Any]) -> Attend:
    """Returns an attention over c_attn's product from one over queries, keys and values.

    Args:
        attend: (query, key, value) → what each position attends to, all (batch, heads, time, head).
    """

    def attended(product: Any, bias: Any, n_head: int) -> Any:
        return merge_heads(attend(*heads_of(xla_clusters.biased(product, bias), n_head)))

    return attended


def self_attention(query: Any, key: Any, value: Any, *, lean: bool = False) -> Any:
    """Returns the values that each position attends to, itself and all before it; differentiable.

    Args:
        query: (batch, heads, time, head).
        key: like query.
        value: like query.
        lean: whether each block's shares are computed again on the way back, and not kept for it.

    Returns:
        (batch, heads, time, head).
    """

    def attended(query: Any, key: Any, value: Any) -> tuple[Any, Callable[[Any], Any]]:
        scaled = query * scale_of(query)
        blocks = query_blocks(query.shape[2])
        shares = [causal_shares(scaled[:, :, start:end], key[:, :, :end]) for start, end in blocks]
        parts = [
            tf.matmul(share, value[:, :, :end])
            for share, (_, end) in zip(shares, blocks, strict=True)
        ]
        found = tf.concat(parts, axis=2)
        kept = [None if lean else share for share in shares]
        heads = scaled, key, value
        return found, lambda upstream: attention_gradient(heads, kept, found, upstream)

    return tf.custom_gradient(attended)(query, key, value)


causal = over_heads(self_attention)
lean_causal = over_heads(functools.partial(self_attention, lean=True))


def attention_gradient(
    heads: Sequence[Any], shares: Sequence[Any], found: Any, upstream: Any
) -> Any:
    """Returns the gradients of `self_attention`.

    That of a softmax is p · (dp - Σ p · dp); and Σ p · dp over a position's shares is Σ o · do over
    its output, which is far shorter (Dao et al. 2022, appendix B.2).

    Args:
        heads: query, scaled, key and value, each (batch, heads, time, head).
        shares: how much each block's queries attend to the keys up to its end; None: not kept.
        found: (batch, heads, time, head), what came out.
        upstream: like found, its gradient.

    Returns:
        (batch, heads, time, head), three times: of query, key and value.
    """
    # Not before upstream is there, lest slices of the way forward be kept for the way back.
    query, key, value = xla_clusters.later(heads, upstream)
    common = row_products(upstream, found)  # (batch, heads, time, 1)
    of_query: list[Any] = []
    of_key, of_value = [], []
    for share, (start, end) in zip(shares, query_blocks(query.shape[2]), strict=True):
        # One after another, so that only one block's gradients are held.
        before = of_query[-1] if of_query else common
        block, of_block = xla_clusters.later(
            [query[:, :, start:end], upstream[:, :, start:end]], before
        )  # (batch, heads, block, head)
        if share is None:
            share = causal_shares(block, key[:, :, :end])  # (batch, heads, block, end)
        of_shares = tf.matmul(of_block, value[:, :, :end], transpose_b=True)
        of_scores = scores_gradient(share, of_shares, common[:, :, start:end])
        of_query.append(tf.matmul(of_scores, key[:, :, :end]))
        of_key.append(tf.matmul(of_scores, block, transpose_a=True))
        of_value.append(tf.matmul(share, of_block, transpose_a=True))
    return heads_gradients(of_query, of_key, of_value)


def query_blocks(time: int) -> list[tuple[int, int]]:
    """Returns where each block of queries begins and ends."""
    size = (
        CPU_QUERY_BLOCK if xla_clusters.are_apart() and not xla_clusters.on_gpu() else QUERY_BLOCK
    )
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


@xla_clusters.compiled
def masked(scores: Any) -> Any:
    """Returns float32 scores, (batch, heads, queries, keys), without those of later positions."""
    queries, keys = scores.shape[-2:]
    seen = tf.range(keys)[None, :] <= tf.range(keys - queries, keys)[:, None]  # (queries, keys)
    return tf.where(seen, tf.cast(scores, tf.float32), MASKED)


@xla_clusters.compiled
def row_products(left: Any, right: Any) -> Any:
    """Returns float32 (batch, heads, time, 1): the scalar product of each two rows."""
    products = tf.cast(left, tf.float32) * tf.cast(right, tf.float32)
    return tf.reduce_sum(products, axis=-1, keepdims=True)


@xla_clusters.compiled
def scores_gradient(shares: Any, of_shares: Any, common: Any) -> Any:
    """Returns the gradient of a softmax's scores from that of the shares, and their mean of it."""
    wide = tf.cast(shares, tf.float32) * (tf.cast(of_shares, tf.float32) - common)
    return tf.cast(wide, of_shares.dtype)


@xla_clusters.compiled
def heads_gradients(of_query: list[Any], of_key: list[Any], of_value: list[Any]) -> Any:
    """Returns what `attention_gradient` does, from each block's share in it.

    Args:
        of_query: (batch, heads, block, head), of scaled queries.
        of_key: (batch, heads, end, head): of the keys up to the block's end.
        of_value: like of_key.
    """
    queries = tf.concat(of_query, axis=2) * scale_of(of_query[0])
    return queries, summed(of_key), summed(of_value)


def summed(parts: list[Any]) -> Any:
    """Returns the sum of parts of (batch, heads, end, head), each of which begins at 0."""
    ends = [0, *(part.shape[2] for part in parts)]
    spans = enumerate(itertools.pairwise(ends))
    sums = [tf.add_n([x[:, :, start:end] for x in parts[n:]]) for n, (start, end) in spans]
    return tf.concat(sums, axis=2)


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


@xla_clusters.compiled
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
