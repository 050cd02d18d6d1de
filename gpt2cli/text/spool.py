"""What can be read only once, stdin and pipes, kept to be read again."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Hashable, Iterator
from typing import IO, BinaryIO

from gpt2cli.errors import DiskError, shortened

COPIED_BYTES = 1 << 20


class Spool:
    """Unnamed temporary files with all that came; one reader at a time, as they share its place."""

    def __init__(self) -> None:
        self._files: dict[Hashable, IO[bytes]] = {}

    def open(self, key: Hashable, opened: Callable[[], BinaryIO], name: str) -> BinaryIO:
        """Returns what came from its beginning; at the first call it is read to its end.

        Args:
            key: what tells one pipe from another.
            opened: opens it.
            name: what messages call it.

        Raises:
            DiskError: the folder for temporary files has no room for it.
        """
        if key not in self._files:
            file = opened()
            try:
                self._files[key] = copied(file, name)
            finally:
                if file is not sys.stdin.buffer:
                    file.close()
        again = os.fdopen(os.dup(self._files[key].fileno()), "rb")
        again.seek(0)
        return again

    def close(self) -> None:
        """Frees the temporary files."""
        for file in self._files.values():
            file.close()
        self._files.clear()


def copied(file: BinaryIO, name: str) -> IO[bytes]:
    """Returns an unnamed temporary file with all that is left of an open one.

    Raises:
        DiskError: there is no room for it, or reading fails.
    """
    with keeping(name):
        copy = tempfile.TemporaryFile()  # noqa: SIM115
        while piece := file.read(COPIED_BYTES):
            copy.write(piece)
        copy.flush()
    return copy


@contextlib.contextmanager
def keeping(name: str) -> Iterator[None]:
    """Within the block a temporary file that finds no room is an error with an exit code.

    Raises:
        DiskError: it finds none.
    """
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"{name} cannot be kept in {shortened(os.environ.get('TMPDIR', '/tmp'))}: "
            f"{error.strerror}. Make room there, or set TMPDIR to another folder."
        ) from error


def is_endless(file: BinaryIO) -> bool:
    """Returns whether an open file is a device like /dev/zero: no terminal, and not /dev/null."""
    with contextlib.suppress(AttributeError, OSError):
        status = os.fstat(file.fileno())
        device = stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
        null = os.stat(os.devnull).st_rdev  # noqa: PTH116
        return device and status.st_rdev != null and not file.isatty()
    return False
