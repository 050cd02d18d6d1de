"""The files, pipes and stdin that a corpus is read from, and their bytes."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import gzip
import os
import stat
import sys
import tempfile
import zlib
from collections.abc import Hashable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, BinaryIO

from gpt2cli.errors import BadDataError, DiskError, MissingInputError, shortened

STDIN = "-"
# Other names of stdin: a pipe can be read only once, whatever it is called.
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
RECORDS = frozenset({"json", "jsonl"})
TABLES = frozenset({"csv", "tsv"})
# Fields of records and columns of tables that hold the text, in whatever file; the surest first.
TEXT_NAMES = (
    *("text", "texts", "content", "contents", "body", "selftext", "lyrics", "poem", "poems"),
    *("tweet", "tweets", "message", "review", "comment", "post", "quote", "story", "article"),
    *("document", "paragraphs", "paragraph", "lines", "verse", "sentences", "sentence"),
    *("caption", "description"),
)
# Copies of streams in unnamed temporary files, so that they can be read several times.
COPIES: dict[Hashable, IO[bytes]] = {}
# No text compresses better: English to a third, a log of one repeated line to a hundredth.
MOST_RATIO = 300
# Below this the ratio does not matter (bytes unpacked).
FREE_OF_RATIO = 100_000_000


@dataclasses.dataclass(frozen=True)
class Source:
    """A file of a corpus, a pipe, or stdin: then its path is one of stdin's names."""

    path: Path
    stdin: bool = False

    @property
    def gzipped(self) -> bool:
        """Whether its name ends in .gz."""
        return self.path.suffix.lower() == ".gz"

    @property
    def kind(self) -> str:
        """The format: `csv`, `tsv`, `json`, `jsonl`, `npy`, `npz` or `text`."""
        plain = self.path.with_suffix("") if self.gzipped else self.path
        return KINDS.get(plain.suffix.lower(), "text")

    @property
    def is_stream(self) -> bool:
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
        """Turns an error of the operating system into a MissingInputError that names it."""
        try:
            yield
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise MissingInputError(f"{self} cannot be read: {reason}.") from error

    def open(self) -> BinaryIO:
        """Returns its bytes as they are on the disk; for a stream, a copy of all that it sent.

        Raises MissingInputError if it cannot be read, BadDataError for a device that never ends,
        and DiskError if the folder for temporary files has no room for the copy.
        """
        return copy_of_stream(self) if self.is_stream else self.open_original()

    def open_original(self) -> BinaryIO:
        """Returns the open file, pipe or stdin itself; raises as `open` does."""
        with self._readable():
            file: BinaryIO = sys.stdin.buffer if self.stdin else self.path.open("rb")
        if is_endless(file):
            file.close()
            raise BadDataError(f"{self} is a device, neither a file nor a pipe.")
        return file

    def open_seekable(self) -> IO[bytes]:
        """Returns its content: unzipped in a temporary file if it is gzipped; raises as `open`."""
        return copied(read_bytes(self), str(self)) if self.gzipped else self.open()

    def identity(self) -> Hashable:
        """Returns what distinguishes it from other streams."""
        if self.stdin:
            return STDIN
        with self._readable():
            status = self.path.stat()
        return status.st_dev, status.st_ino

    def gunzip(self, file: BinaryIO) -> BinaryIO | gzip.GzipFile:
        """Returns a reader of the content of its open bytes."""
        return gzip.GzipFile(fileobj=file) if self.gzipped else file

    def size(self) -> int:
        """Returns its size on the disk (bytes)."""
        with self.open() as file:
            return os.fstat(file.fileno()).st_size


def source_of(name: str) -> Source:
    """Returns the file of that name, or stdin."""
    return Source(Path(name), stdin=name in STDIN_NAMES)


def copy_of_stream(source: Source) -> BinaryIO:
    """Returns all that a stream sent; the first call reads it to its end.

    A copy has one reader at a time: all readers share its position.
    """
    key = source.identity()
    if key not in COPIES:
        original = source.open_original()
        try:
            pieces = iter(partial(original.read, READ_BYTES), b"")
            COPIES[key] = copied(pieces, str(source))
            atexit.register(COPIES[key].close)
        finally:
            if original is not sys.stdin.buffer:
                original.close()
    again = os.fdopen(os.dup(COPIES[key].fileno()), "rb")
    again.seek(0)
    return again


def copied(pieces: Iterable[bytes], name: str) -> IO[bytes]:
    """Returns an unnamed temporary file with these pieces; raises DiskError if it has no room."""
    with temporary_file_errors(name), contextlib.ExitStack() as stack:
        copy = stack.enter_context(tempfile.TemporaryFile())
        copy.writelines(pieces)
        copy.seek(0)
        stack.pop_all()
    return copy


@contextlib.contextmanager
def temporary_file_errors(name: str) -> Iterator[None]:
    """Turns the errors of a temporary file into a DiskError that says how to move it."""
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"{name} cannot be kept in {shortened(temporary_folder())}: {error.strerror}. "
            "Make room there, or set TMPDIR to another folder."
        ) from error


def temporary_folder() -> str:
    """Returns the folder of temporary files, or what TMPDIR asks for if Python can use none."""
    try:
        return tempfile.gettempdir()
    except OSError:
        return os.environ.get("TMPDIR", "/tmp")


def is_endless(file: BinaryIO) -> bool:
    """Returns whether an open file is a device like /dev/zero: neither a terminal nor /dev/null."""
    with contextlib.suppress(AttributeError, OSError):
        status = os.fstat(file.fileno())
        device = stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
        null = os.stat(os.devnull).st_rdev  # noqa: PTH116
        return device and status.st_rdev != null and not file.isatty()
    return False


@dataclasses.dataclass(kw_only=True)
class ReadingState:
    """How much of a corpus has been read, in bytes as they are on the disk, and what was changed.

    Attributes:
        converted: the files whose line ends were changed.
        source: the file that is being read, or None.
    """

    total: int = 0
    done: int = 0
    converted: set[Source] = dataclasses.field(default_factory=set)
    source: Source | None = None


@contextlib.contextmanager
def read_errors(source: Source) -> Iterator[None]:
    """Turns a damaged gzip file into a BadDataError, and a failing disk into a DiskError."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadDataError(f"{source} is not a whole gzip file: {shortened(error)}.") from error
    except OSError as error:
        raise DiskError(f"{source} cannot be read to its end: {error.strerror}.") from error


def read_bytes(source: Source, state: ReadingState | None = None) -> Iterator[bytes]:
    """Yields a file's content in pieces, unzipped if it is gzipped.

    Raises BadDataError if the gzip file is damaged, or unpacks to far more than any text does.
    """
    state = state or ReadingState()
    before, unpacked, state.source = state.done, 0, source
    with read_errors(source), source.open() as file:
        content = source.gunzip(file)
        while piece := content.read(READ_BYTES):
            packed, unpacked = file.tell(), unpacked + len(piece)
            if unpacked > FREE_OF_RATIO and unpacked > MOST_RATIO * packed:
                raise BadDataError(
                    f"{source}: its first {packed:,} bytes unpack to over {unpacked:,}, as no "
                    "text's do. Unpack it, and give what is text."
                )
            state.done = before + packed
            yield piece
