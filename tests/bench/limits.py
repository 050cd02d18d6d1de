"""What the machine can do at most: matrix products and reading memory.

    python -m tests.bench.limits

prints one line of JSON: GFLOP/s of NumPy's BLAS at the shapes that training of 124M uses, and GB/s
of reading memory with all cores.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

ROWS, EMBED, VOCAB = 1024, 768, 50257
SHAPES = [(ROWS, EMBED, 3 * EMBED), (ROWS, EMBED, 4 * EMBED), (ROWS, 4 * EMBED, EMBED)]
HEAD = (ROWS, EMBED, VOCAB)
READ_BYTES = 1 << 29


def best(work: Callable[[], object], times: int) -> float:
    """Returns the shortest of several runs (seconds)."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found)


def product_rate(rows: int, width: int, columns: int, times: int = 5) -> float:
    """Returns GFLOP/s of a matrix product in float32."""
    noise = np.random.default_rng(0)
    left = noise.standard_normal((rows, width), np.float32)
    right = noise.standard_normal((width, columns), np.float32)
    out = np.empty((rows, columns), np.float32)
    seconds = best(lambda: np.matmul(left, right, out=out), times)
    return 2 * rows * width * columns / seconds / 1e9


def read_rate() -> float:
    """Returns GB/s at which all cores together read memory."""
    cores = len(os.sched_getaffinity(0))
    parts = np.split(np.ones(READ_BYTES // 8, np.float64), cores)
    with ThreadPoolExecutor(cores) as threads:
        # The sum adds in the registers, and waits for nothing but memory.
        return READ_BYTES / best(lambda: list(threads.map(np.sum, parts)), 7) / 1e9


def measured() -> dict[str, float]:
    """Returns the limits of this machine now."""
    return {
        "matrix_gflops": sum(product_rate(*shape) for shape in SHAPES) / len(SHAPES),
        "vocabulary_gflops": product_rate(*HEAD, times=3),
        "read_gb_per_second": read_rate(),
    }


if __name__ == "__main__":
    print(json.dumps(measured()))
