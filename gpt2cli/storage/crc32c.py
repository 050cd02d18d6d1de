"""CRC-32C (Castagnoli), masked: the checksum in TensorFlow's checkpoints.

google-crc32c, of the extra `fast`, has it from the processor's own instruction. If it is missing, a
table does for an index, and TensorFlow itself for the tensors: it puts the same masked checksum
behind every record that it writes. Source of polynomial and mask: LevelDB's util/crc32c.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import warnings
from types import ModuleType

from gpt2cli.runtime import tensorflow

POLYNOMIAL = 0x82F63B78
MASK_DELTA = 0xA282EAD8
ONES = 0xFFFFFFFF
# Below this length (bytes) the table takes less time than loading TensorFlow: an index is shorter.
SHORT_BYTES = 1 << 20
CRC_BYTES = 4
# Several threads read tensors, and only one may load TensorFlow.
LOADING = threading.Lock()


def masked(data: bytes | memoryview) -> int:
    """Returns the CRC-32C of bytes as checkpoints store it."""
    if (fast := library()) is not None:
        # Loading it would slow the start of commands that read no weights.
        import numpy as np

        return mask(int(fast.value(np.frombuffer(data, np.uint8))))
    return mask(bytewise(data)) if len(data) < SHORT_BYTES else by_tensorflow(data)


def mask(crc: int) -> int:
    """Returns a CRC as it is stored beside data that may hold CRCs itself."""
    return ((crc >> 15 | crc << 17) + MASK_DELTA) & ONES


@functools.cache
def library() -> ModuleType | None:
    """Returns google-crc32c if it is installed with its compiled part, else None."""
    with warnings.catch_warnings():
        # It warns if that part is missing.
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


@functools.cache
def byte_table() -> list[int]:
    """Returns what one zero byte makes of every value of a CRC's lowest byte."""
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = crc >> 1 ^ (crc & 1) * POLYNOMIAL
        table.append(crc)
    return table


def by_tensorflow(data: bytes | memoryview) -> int:
    """Returns the masked CRC-32C that TensorFlow writes at the end of a record of these bytes."""
    with LOADING:
        if "tensorflow" not in sys.modules:
            tensorflow.load(verbose=False, keep_compiled=True)
    import tensorflow as tf

    try:
        with tensorflow.memory_file() as file:
            with tf.io.TFRecordWriter(f"/dev/fd/{file.fileno()}") as writer:
                writer.write(bytes(data))
            file.seek(-CRC_BYTES, os.SEEK_END)
            return int.from_bytes(file.read(CRC_BYTES), "little")
    # Not every system gives files in memory, nor shows them under /dev/fd.
    except (OSError, tf.errors.OpError):
        return mask(bytewise(data))
