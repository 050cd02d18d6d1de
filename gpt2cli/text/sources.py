"""The files of a corpus, and their bytes."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import gzip
import hashlib
import os
import stat
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from gpt2cli.errors import BadDataError, DiskError, MissingInputError, shortened
from gpt2cli.text.spool import Spool, is_endless

STDIN = "-"
# Other names of the same: a pipe can be read only once, whatever it is called.
STDIN_NAMES = frozenset({STDIN, "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"})
READ_BYTES = 1 << 20
KINDS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".npy": "npy",
    ".npz": "npz",
}
ARRAYS = frozenset({"npy", "npz"})
# No text packs better than this: English a third, a log of one line again and again a hundredth.
MOST_RATIO = 300
# Below this it is no matter (bytes unpacked).
FREE_OF_RATIO = 100_000_000
SPOOL = Spool()
atexit.register(SPOOL.close)


@dataclasses.dataclass(frozen=True)
class Source:
    """A file of a corpus, a pipe, or stdin.

    Attributes:
        path: where it is.
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
        """How it is read: `csv`, `tsv`, `json`, `jsonl`, `npy`, `npz` or `text`."""
        plain = self.path.with_suffix("") if self.zipped else self.path
        return KINDS.get(plain.suffix.lower(), "text")

    @property
    def once(self) -> bool:
        """Whether its bytes come only once: from stdin, a pipe or a terminal."""
        if self.stdin:
            return True
        with self._readable():
            mode = self.path.stat().st_mode
        return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)

    def __str__(self) -> str:
        return "stdin" if self.stdin else shortened(self.path)

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        """Within the block an error of the operating system says which file it is.

        Raises:
            MissingInputError: it cannot be read.
        """
        try:
            yield
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise MissingInputError(f"{self} cannot be read: {reason}.") from error

    def opened(self) -> BinaryIO:
        """Returns the open file or pipe itself.

        Raises:
            MissingInputError: it cannot be read.
            BadDataError: it is a device that never ends.
        """
        with self._readable():
            file: BinaryIO = sys.stdin.buffer if self.stdin else self.path.open("rb")
        if is_endless(file):
            file.close()
            raise BadDataError(f"{self} is a device, neither a file nor a pipe.")
        return file

    def _kept(self) -> BinaryIO:
        """Returns a copy of what can be read only once."""
        with self._readable():
            status = None if self.stdin else self.path.stat()
        key = (status.st_dev, status.st_ino) if status else STDIN
        return SPOOL.open(key, self.opened, str(self))

    @contextlib.contextmanager
    def stored(self) -> Iterator[BinaryIO]:
        """Opens the bytes as they are on the disk; of a pipe, a copy that is made once.

        Raises:
            MissingInputError: it cannot be read.
            BadDataError: it is a device that never ends.
            DiskError: there is no room for the copy.
        """
        with self._kept() if self.once else self.opened() as file:
            yield file

    def unpacked(self, file: BinaryIO) -> BinaryIO | gzip.GzipFile:
        """Returns what reads an open file's content: unzipped where it is zipped."""
        return gzip.GzipFile(fileobj=file) if self.zipped else file

    def size(self) -> int:
        """Returns how much it is on the disk (bytes)."""
        with self.stored() as file:
            return os.fstat(file.fileno()).st_size


def source_of(name: str) -> Source:
    """Returns the file of that name, or stdin."""
    return Source(Path(name), stdin=name in STDIN_NAMES)


@dataclasses.dataclass(frozen=True)
class Skipped:
    """What was found in a folder and is not read.

    Attributes:
        path: where it is.
        reason: why it is not.
    """

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"skipped {shortened(self.path)}: {self.reason}"


@dataclasses.dataclass(frozen=True)
class Sources:
    """The files of a corpus.

    Attributes:
        files: what is read, in the order in which it is read.
        skipped: what was found in folders, and is not read.
    """

    files: tuple[Source, ...]
    skipped: tuple[Skipped, ...] = ()

    def __str__(self) -> str:
        others = len(self.files) - 1
        return f"{self.files[0]}" + (f" and {others} more" if others else "")

    def size(self) -> int:
        """Returns how much there is to read (bytes)."""
        return sum(source.size() for source in self.files)


class Meter:
    """How much of a corpus has been read, and what of it was changed.

    Attributes:
        done: bytes, as they are on the disk.
        converted: the files whose line ends were changed.
        source: the file that is read, or None.
    """

    def __init__(self) -> None:
        self.done = 0
        self.converted: set[Source] = set()
        self.source: Source | None = None


@contextlib.contextmanager
def unzipping(source: Source) -> Iterator[None]:
    """Within the block a damaged gzip file, or a failing disk, is an error with an exit code.

    Raises:
        BadDataError: the file is no whole gzip file.
        DiskError: the disk fails.
    """
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadDataError(f"{source} is not a whole gzip file: {shortened(error)}.") from error
    except OSError as error:
        raise DiskError(f"{source} cannot be read to its end: {error.strerror}.") from error


def read_bytes(source: Source, meter: Meter | None = None) -> Iterator[bytes]:
    """Yields a file's bytes in pieces, unzipped where it is zipped.

    Raises:
        BadDataError: the file is no whole gzip file, or one that unpacks to no end of zeros.
        DiskError: the disk fails.
    """
    meter = meter or Meter()
    before, unpacked, meter.source = meter.done, 0, source
    with unzipping(source), source.stored() as file:
        content = source.unpacked(file)
        while piece := content.read(READ_BYTES):
            packed, unpacked = file.tell(), unpacked + len(piece)
            if unpacked > FREE_OF_RATIO and unpacked > MOST_RATIO * packed:
                raise BadDataError(
                    f"{source}: its first {packed:,} bytes unpack to over {unpacked:,}, as no "
                    "text's do. Unpack it, and give what is text."
                )
            meter.done = before + packed
            yield piece


def content_hash(sources: Sources, *facts: Any) -> str:
    """Returns a SHA-256 over the files' contents, their kinds, and facts on how they are read."""
    whole = hashlib.sha256(repr(facts).encode())
    for source in sources.files:
        digest = hashlib.sha256()
        with unzipping(source), source.stored() as file:
            while piece := file.read(READ_BYTES):
                digest.update(piece)
        whole.update(f"{source.kind} {source.zipped} ".encode() + digest.digest())
    return whole.hexdigest()
