"""LoRA: low-rank adapters, which are trained instead of the matrices of the blocks.

A frozen matrix W of (width, columns) gets A of (width, rank) and B of (rank, columns) beside it; it
counts as W + scale · A · B (Hu et al. 2021, section 4.1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import tensorflow as tf

from gpt2cli.arrays import Tensor, Weights
from gpt2cli.hparams import LORA_A, LORA_B, LORA_SCALE, HParams


def correction(x: Tensor, weights: Weights, name: str) -> Tensor:
    """(rows, width) → (rows, columns): what a matrix's adapter adds to its product with x.

    The weights are a block's, by their names below `model/hN/`; the matrix's is the given one.
    """
    low_rank = tf.matmul(x, tf.cast(weights[name + LORA_A], x.dtype))  # (rows, rank)
    added = tf.matmul(low_rank, tf.cast(weights[name + LORA_B], x.dtype))  # (rows, columns)
    return added * tf.cast(weights[LORA_SCALE], x.dtype)


def new_adapters(
    hparams: HParams, rank: int, alpha: float, seed: int
) -> Iterator[tuple[str, Tensor]]:
    """Yields adapters that change nothing yet, float32, by name; the same seed gives the same.

    A is drawn from a normal distribution and B is zero; the scale is alpha / rank.
    """
    for number, (name, shape) in enumerate(hparams.lora_shapes(rank).items()):
        if name == LORA_SCALE:
            yield name, tf.constant(alpha / rank)
        elif name.endswith(LORA_B):
            yield name, tf.zeros(shape)
        else:
            deviation = 1 / math.sqrt(3 * shape[0])
            yield name, tf.random.stateless_normal(shape, [seed, number], stddev=deviation)
