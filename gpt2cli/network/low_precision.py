"""Weights that are only read, held as narrow as is asked, by rows that are read in order.

A matrix of (width, columns) is held as (columns, width): a product with few rows then reads it
from one end to the other. In int8 each row has a scale of its own, by which it fills the type's
range (only weights are int8; what they are multiplied with stays float32).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from gpt2cli.arrays import Tensor, Weights
from gpt2cli.network import xla_clusters
from gpt2cli.network.rounding import quantize_rows

# What follows the name of a quantized weight: its rows, and the scale of each.
ROWS, SCALE = "/rows", "/scale"
EMBEDDING = "model/wte"


def cast_weights(arrays: Iterable[tuple[str, Tensor]], precision: str) -> dict[str, Tensor]:
    """Returns variables for float32 weights, by OpenAI's names; the large ones in a precision.

    That is float32 (all as they are), bfloat16, float16 or int8.
    """
    weights: dict[str, Tensor] = {}
    for name, array in arrays:
        if precision == "float32" or not (name == EMBEDDING or len(array.shape) == 3):
            weights[name] = tf.Variable(array, trainable=False)
            continue
        rows = np.asarray(array)
        if name != EMBEDDING:
            rows, name = np.ascontiguousarray(rows[0].T), name + ROWS
        if precision == "int8":
            rows, scale = quantize_rows(rows)
            weights[name + SCALE] = tf.Variable(scale, trainable=False)
        kind = tf.as_dtype(precision)
        weights[name] = tf.Variable(tf.cast(rows, kind), trainable=False, dtype=kind)
    return weights


def matmul(x: Tensor, weights: Weights, name: str) -> Tensor:
    """(many, width) → (many, columns): x times the matrix whose rows are held under a name.

    Its rows are (columns, width); the name is as in `attn/c_attn/w/rows`, or `model/wte`.
    """
    rows, scale = weights[name], weights.get(name + SCALE)
    if scale is not None:
        return mixed_matmul(x, rows) * tf.cast(scale, x.dtype)
    if rows.dtype == tf.float16 and x.shape[0] == 1 and xla_clusters.is_clustering():
        return mixed_matmul(x, rows)
    kind = rows.dtype if rows.dtype in (tf.bfloat16, tf.float16) else x.dtype
    found = tf.matmul(tf.cast(x, kind), tf.cast(rows, kind), transpose_b=True)
    return tf.cast(found, x.dtype)


@xla_clusters.cluster
def mixed_matmul(x: Tensor, rows: Tensor) -> Tensor:
    """Returns (many, columns): x times narrow rows, which XLA widens as it reads them."""
    return tf.matmul(x, tf.cast(rows, x.dtype), transpose_b=True)


def is_half(weights: Weights) -> bool:
    """Returns whether weights are held in bfloat16 or float16."""
    return weights[EMBEDDING].dtype in (tf.bfloat16, tf.float16)


def dequantize(weights: Weights, name: str, places: Tensor = None) -> Tensor:
    """Returns the rows under a name, as `model/wte`, as float32 (rows, width).

    If places are given, int32 of any shape, those of them: (…, width).
    """
    rows, scale = weights[name], weights.get(name + SCALE)
    if places is not None:
        # Gathered from the variable itself, every later read of it would be a copy.
        read = tf.convert_to_tensor(rows)
        rows, scale = tf.gather(read, places), None if scale is None else tf.gather(scale, places)
    found = tf.cast(rows, tf.float32)
    return found if scale is None else found * tf.expand_dims(scale, -1)
