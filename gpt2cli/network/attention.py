"""Causal attention: each position looks at itself and at what came before it.

Tensors are (batch, heads, time, head) unless said otherwise; scores are scaled by 1/√head
(Vaswani et al. 2017, section 3.2.1; openai/gpt-2, src/model.py).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence

import tensorflow as tf

from gpt2cli.arrays import Tensor
from gpt2cli.network import xla_clusters

# Queries are taken in blocks of this many, each against the keys up to its end: nearly half of the
# square of scores is never computed. XLA compiles many blocks slowly, and a GPU would wait between
# them; if TensorFlow multiplies on a CPU, smaller blocks are as fast and leave out more.
QUERY_BLOCK, CPU_QUERY_BLOCK = 256, 128
# Large enough to vanish in a softmax, small enough for float16's range.
MASKED = -3e4

# c_attn's product (batch, time, 3 * embed), its bias, the number of heads → what each position
# attends to, (batch, time, embed).
Attend = Callable[[Tensor, Tensor, int], Tensor]
Gradient = Callable[[Tensor], Tensor]


def over_heads(attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Attend:
    """Returns an attention over c_attn's product from one over queries, keys and values."""

    def attended(product: Tensor, bias: Tensor, n_head: int) -> Tensor:
        """Attends within each head, and puts the heads together."""
        return merge_heads(attend(*split_qkv(xla_clusters.add_bias(product, bias), n_head)))

    return attended


def self_attention(query: Tensor, key: Tensor, value: Tensor, *, recompute: bool = False) -> Tensor:
    """Returns the values that each position attends to, itself and all before it; differentiable.

    All are (batch, heads, time, head). With `recompute` the backward pass computes the
    probabilities again, which are then not kept.
    """

    def attended(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Gradient]:
        """Returns the values attended to, and what gives their gradients."""
        scaled = query * score_scale(query)
        blocks = query_blocks(query.shape[2])

        def forward() -> list[Tensor]:
            """Returns the values, and each block's probabilities."""
            probabilities = [
                causal_probabilities(scaled[:, :, start:end], key[:, :, :end])
                for start, end in blocks
            ]  # (batch, heads, block, end), each
            parts = [
                tf.matmul(block, value[:, :, :end])
                for block, (_, end) in zip(probabilities, blocks, strict=True)
            ]  # (batch, heads, block, head), each
            return [tf.concat(parts, axis=2), *probabilities]

        found, *probabilities = xla_clusters.keep(forward)  # (batch, heads, time, head), …
        kept = [None if recompute else block for block in probabilities]
        heads = scaled, key, value
        return found, lambda upstream: attention_gradient(heads, kept, found, upstream)

    return xla_clusters.custom_gradient(attended, query, key, value)


causal = over_heads(self_attention)
recomputed_causal = over_heads(functools.partial(self_attention, recompute=True))


def attention_gradient(
    heads: Sequence[Tensor], probabilities: Sequence[Tensor], found: Tensor, upstream: Tensor
) -> Tensor:
    """Returns the gradients of `self_attention`, of query, key and value.

    That of a softmax is p · (dp - Σ p · dp); and Σ p · dp over a position's probabilities is
    Σ o · do over its output, which is far shorter (Dao et al. 2022, appendix B.2).

    Args:
        heads: query (scaled), key and value, each (batch, heads, time, head).
        probabilities: of each block, (batch, heads, block, end); None: recompute them.
        found: the output, of the same shape as each of the heads; so is each gradient.
        upstream: like found, its gradient.
    """
    # Not before upstream is there, lest the forward pass keep its slices for the backward pass.
    query, key, value = xla_clusters.with_dependencies(heads, upstream)
    common = row_dots(upstream, found)  # (batch, heads, time, 1)
    of_query: list[Tensor] = []
    of_key, of_value = [], []
    for kept, (start, end) in zip(probabilities, query_blocks(query.shape[2]), strict=True):
        # One after another, so that only one block's gradients are held.
        rows = query[:, :, start:end], upstream[:, :, start:end]  # (batch, heads, block, head)
        block, of_block = xla_clusters.with_dependencies(rows, of_query[-1:] or common)
        p = causal_probabilities(block, key[:, :, :end]) if kept is None else kept
        of_p = tf.matmul(of_block, value[:, :, :end], transpose_b=True)  # as p
        of_scores = softmax_gradient(p, of_p, common[:, :, start:end])
        of_query.append(tf.matmul(of_scores, key[:, :, :end]))  # (batch, heads, block, head)
        of_key.append(tf.matmul(of_scores, block, transpose_a=True))  # (batch, heads, end, head)
        of_value.append(tf.matmul(p, of_block, transpose_a=True))  # (batch, heads, end, head)
    return join_gradients(of_query, of_key, of_value)


def query_blocks(time: int) -> list[tuple[int, int]]:
    """Returns where each block of queries begins and ends."""
    size = CPU_QUERY_BLOCK if xla_clusters.is_clustering("cpu") else QUERY_BLOCK
    return [(start, min(start + size, time)) for start in range(0, time, size)]


def causal_probabilities(query: Tensor, key: Tensor) -> Tensor:
    """Returns the attention probabilities, (batch, heads, queries, keys), of the last positions.

    Queries, (batch, heads, queries, head), are scaled; keys, (batch, heads, keys, head), end with
    the last query's.
    """
    scores = mask_scores(tf.matmul(query, key, transpose_b=True))
    return tf.cast(tf.nn.softmax(scores), query.dtype)


@xla_clusters.cluster
def mask_scores(scores: Tensor) -> Tensor:
    """Returns float32 scores, (batch, heads, queries, keys), without those of later positions."""
    queries, keys = scores.shape[-2:]
    seen = tf.range(keys)[None, :] <= tf.range(keys - queries, keys)[:, None]  # (queries, keys)
    return tf.where(seen, tf.cast(scores, tf.float32), MASKED)


@xla_clusters.cluster
def row_dots(left: Tensor, right: Tensor) -> Tensor:
    """Returns float32 (batch, heads, time, 1): the scalar product of each two rows."""
    products = tf.cast(left, tf.float32) * tf.cast(right, tf.float32)
    return tf.reduce_sum(products, axis=-1, keepdims=True)


@xla_clusters.cluster
def softmax_gradient(p: Tensor, of_p: Tensor, common: Tensor) -> Tensor:
    """Returns the gradient of the scores: p · (dp - Σ p · dp), with the sum in `common`."""
    product = tf.cast(p, tf.float32) * (tf.cast(of_p, tf.float32) - common)
    return tf.cast(product, of_p.dtype)


@xla_clusters.cluster
def join_gradients(of_query: list[Tensor], of_key: list[Tensor], of_value: list[Tensor]) -> Tensor:
    """Returns what `attention_gradient` does, from the parts of all blocks.

    Those of scaled queries are (batch, heads, block, head), those of keys and values
    (batch, heads, end, head): up to the block's end.
    """
    queries = tf.concat(of_query, axis=2) * score_scale(of_query[0])
    return queries, sum_blocks(of_key), sum_blocks(of_value)


def sum_blocks(parts: list[Tensor]) -> Tensor:
    """Returns the sum of parts of (batch, heads, end, head), each of which begins at 0."""
    ends = [0, *(part.shape[2] for part in parts)]
    spans = enumerate(itertools.pairwise(ends))
    sums = [tf.add_n([x[:, :, start:end] for x in parts[n:]]) for n, (start, end) in spans]
    return tf.concat(sums, axis=2)


def score_scale(query: Tensor) -> Tensor:
    """Returns 1/√head, in the precision of the queries."""
    return tf.cast(query.shape[-1] ** -0.5, query.dtype)


def padded_attention(query: Tensor, key: Tensor, value: Tensor, first: Tensor) -> Tensor:
    """Returns the values that each position attends to, for rows that begin with padding.

    All are (batch, heads, time, head), but `first`: int32 (batch,), each row's first position that
    holds a token.
    """
    blocks = []
    for start, end in query_blocks(query.shape[2]):
        causal = tf.range(end)[None, :] <= tf.range(start, end)[:, None]  # (block, end)
        begun = tf.range(end)[None, :] >= first[:, None]  # (batch, end)
        seen = causal[None, None] & begun[:, None, None]  # (batch, 1, block, end)
        blocks.append(attend(query[:, :, start:end], key[:, :, :end], value[:, :, :end], seen))
    return blocks[0] if len(blocks) == 1 else tf.concat(blocks, axis=2)


@xla_clusters.cluster
def cached_attention(
    query: Tensor, key: Tensor, value: Tensor, first: Tensor, place: Tensor
) -> Tensor:
    """Returns the values that new positions attend to, themselves and those before them.

    Queries and result are (batch, heads, new, head), keys and values (batch, heads, slots, head),
    filled up to the last new position. `first`, int32 (batch,), is each row's first slot that holds
    a token, and `place`, int32, the slot of the first new position.
    """
    slots = tf.range(key.shape[2])
    before = slots[None, :] <= place + tf.range(query.shape[2])[:, None]  # (new, slots)
    seen = (slots[None, None] >= first[:, None, None]) & before  # (batch, new, slots)
    return attend(query, key, value, seen[:, None])


def attend(query: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> Tensor:
    """Returns softmax(query · keyᵀ / √head) · value over the positions that are seen.

    Queries and results are (batch, heads, queries, head), keys and values (batch, heads, keys,
    head), and `seen` is bool, broadcast to (batch, heads, queries, keys).
    """
    scaled = query * score_scale(query)
    scores = tf.matmul(scaled, key, transpose_b=True)  # (batch, heads, queries, keys)
    scores = tf.where(seen, tf.cast(scores, tf.float32), MASKED)
    weights = tf.cast(tf.nn.softmax(scores), value.dtype)
    return tf.matmul(weights, value)  # (batch, heads, queries, head)


def split_qkv(mixed: Tensor, n_head: int) -> list[Tensor]:
    """(batch, time, 3 * embed) → query, key and value, each (batch, heads, time, head)."""
    batch, time, width = shape_of(mixed)
    shape = [batch, time, n_head, width // 3 // n_head]  # (batch, time, heads, head)
    parts = tf.split(mixed, 3, axis=-1)
    return [tf.transpose(tf.reshape(part, shape), [0, 2, 1, 3]) for part in parts]


def merge_heads(x: Tensor) -> Tensor:
    """(batch, heads, time, head) → (batch, time, embed)."""
    batch, heads, time, head = shape_of(x)
    x = tf.transpose(x, [0, 2, 1, 3])  # (batch, time, heads, head)
    return tf.reshape(x, [batch, time, heads * head])


def shape_of(x: Tensor) -> list[Tensor]:
    """Returns the lengths of a tensor's axes: numbers if the graph knows them, else tensors."""
    return [tf.shape(x)[axis] if n is None else n for axis, n in enumerate(x.shape)]
