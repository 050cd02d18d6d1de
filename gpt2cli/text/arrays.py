"""The tokens in NumPy's files: .npy, and .npz as gpt-2-simple's encode writes it."""

from __future__ import annotations

import contextlib
import errno
import math
import re
import zipfile
from collections.abc import Iterator
from typing import IO

import numpy as np

from gpt2cli.errors import BadDataError, DiskError, Gpt2cliError, shortened
from gpt2cli.text.sources import FREE_OF_RATIO, MOST_RATIO, ReadingState, Source

TOKEN_TYPE = np.dtype("<u2")
READ_TOKENS = 1 << 18
# An array of what gpt-2-simple writes has a header of 128 bytes.
MOST_HEADER = 1 << 12
MAGIC = b"\x93NUMPY"
HEADER = re.compile(
    r"\{ *'descr': *(?P<kind>.+?), *'fortran_order': *(?P<fortran>True|False), *"
    r"'shape': *\((?P<shape>[0-9, ]*)\),? *\} *\n?",
    re.DOTALL,
)
# How NumPy packs the arrays of an .npz.
PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def token_documents(source: Source, vocab: int, state: ReadingState) -> Iterator[Iterator[bytes]]:
    """Yields the arrays of a file, each as its tokens in pieces of 16 bits a token.

    Raises BadDataError if one is damaged, or not of tokens of this vocabulary.
    """
    before = state.done
    with source.open_seekable() as file:
        if source.kind == "npy":
            yield tokens(file, str(source), vocab)
        else:
            with numpy_errors(str(source)):
                archive = zipfile.ZipFile(file)
            for member in archive.infolist():
                where = f"{source}, {shortened(member.filename.removesuffix('.npy'))}"
                with numpy_errors(where), opened_member(archive, member) as array:
                    yield tokens(array, where, vocab)
    state.done = before + source.size()


@contextlib.contextmanager
def numpy_errors(where: str) -> Iterator[None]:
    """Turns whatever NumPy and zipfile find wrong into an error with an exit code.

    They say so by errors of a dozen kinds, which differ from release to release.
    """
    try:
        yield
    except (Gpt2cliError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.EIO:
            raise DiskError(f"{where} cannot be read: {error.strerror}.") from error
        raise BadDataError(f"{where}: no whole NumPy file ({shortened(error)}).") from error


def opened_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
    """Returns an array; raises ValueError if NumPy packs none so, or it unpacks to far too much."""
    if member.compress_type not in PACKINGS:
        raise ValueError("packed as NumPy packs none")
    size, packed = member.file_size, member.compress_size
    if size > FREE_OF_RATIO and size > MOST_RATIO * packed:
        raise ValueError(f"{packed:,} bytes that unpack to {size:,}, as no text's do")
    return archive.open(member)


def tokens(file: IO[bytes], where: str, vocab: int) -> Iterator[bytes]:
    """Yields an array's tokens in its own order, 16 bits each; raises BadDataError for others."""
    with numpy_errors(where):
        count, kind = header(file)
    if kind.kind not in "iu":
        raise BadDataError(f"{where}: an array of {kind}, and not of tokens, whole numbers.")
    done = 0
    while done < count:
        wanted = min(count - done, READ_TOKENS)
        with numpy_errors(where):
            block = file.read(wanted * kind.itemsize)
        if len(block) < wanted * kind.itemsize:
            raise BadDataError(f"{where}: cut after {done:,} of {count:,} tokens.")
        found = np.frombuffer(block, kind)
        wrong = np.flatnonzero((found < 0) | (found >= vocab))
        if len(wrong):
            raise BadDataError(
                f"{where}: {found[wrong[0]]} at {done + int(wrong[0])} is not a token; "
                f"the vocabulary has {vocab:,}."
            )
        yield found.astype(TOKEN_TYPE).tobytes()
        done += wanted
    with numpy_errors(where):
        # To look beyond the end is also what lets zipfile check the sum.
        more = file.read(1)
    if more:
        raise BadDataError(f"{where}: more follows the {count:,} tokens that its header tells of.")


def header(file: IO[bytes]) -> tuple[int, np.dtype[np.generic]]:
    """Returns how many numbers an array file has, and their type; raises ValueError for others.

    NumPy's own reader takes whatever length a header claims, and evaluates it as Python.
    """
    start = file.read(len(MAGIC) + 2)
    if len(start) < len(MAGIC) + 2 or not start.startswith(MAGIC) or start[-2] not in (1, 2, 3):
        raise ValueError("it does not begin like one")
    size = int.from_bytes(file.read(2 if start[-2] == 1 else 4), "little")
    text = file.read(min(size, MOST_HEADER + 1))
    found = HEADER.fullmatch(text.decode("latin-1"))
    if len(text) < size or found is None:
        raise ValueError("its header is damaged")
    kind = np.dtype(found["kind"].strip("'"))
    shape = [int(part) for part in found["shape"].split(",") if part.strip()]
    if found["fortran"] == "True" and len(shape) > 1:
        raise ValueError("an array in Fortran's order; save numpy.ascontiguousarray of it")
    return math.prod(shape), kind
