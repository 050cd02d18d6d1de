"""Loops compiled to machine code by Numba, where the extra `fast` has brought it."""

from __future__ import annotations

import contextlib
import os

from gpt2cli import compile_cache

CACHE = "NUMBA_CACHE_DIR"


def is_there() -> bool:
    """Returns whether Numba can be loaded, and lets it keep what it compiles.

    It is loaded by this, some 0.3 s: ask only where loops are about to run.
    """
    with contextlib.suppress(OSError, RuntimeError):
        os.environ.setdefault(CACHE, str(compile_cache.home() / "numba"))
    try:
        import numba  # noqa: F401
    # A NumPy that is too new for it is an ImportError as well.
    except ImportError:
        return False
    return True
