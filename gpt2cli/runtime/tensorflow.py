"""Loading TensorFlow without its greetings."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from gpt2cli.runtime import compile_cache, hardware

# glibc's mallopt: how many heaps threads share, and from what size on memory is mapped by itself
# and so given back when it is free (malloc.h; man 3 mallopt).
M_ARENA_MAX, M_MMAP_THRESHOLD = -8, -3
MAPPED_BYTES = 1 << 17
# Where oneDNN's products are the fastest. TensorFlow takes them by itself only if the processor
# has instructions for neural networks, but with only AVX2 too they are 1.3 times as fast.
XLA_FLAGS = "XLA_FLAGS"
# TensorFlow's own: results that are the same in every run, slower.
DETERMINISTIC = "TF_DETERMINISTIC_OPS"
ONEDNN, ONEDNN_MACHINES = "TF_ENABLE_ONEDNN_OPTS", ("x86_64", "AMD64")


def load(*, verbose: bool, frugal: bool = False, keep_compiled: bool = False) -> None:
    """Imports TensorFlow; its log is shown only if it was asked for, or if it cannot load.

    TensorFlow writes some lines to stderr before it looks at TF_CPP_MIN_LOG_LEVEL. It loads Keras,
    which nothing here needs: that takes a tenth of the time. Who asks for `tf.keras` gets it later.
    If `frugal`, memory is given back as soon as it is free, which takes a little time.
    """
    if "tensorflow" not in sys.modules:
        if hardware.may_have_gpu():
            set_xla_flags()
        if keep_compiled:
            compile_cache.enable()
    enable_onednn()
    if frugal:
        os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL(None)
            libc.mallopt(M_ARENA_MAX, 1)
            libc.mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)
    if not verbose:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with contextlib.nullcontext() if verbose else captured_stderr(), hidden_module("keras"):
        import tensorflow as tf
    if not verbose:
        tf.get_logger().setLevel("ERROR")


def set_xla_flags() -> None:
    """Gives XLA, which is not loaded yet, its flags for a machine with a GPU."""
    from importlib import metadata

    # If it goes by another name, as AMD's own TensorFlow does, its flags are not known.
    with contextlib.suppress(metadata.PackageNotFoundError):
        found = metadata.distribution("tensorflow")
        version = tuple(map(int, re.findall(r"\d+", found.version)[:2]))
        os.environ[XLA_FLAGS] = xla_flags(os.environ, Path(str(found.locate_file(""))), version)


def xla_flags(environment: Mapping[str, str], packages: Path, version: tuple[int, ...]) -> str:
    """Returns the flags of XLA on a machine with a GPU; the user's own come last, and so win.

    XLA is to try out nothing while it compiles: with all variants of each product that would take
    minutes. Products are left to cuBLAS. Python's packages are installed in `packages`.
    """
    own = environment.get(XLA_FLAGS, "").strip()
    if own and not own.startswith("-"):
        # It names a file of flags.
        return own
    flags = ["--xla_gpu_autotune_level=0", "--xla_gpu_enable_triton_gemm=false"]
    # XLA ends the process over a flag that it does not know.
    if version >= (2, 21):
        flags.append("--xla_gpu_experimental_enable_fusion_autotuner=false")
    if environment.get(DETERMINISTIC, "").lower() in ("1", "true"):
        flags.append("--xla_gpu_deterministic_ops=true")
    # CUDA's compiler, as pip installs it.
    compiler = packages / "nvidia" / "cuda_nvcc"
    if (compiler / "bin" / "ptxas").exists():
        flags.append(f"--xla_gpu_cuda_data_dir={compiler}")
    return " ".join([*flags, *own.split()])


def enable_onednn() -> None:
    """Lets TensorFlow, which is not loaded yet, multiply by oneDNN, unless the user says else."""
    if platform.machine() in ONEDNN_MACHINES:
        os.environ.setdefault(ONEDNN, "1")


@contextlib.contextmanager
def hidden_module(name: str) -> Iterator[None]:
    """Lets a package that is not loaded yet seem not to be installed."""
    if name in sys.modules:
        yield
        return
    # So Python's imports take None there (docs.python.org, `sys.modules`, the import system).
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


def memory_file() -> IO[bytes]:
    """Returns a file that needs no folder: there may be none to write to."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("log"), "w+b")
    return tempfile.TemporaryFile()


@contextlib.contextmanager
def captured_stderr() -> Iterator[None]:
    """Holds back what is written to the process's stderr; shows it if the block fails."""
    try:
        saved = os.dup(2)
    except OSError:
        # stderr is closed: there is nothing to hold back.
        yield
        return
    with memory_file() as log:
        os.dup2(log.fileno(), 2)
        try:
            yield
        # A signal is not a failure.
        except Exception:
            log.seek(0)
            os.write(saved, log.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
