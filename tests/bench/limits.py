"""What the machine can do at most: matrix products and reading memory.

    python -m tests.bench.limits

prints one line of JSON: GFLOP/s at the shapes that training of 124M uses, and GB/s of reading
memory with all cores: of far more than any cache holds, and again and again of as much as the
weights of 124M. Each is the best of what NumPy and, where it is installed, PyTorch reach.
"""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

ROWS, EMBED, VOCAB = 1024, 768, 50257
SHAPES = [(ROWS, EMBED, 3 * EMBED), (ROWS, EMBED, 4 * EMBED), (ROWS, 4 * EMBED, EMBED)]
HEAD = (ROWS, EMBED, VOCAB)
# Columns of what is read as a matrix.
WIDTH = 4096
# Far more than the caches of any machine (bytes), and the weights of 124M.
LARGE, WEIGHTS = 1 << 31, 497_759_232
MATRIX, HEAD_MATRIX = "matrix, GFLOP/s", "vocabulary, GFLOP/s"
READ, READ_WEIGHTS = "memory, GB/s", "124M's weights, GB/s"


def best(work: Callable[[], object], times: int) -> float:
    """Returns the shortest of several runs (seconds), after one that does not count."""
    work()
    found = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found)


def torch() -> Any:
    """Returns PyTorch where it is installed, else None."""
    try:
        return importlib.import_module("torch")
    except ImportError:
        return None


def product_rate(rows: int, width: int, columns: int, times: int = 5) -> float:
    """Returns GFLOP/s of a matrix product in float32."""
    noise = np.random.default_rng(0)
    left = noise.standard_normal((rows, width), np.float32)
    right = noise.standard_normal((width, columns), np.float32)
    out = np.empty((rows, columns), np.float32)
    seconds = [best(lambda: np.matmul(left, right, out=out), times)]
    if library := torch():
        one, other, into = (library.from_numpy(array) for array in (left, right, out))
        seconds.append(best(lambda: library.mm(one, other, out=into), times))
    return 2 * rows * width * columns / min(seconds) / 1e9


def read_rate(size: int, times: int = 4) -> float:
    """Returns GB/s at which all cores together read so many bytes of memory, by whatever way.

    What adds numbers up in the registers waits for nothing but memory: sums, and the product of
    one row and a matrix.
    """
    matrix = np.ones((size // 4 // WIDTH, WIDTH), np.float32)
    cores = len(os.sched_getaffinity(0))
    parts = np.array_split(matrix, cores)
    row, out = np.ones(WIDTH, np.float32), np.empty(len(matrix), np.float32)
    with ThreadPoolExecutor(cores) as threads:
        seconds = [best(lambda: list(threads.map(np.sum, parts)), times)]
    seconds.append(best(lambda: np.dot(matrix, row, out=out), times))
    if library := torch():
        # In PyTorch's own memory: where it lies makes a difference.
        there, vector = library.ones(matrix.shape), library.ones(WIDTH)
        seconds.append(best(lambda: library.mv(there, vector), times))
        seconds.append(best(there.sum, times))
    return matrix.nbytes / min(seconds) / 1e9


def measured() -> dict[str, float]:
    """Returns the limits of this machine now."""
    return {
        MATRIX: sum(product_rate(*shape) for shape in SHAPES) / len(SHAPES),
        HEAD_MATRIX: product_rate(*HEAD, times=3),
        READ: read_rate(LARGE),
        READ_WEIGHTS: read_rate(WEIGHTS, 8),
    }


if __name__ == "__main__":
    print(json.dumps(measured()))
