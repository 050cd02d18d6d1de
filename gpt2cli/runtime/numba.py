"""Loops compiled to machine code by Numba, if the extra `fast` has brought it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from gpt2cli.runtime import compile_cache

CACHE = "NUMBA_CACHE_DIR"
# All files with compiled loops. Numba notices that a file has changed, but not one it imports from.
LOOPS = (
    *("inference/cpu/vectors.py", "inference/cpu/matmul_tiles.py", "inference/cpu/amx_tiles.py"),
    *("inference/cpu/amx_rows.py", "inference/cpu/kernels.py"),
    *("inference/cpu/weighted_sums.py", "inference/cpu/attention_kernels.py"),
    "inference/cpu/sampling_kernels.py",
    "text/bpe_kernels.py",
)
# How often a thread looks for more work before it sleeps, some 25 µs. GNU's OpenMP looks for 4 ms,
# which beside another busy process is longer than it takes to be given the processor again.
SPINS, SPIN_COUNT, WAIT_POLICY = "2000", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"

Loop = TypeVar("Loop", bound=Callable[..., Any])


def is_available() -> bool:
    """Returns whether Numba can be loaded, which this does, in 0.3 s: ask only before loops run."""
    has_cache()
    if WAIT_POLICY not in os.environ:
        os.environ.setdefault(SPIN_COUNT, SPINS)
    try:
        import numba  # noqa: F401
    # A NumPy too new for it is an ImportError as well; a library that is missing, an OSError.
    except (ImportError, OSError):
        return False
    return True


def jit(**options: Any) -> Callable[[Loop], Loop]:
    """Returns a decorator by which Numba compiles a function when it is first called.

    It divides as NumPy does, and lets other threads run.
    """
    from numba import njit

    # Whatever is not said here a function inherits from the first that calls it.
    said: dict[str, Any] = {"fastmath": False, "parallel": False, **options}
    decorator: Callable[[Loop], Loop] = njit(
        error_model="numpy", nogil=True, cache=has_cache(), **said
    )
    return decorator


def compile_in_background(loops: Iterable[tuple[Any, tuple[Any, ...]]]) -> None:
    """Compiles loops for Numba types while other work is done.

    The thread that does so never takes signals, if the thread that starts it holds them.
    """

    def compile_all() -> None:
        """Compiles one loop after another."""
        for loop, types in loops:
            loop.compile(types)

    threading.Thread(target=compile_all).start()


@functools.cache
def has_cache() -> bool:
    """Returns whether Numba has a folder to keep what it compiles; else it raises if it is to."""
    if own := os.environ.get(CACHE):
        with contextlib.suppress(OSError):
            Path(own).mkdir(parents=True, exist_ok=True)
        return compile_cache.is_writable(Path(own))
    place = compile_cache.private_folder(f"numba-{source_hash()}")
    if place is None or not compile_cache.prepare_folder(place):
        return False
    os.environ[CACHE] = str(place)
    return True


def source_hash() -> str:
    """Returns a hash of all files with compiled loops."""
    package = Path(__file__).parent.parent
    loops = b"".join((package / name).read_bytes() for name in LOOPS)
    return hashlib.sha256(loops).hexdigest()[:16]
