"""float32 weights made narrower, in NumPy."""

from __future__ import annotations

import numpy as np

from gpt2cli.arrays import Array

INT8_MOST = 127
# Rounding could turn a NaN's bits into those of infinity or zero, so NaN is set by itself.
BFLOAT16_NAN = np.uint16(0x7FC0)


def quantize_rows(rows: Array) -> tuple[Array, Array]:
    """Returns rows as int8, and float32 (rows,): what each row is to be multiplied by."""
    most = np.maximum(rows.max(axis=1), -rows.min(axis=1))
    scale = np.where(most > 0, most / INT8_MOST, 1.0).astype(np.float32)
    scaled = rows / scale[:, None]
    return np.rint(scaled, out=scaled).astype(np.int8), scale


def to_bfloat16_bits(rows: Array) -> Array:
    """Returns float32 rows as bfloat16's bits, uint16, rounded to the nearest, ties to even."""
    bits = rows.view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(rows), BFLOAT16_NAN, rounded)
