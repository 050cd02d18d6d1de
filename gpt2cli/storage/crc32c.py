"""CRC-32C (Castagnoli), the checksum in TensorFlow's checkpoints, fast enough for gigabytes.

The library of the extra `fast` has it from the processor's own instruction. Without it: a CRC is
linear, so those of many pieces are computed side by side, each one is shifted by the length of what
follows it, and all are added up. Source of polynomial and mask: LevelDB's util/crc32c.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np

Numbers = np.ndarray[Any, np.dtype[np.uint32]]

POLYNOMIAL = 0x82F63B78
MASK_DELTA = 0xA282EAD8
ONES = 0xFFFFFFFF
# How many pieces are computed side by side, a power of two; and their length, which is none, as
# words that lie a power of two apart share a few places of the processor's cache.
PIECES = 1 << 12
PIECE_BYTES = 1088
# Below this length (bytes) a loop in Python is faster.
SHORT_BYTES = 1 << 12
CHUNK_BYTES = PIECES * PIECE_BYTES


def masked(data: bytes | memoryview) -> int:
    """Returns the CRC-32C of bytes as checkpoints store it."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + MASK_DELTA) & ONES


def crc32c(data: bytes | memoryview) -> int:
    """Returns the CRC-32C of bytes."""
    whole = np.frombuffer(data, np.uint8)
    if (fast := library()) is not None:
        return int(fast.value(whole))
    if len(data) < SHORT_BYTES:
        return bytewise(data)
    crc = np.array([ONES], np.uint32)
    for start in range(0, whole.size, CHUNK_BYTES):
        chunk = whole[start : start + CHUNK_BYTES]
        crc = shifted(crc, chunk.size) ^ remainder(chunk)
    return int(crc[0]) ^ ONES


@functools.cache
def library() -> Any:
    """Returns google-crc32c where it is installed with its compiled part, else None."""
    with warnings.catch_warnings():
        # It warns where that part is missing.
        warnings.simplefilter("ignore")
        try:
            import google_crc32c
        except ImportError:
            return None
    return google_crc32c if google_crc32c.implementation == "c" else None


def bytewise(data: bytes | memoryview) -> int:
    """Returns the CRC-32C of a few bytes, one after the other."""
    table = byte_table()
    crc = ONES
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ ONES


def remainder(chunk: np.ndarray[Any, np.dtype[np.uint8]]) -> Numbers:
    """Returns the CRC of up to CHUNK_BYTES bytes (uint8), begun at zero, as an array of one."""
    count = 1 << ((chunk.size - 1) // PIECE_BYTES).bit_length()
    # Zeros in front of the bytes change nothing.
    padded = np.zeros(count * PIECE_BYTES, np.uint8)
    padded[padded.size - chunk.size :] = chunk
    words = np.ascontiguousarray(padded.view("<u4").reshape(count, -1).T)  # (words, pieces)
    low, high = word_tables()
    crc, of_low, of_high = (np.zeros(count, np.uint32) for _ in range(3))
    halves = crc.view("<u2").reshape(count, 2)
    for word in words:
        crc ^= word
        # Into arrays that are there, and without a check of what cannot be beyond the table.
        np.take(low, halves[:, 0], out=of_low, mode="wrap")
        np.take(high, halves[:, 1], out=of_high, mode="wrap")
        np.bitwise_xor(of_low, of_high, out=crc)
    length = PIECE_BYTES
    while crc.size > 1:
        crc = shifted(crc[0::2], length) ^ crc[1::2]
        length *= 2
    return crc


def shifted(crc: Numbers, length: int) -> Numbers:
    """Returns CRCs as so many zero bytes behind their data would leave them."""
    power = 0
    while length >> power:
        if length >> power & 1:
            crc = applied(shift(power), crc)
        power += 1
    return crc


def applied(matrix: Numbers, vectors: Numbers) -> Numbers:
    """Returns the products of a matrix of bits, its columns as numbers, and vectors of bits."""
    result = np.zeros_like(vectors)
    for bit in range(32):
        result ^= (vectors >> np.uint32(bit) & np.uint32(1)) * matrix[bit]
    return result


@functools.cache
def shift(power: int) -> Numbers:
    """Returns the matrix of 2 ** power zero bytes."""
    if power:
        half = shift(power - 1)
        return applied(half, half)
    crc = np.uint32(1) << np.arange(32, dtype=np.uint32)
    for _ in range(8):
        crc = crc >> np.uint32(1) ^ (crc & np.uint32(1)) * np.uint32(POLYNOMIAL)
    return crc


@functools.cache
def byte_table() -> list[int]:
    """Returns what one zero byte makes of every value of a CRC's lowest byte."""
    return [int(crc) for crc in applied(shift(0), np.arange(256, dtype=np.uint32))]


@functools.cache
def word_tables() -> tuple[Numbers, Numbers]:
    """Returns what four zero bytes make of every low half of a CRC, and of every high half."""
    halves = np.arange(1 << 16, dtype=np.uint32)
    return applied(shift(2), halves), applied(shift(2), halves << np.uint32(16))
