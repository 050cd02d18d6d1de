"""Next-token cross-entropy without the full logits."""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf

from gpt2cli.arrays import DType, Tensor
from gpt2cli.network import xla_clusters

# Positions whose logits are held at once, usually and to save memory. At 50,257 tokens
# 256 rows of float32 take 50 MB, 4096 of bfloat16 on a GPU 400 MB.
CPU_BLOCK_ROWS, GPU_BLOCK_ROWS = (1024, 256), (4096, 1024)
BLOCK_ROWS = 256
# On a GPU a row of logits is a multiple of this long: cuBLAS is slower with rows that do not begin
# where its widest loads may (50,257 is odd).
GPU_ALIGNMENT = 64
# A long batch is cut into no more blocks than this, to keep the compiled program short.
MOST_BLOCKS = 16


def next_token_loss(
    hidden: Tensor, wte: Tensor, targets: Tensor, scale: Tensor = 1.0, block_rows: int = BLOCK_ROWS
) -> Tensor:
    """Returns the mean cross-entropy of the next tokens (nats per token), differentiable.

    The logits are computed in blocks of rows, and in the same pass the gradient of each block,
    so that the whole of (rows, vocab) is never held and no product is done twice.

    Hidden states are (rows, embed), of the type that the logits are computed in, token embeddings
    (vocab, embed), targets int32 (rows,): rows whose target is negative do not count. The gradient
    is multiplied by the scale, so that it fits a low precision. The loss is a float32 scalar.
    """
    judge = functools.partial(_loss_and_gradient, block_rows)
    return xla_clusters.custom_gradient(judge, hidden, wte, targets, scale)


def _loss_and_gradient(
    block_rows: int, hidden: Tensor, wte: Tensor, targets: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    embedding = aligned_rows(wte, hidden.dtype)
    count = tf.maximum(tf.reduce_sum(tf.cast(targets >= 0, tf.float32)), 1.0)
    total, of_hidden, of_wte = tf.zeros([]), [], tf.zeros([])
    for start, end in row_blocks(hidden.shape[0], block_rows):
        # One after another, so that only one block's logits are held.
        rows = hidden[start:end], targets[start:end]
        block, target = xla_clusters.with_dependencies(rows, of_wte)
        logits = tf.matmul(block, embedding, transpose_b=True)  # (block, vocab)
        loss, of_logits = cross_entropy_gradient(logits, target, scale / count, wte.shape[0])
        total += loss
        of_hidden.append(tf.matmul(of_logits, embedding))  # (block, embed)
        found = tf.cast(tf.matmul(of_logits, block, transpose_a=True), tf.float32)  # (vocab, embed)
        of_wte = of_wte + found if start else found
    of_rows = tf.concat(of_hidden, axis=0)  # (rows, embed)

    def gradient(upstream: Tensor) -> tuple[Any, Any, None, None]:
        """Returns the gradients of what the loss was computed of."""
        whole = tf.cast(of_wte[: wte.shape[0]] * upstream, wte.dtype)
        return of_rows * tf.cast(upstream, of_rows.dtype), whole, None, None

    return total / count, gradient


def aligned_rows(wte: Tensor, kind: DType) -> Tensor:
    """Returns token embeddings, (vocab, embed), in a type; on a GPU with rows of zeros after them.

    The columns of logits that come of those belong to no token, see GPU_ALIGNMENT.
    """
    embedding = tf.cast(wte, kind)
    missing = -wte.shape[0] % GPU_ALIGNMENT if xla_clusters.is_clustering("gpu") else 0
    return tf.pad(embedding, [[0, missing], [0, 0]]) if missing else embedding


@xla_clusters.cluster
def cross_entropy_gradient(
    logits: Tensor, targets: Tensor, scale: Tensor, n_vocab: int
) -> tuple[Tensor, Tensor]:
    """Returns the sum of the rows' cross-entropies, float32, and the gradient of their logits.

    Logits and gradient, which is multiplied by the scale, are (rows, columns), of the same type;
    only the first `n_vocab` columns are tokens'. Targets are int32 (rows,), and rows whose target
    is negative do not count.
    """
    loss, probabilities = cross_entropy(logits[:, :n_vocab], targets)  # (rows,), (rows, vocab)
    counts = tf.cast(targets >= 0, tf.float32)[:, None] * scale  # (rows, 1)
    of_logits = (probabilities - tf.one_hot(targets, n_vocab)) * counts  # (rows, vocab)
    unused = logits.shape[-1] - n_vocab
    of_logits = tf.pad(tf.cast(of_logits, logits.dtype), [[0, 0], [0, unused]])
    return tf.reduce_sum(loss), of_logits  # (rows, columns)


def token_losses(hidden: Tensor, wte: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Returns each row's cross-entropy (nats) and whether its likeliest token was the target.

    Hidden states are (rows, embed), token embeddings (vocab, embed), targets int32 (rows,): a row
    whose target is negative has the loss 0 and is not right.
    """
    embedding = aligned_rows(wte, hidden.dtype)
    found: list[tuple[Tensor, Tensor]] = []
    for start, end in row_blocks(hidden.shape[0], 2 * BLOCK_ROWS):
        rows = hidden[start:end], targets[start:end]
        block, target = xla_clusters.with_dependencies(rows, found[-1:])
        logits = tf.matmul(block, embedding, transpose_b=True)  # (block, vocab)
        found.append(losses_and_hits(logits, target, wte.shape[0]))
    losses, hits = zip(*found, strict=True)
    return tf.concat(losses, axis=0), tf.concat(hits, axis=0)


@xla_clusters.cluster
def losses_and_hits(logits: Tensor, targets: Tensor, n_vocab: int) -> tuple[Tensor, Tensor]:
    """Returns what `token_losses` does, from logits whose first `n_vocab` columns are tokens'."""
    loss, probabilities = cross_entropy(logits[:, :n_vocab], targets)
    return loss, tf.argmax(probabilities, axis=-1, output_type=tf.int32) == targets


def cross_entropy(products: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Returns each row's cross-entropy (nats), and the probabilities of all tokens, float32.

    Logits and probabilities are (rows, vocab), targets int32 (rows,) and losses (rows,): 0 if the
    target is negative.
    """
    logits = tf.cast(products, tf.float32)  # (rows, vocab)
    highest = tf.reduce_max(logits, axis=-1, keepdims=True)  # (rows, 1)
    powers = tf.exp(logits - highest)
    total = tf.reduce_sum(powers, axis=-1, keepdims=True)  # (rows, 1)
    chosen = tf.gather(logits, tf.maximum(targets, 0), batch_dims=1)  # (rows,)
    loss = (highest + tf.math.log(total))[:, 0] - chosen
    return tf.where(targets >= 0, loss, 0.0), powers / total


def seen_tokens(tokens: Tensor) -> Tensor:
    """Returns the tokens that a model reads: a negative t, which does not count, stands for ~t."""
    return tf.maximum(tokens, -1 - tokens)


def row_blocks(rows: int, block_rows: int = BLOCK_ROWS) -> list[tuple[int, int]]:
    """Returns where each block of rows begins and ends."""
    size = max(block_rows, -(-rows // MOST_BLOCKS))
    return [(start, min(start + size, rows)) for start in range(0, rows, size)]
