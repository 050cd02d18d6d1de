"""The tokens in NumPy's files: .npy, and .npz as gpt-2-simple's encode writes it."""

from __future__ import annotations

import contextlib
import gzip
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from gpt2cli.errors import BadDataError
from gpt2cli.text.sources import Meter, Source

TOKEN_TYPE = np.dtype("<u2")
READ_TOKENS = 1 << 18
# What NumPy, zipfile and gzip raise for a file that is cut, damaged, locked or no such file.
DAMAGED = (
    ValueError, SyntaxError, EOFError, RuntimeError,
    zipfile.BadZipFile, gzip.BadGzipFile, zlib.error,
)  # fmt: skip


def documents(source: Source, vocab: int, meter: Meter) -> Iterator[Iterator[bytes]]:
    """Yields the arrays of a file, each as its tokens in pieces of 16 bits a token.

    Raises:
        BadDataError: a file is damaged, or an array is not of tokens of this vocabulary.
    """
    before = meter.done
    with source.stored() as file:
        if source.kind == "npy":
            yield tokens(source.unpacked(file), str(source), vocab)
        else:
            with damaged(str(source)):
                archive = zipfile.ZipFile(source.unpacked(file))
            for name in archive.namelist():
                where = f"{source}, {name.removesuffix('.npy')}"
                with damaged(where):
                    member = archive.open(name)
                with member:
                    yield tokens(member, where, vocab)
    meter.done = before + source.size()


@contextlib.contextmanager
def damaged(where: str) -> Iterator[None]:
    """Within the block what NumPy and zipfile find wrong is an error with an exit code."""
    try:
        yield
    except DAMAGED as error:
        raise BadDataError(f"{where}: no whole NumPy file ({error}).") from error


def tokens(file: Any, where: str, vocab: int) -> Iterator[bytes]:
    """Yields an array's tokens in its own order, 16 bits each.

    Raises:
        BadDataError: the array is damaged, or not of tokens of this vocabulary.
    """
    with damaged(where):
        count, kind = header(file)
    if kind.kind not in "iu":
        raise BadDataError(f"{where}: an array of {kind}, and not of tokens, whole numbers.")
    done = 0
    while done < count:
        wanted = min(count - done, READ_TOKENS)
        with damaged(where):
            block = file.read(wanted * kind.itemsize)
        if len(block) < wanted * kind.itemsize:
            raise BadDataError(f"{where}: cut after {done:,} of {count:,} tokens.")
        found = np.frombuffer(block, kind)
        wrong = np.flatnonzero((found < 0) | (found >= vocab))
        if len(wrong):
            raise BadDataError(
                f"{where}: {found[wrong[0]]} at {done + int(wrong[0])} is no token; "
                f"the vocabulary has {vocab:,}."
            )
        yield found.astype(TOKEN_TYPE).tobytes()
        done += wanted


def header(file: IO[bytes]) -> tuple[int, Any]:
    """Returns how many numbers an array file has, and their type.

    Raises:
        ValueError: it is no array file.
    """
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, kind = np.lib.format.read_array_header_1_0(file)
    else:
        shape, fortran, kind = np.lib.format.read_array_header_2_0(file)
    if fortran and len(shape) > 1:
        raise ValueError("an array in Fortran's order; save numpy.ascontiguousarray of it")
    return int(np.prod(shape, dtype=np.int64)), kind
