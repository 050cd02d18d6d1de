"""Which files a corpus consists of, and their bytes."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import gzip
import hashlib
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

from gpt2cli.errors import BadDataError, DiskError, MissingInputError, UsageError

STDIN = "-"
READ_BYTES = 1 << 20
# A file with a NUL in its first bytes is no text; git judges so too.
SNIFFED_BYTES = 8000
KINDS = {".csv": "csv", ".jsonl": "jsonl", ".npy": "npy", ".npz": "npz"}


@dataclasses.dataclass(frozen=True)
class Source:
    """A file of a corpus, or stdin.

    Attributes:
        path: where it lies.
        stdin: whether it is not there, but on stdin.
    """

    path: Path
    stdin: bool = False

    @property
    def zipped(self) -> bool:
        """Whether it is packed by gzip."""
        return self.path.suffix.lower() == ".gz"

    @property
    def kind(self) -> str:
        """How it is read: `csv`, `jsonl`, `npy`, `npz` or `text`."""
        plain = self.path.with_suffix("") if self.zipped else self.path
        return KINDS.get(plain.suffix.lower(), "text")

    def __str__(self) -> str:
        return "stdin" if self.stdin else str(self.path)

    @contextlib.contextmanager
    def stored(self) -> Iterator[BinaryIO]:
        """Opens the bytes as they lie on the disk.

        Raises:
            MissingInputError: it cannot be read.
        """
        try:
            file = SPOOL.open() if self.stdin else self.path.open("rb")
        except OSError as error:
            raise MissingInputError(f"{self} cannot be read: {error.strerror}.") from error
        with file:
            yield file

    def unpacked(self, file: BinaryIO) -> BinaryIO | gzip.GzipFile:
        """Returns what reads an open file's content: unzipped where it is zipped."""
        return gzip.GzipFile(fileobj=file) if self.zipped else file

    def size(self) -> int:
        """Returns how much it is on the disk (bytes)."""
        with self.stored() as file:
            return os.fstat(file.fileno()).st_size


@dataclasses.dataclass(frozen=True)
class Sources:
    """The files of a corpus.

    Attributes:
        files: what is read, in the order in which it is read.
        skipped: files in folders that are hidden or binary, and are not read.
    """

    files: tuple[Source, ...]
    skipped: tuple[Source, ...] = ()

    def __str__(self) -> str:
        others = len(self.files) - 1
        return f"{self.files[0]}" + (f" and {others} more" if others else "")

    def size(self) -> int:
        """Returns how much there is to read (bytes)."""
        return sum(source.size() for source in self.files)


class Meter:
    """How much of a corpus has been read.

    Attributes:
        done: bytes, as they lie on the disk.
    """

    def __init__(self) -> None:
        self.done = 0


class Spool:
    """Stdin, kept in an unnamed temporary file from the first look on, to be read again."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None

    def open(self) -> BinaryIO:
        """Returns stdin's bytes from their beginning.

        Raises:
            DiskError: the folder for temporary files has no room for them.
        """
        if self._file is None:
            try:
                file = tempfile.TemporaryFile()  # noqa: SIM115
                shutil.copyfileobj(sys.stdin.buffer, file, READ_BYTES)
                file.flush()
            except OSError as error:
                raise DiskError(
                    f"stdin cannot be kept in {tempfile.gettempdir()}: {error.strerror}. "
                    "Make room there, or set TMPDIR to another folder."
                ) from error
            self._file = file
        again = os.fdopen(os.dup(self._file.fileno()), "rb")
        again.seek(0)
        return again

    def close(self) -> None:
        """Frees the temporary file."""
        if self._file is not None:
            self._file.close()


SPOOL = Spool()


def find(patterns: Iterable[str], encoding: str = "utf-8") -> Sources:
    """Returns the files that the patterns name: files, folders (all below, sorted) and globs.

    Args:
        patterns: paths or globs; `-` is stdin.
        encoding: how text is written; some encodings have a NUL in every character.

    Raises:
        MissingInputError: a pattern names nothing.
        BadDataError: a file that was named is binary, or nothing is left to read.
        UsageError: stdin is named twice.
    """
    patterns = tuple(patterns)
    if patterns.count(STDIN) > 1:
        raise UsageError("- (stdin) is given twice, and can be read but once.")
    files: list[Source] = []
    skipped: list[Source] = []
    for pattern in patterns:
        if pattern == STDIN:
            files.append(Source(Path(STDIN), stdin=True))
            continue
        for path in matches(pattern):
            if path.is_dir():
                for below in sorted(p for p in path.rglob("*") if p.is_file()):
                    hidden = any(part.startswith(".") for part in below.relative_to(path).parts)
                    read = not hidden and not is_binary(Source(below), encoding)
                    (files if read else skipped).append(Source(below))
            elif is_binary(Source(path), encoding):
                raise BadDataError(f"{path} is binary, not text.")
            else:
                files.append(Source(path))
    if not files:
        raise BadDataError(f"{' '.join(patterns)}: no text files in there.")
    found = Sources(tuple(files), tuple(skipped))
    # What stdin holds is not known before it has been read.
    if not any(source.stdin or source.size() for source in files):
        raise BadDataError(f"{found}: empty. Give a file with text.")
    return found


def matches(pattern: str) -> list[Path]:
    """Returns the paths that a pattern names; a name with a glob's letters is a file first.

    Raises:
        MissingInputError: there are none.
    """
    if Path(pattern).exists():
        return [Path(pattern)]
    # Not Path.glob, which takes no absolute pattern.
    found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
    if not found:
        raise MissingInputError(f"{pattern}: no such file or folder, and no glob that matches.")
    return [Path(name) for name in found]


def is_binary(source: Source, encoding: str = "utf-8") -> bool:
    """Returns whether a file that should be text has a NUL byte near its beginning."""
    if source.kind in ("npy", "npz"):
        return False
    nul = b"\0" in "a".encode(encoding)
    with unzipping(source), source.stored() as file:
        return not nul and b"\0" in source.unpacked(file).read(SNIFFED_BYTES)


@contextlib.contextmanager
def unzipping(source: Source) -> Iterator[None]:
    """Within the block a damaged gzip file is an error with an exit code.

    Raises:
        BadDataError: the file is no whole gzip file.
    """
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadDataError(f"{source} is not a whole gzip file: {error}.") from error


def read_bytes(source: Source, meter: Meter | None = None) -> Iterator[bytes]:
    """Yields a file's bytes in pieces, unzipped where it is zipped.

    Raises:
        BadDataError: the file is no whole gzip file.
    """
    meter = meter or Meter()
    before = meter.done
    with unzipping(source), source.stored() as file:
        content = source.unpacked(file)
        while piece := content.read(READ_BYTES):
            meter.done = before + file.tell()
            yield piece


def content_hash(sources: Sources, *facts: Any) -> str:
    """Returns a SHA-256 over the files' contents, their kinds, and facts on how they are read."""
    whole = hashlib.sha256(repr(facts).encode())
    for source in sources.files:
        digest = hashlib.sha256()
        with source.stored() as file:
            while piece := file.read(READ_BYTES):
                digest.update(piece)
        whole.update(f"{source.kind} {source.zipped} ".encode() + digest.digest())
    return whole.hexdigest()
