"""What has come of a file: its bytes in FILE.part, and beside them what they are a part of."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from gpt2cli import json_reader, reading
from gpt2cli.errors import BadDataError, OutputError, shortened
from gpt2cli.files import atomic, temporary

BLOCK_BYTES = 1 << 20
MOST_SIDE_BYTES = 10_000
# A file's validator, sent back to its host: at most this long (characters), and printable.
VALIDATOR = re.compile(r"[ -~]{1,200}")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a host said of the file that is on disk in part.

    Attributes:
        url: where it was asked for.
        validator: the ETag or Last-Modified that a later answer must have to continue it.
        size: the whole file's size (bytes), if the host said it.
        ranges: False once the host has sent another range than the one it was asked for.
    """

    url: str
    validator: str | None = None
    size: int | None = None
    ranges: bool = True


class PartialFile:
    """A file that is being fetched: at `path`, the final name and `.part`, are its first bytes.

    `size` of them have come; `origin` is what the host said of it, if that is known.
    """

    def __init__(self, final: Path, new_hash: Callable[[], hashlib._Hash] = hashlib.sha256) -> None:
        """Takes the name that the file will have, and how it is hashed."""
        self.path = final.with_name(final.name + ".part")
        self.size = 0
        self.origin: Origin | None = None
        self._side = final.with_name(final.name + ".part.json")
        self._new_hash = new_hash
        self._hash = new_hash()
        self._file: IO[bytes] | None = None

    @property
    def digest(self) -> str:
        """The hash of the bytes that have come, in hexadecimal."""
        return self._hash.hexdigest()

    def reopen(self) -> Iterator[int]:
        """Takes up what an earlier run left and hashes it; yields how far that is (bytes)."""
        self.close()
        self.size, self._hash = 0, self._new_hash()
        self.origin = read_origin(self._side)
        with atomic.disk_errors(self.path):
            self._file = opened(self.path)
            self._file.seek(0)
            for size in hashing(self._file, self._hash):
                self.size = size
                yield size

    def restart(self, origin: Origin) -> None:
        """Forgets what has come; what comes from now on is a part of another file."""
        with atomic.disk_errors(self.path):
            # The bytes go first: old bytes must never stand beside a new validator.
            if self._file is None:
                self._file = opened(self.path)
            self._file.truncate(0)
            self.size, self._hash = 0, self._new_hash()
            self.note(origin)

    def note(self, origin: Origin) -> None:
        """Writes down what the host said, for this run and a later one."""
        self.origin = origin
        with atomic.disk_errors(self._side):
            atomic.write_whole(self._side, json.dumps(asdict(origin)))

    def append(self, chunk: bytes) -> None:
        """Adds bytes to the end of the file, and to its hash."""
        if self._file is None:
            raise ValueError("append to a partial file that is not open")
        with atomic.disk_errors(self.path, safe="What has come is kept, for the next run."):
            rest = memoryview(chunk)
            while rest:
                rest = rest[self._file.write(rest) :]
        self._hash.update(chunk)
        self.size += len(chunk)

    def finish(self, final: Path) -> None:
        """Gives the file its final name, once and for all."""
        self.close()
        with atomic.disk_errors(final):
            atomic.remove(self._side)
            atomic.move(self.path, final)

    def discard(self) -> None:
        """Removes what has come."""
        self.close()
        self.size, self.origin, self._hash = 0, None, self._new_hash()
        for path in (self.path, self._side):
            with contextlib.suppress(OSError):
                atomic.remove(path)

    def leave(self) -> None:
        """Closes the file; what has come stays, and if nothing has come, nothing stays."""
        self.close()
        if self.path.is_file() and not self.path.stat().st_size:
            self.discard()

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def hashing(file: IO[bytes], digest: hashlib._Hash) -> Iterator[int]:
    """Hashes the rest of an open file; yields how far that is (bytes)."""
    done = 0
    while block := file.read(BLOCK_BYTES):
        digest.update(block)
        done += len(block)
        yield done


def size_of(path: Path) -> int | None:
    """Returns the size of a file (bytes), or None if there is none."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError as error:
        raise reading.refusal(error, path) from error


def opened(path: Path) -> IO[bytes]:
    """Returns a file to read and to append to, made if it is missing; a link is not followed."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | temporary.SAFELY, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OutputError(f"{shortened(path)} is not a regular file. Nothing was changed. Move it.")
    return os.fdopen(descriptor, "a+b", buffering=0)


def read_origin(path: Path) -> Origin | None:
    """Returns what an earlier run wrote down of a partial file, or None if it cannot be read."""
    try:
        origin = Origin(**json_reader.read(path, most=MOST_SIDE_BYTES))
    except (OSError, BadDataError, TypeError):
        return None
    kinds = {"url": str, "validator": str | None, "size": int | None, "ranges": bool}
    sound = all(isinstance(getattr(origin, name), kind) for name, kind in kinds.items())
    # It is sent to a host again, or compared with what one says.
    if not sound or not VALIDATOR.fullmatch(origin.validator or "-") or (origin.size or 0) < 0:
        return None
    return origin
