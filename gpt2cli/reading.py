"""Files that others may have put there: opened without waiting, refused by the right error."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from gpt2cli.errors import BadDataError, DiskError, Gpt2cliError, MissingInputError, shortened

# The largest file of JSON that is read.
MOST_BYTES = 64_000_000
MISSING = (errno.ENOENT, errno.ENOTDIR)
# The file system works, and refuses.
REFUSED = (
    *(errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR),
    *(errno.ENXIO, errno.ENODEV, errno.EINVAL, errno.EILSEQ),
)
# What a file that was whole once answers when it is lost or its disk is bad. Whatever else keeps
# it from being read says nothing about its content.
DAMAGE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EIO)


class UnreadableError(MissingInputError):
    """A file is there and may be whole, but cannot be read: no other one may take its place."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Opens a regular file for reading; raises OSError if it cannot be opened.

    Raises BadDataError if it is a pipe, a device or a folder, which would block or never end.
    """
    # Without O_NONBLOCK, opening a pipe would wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    # A folder is opened so as well, and Python would give its refusal a number for a name.
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BadDataError(f"{shortened(path)} is not a regular file.")
    with open(descriptor, "rb") as file:  # noqa: PTH123
        yield file


@contextlib.contextmanager
def needed(path: Path) -> Iterator[None]:
    """Within the block MissingInputError stands for the system's refusals to read a file."""
    try:
        yield
    except OSError as error:
        where = shortened(name_in(error) or path)
        missing = isinstance(error, FileNotFoundError)
        what = "is missing" if missing else f"cannot be read: {error.strerror}"
        raise MissingInputError(f"{where} {what}.") from error


def content(path: Path, most: int | None = None) -> bytes:
    """Returns a regular file's content; raises as `opened`, and BadDataError over `most` bytes."""
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if most is not None and size > most:
            raise BadDataError(f"{shortened(path)} has {size:,} bytes; at most {most:,} are read.")
        return file.read(size + 1)


def files_below(folder: Path, *, skip_unreadable: bool = False) -> Iterator[os.DirEntry[str]]:
    """Yields all below a folder that are not folders, in no order; links are not followed.

    Unlike os.walk it takes folders of any depth. Raises OSError at one that cannot be read, unless
    such folders are to be skipped.
    """
    waiting = [os.fspath(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        yield entry
        except OSError:
            if not skip_unreadable:
                raise


def name_in(error: OSError) -> str:
    """Returns the file's name in an error of the system; "" if it has none."""
    # Some calls give the number of an open file, or bytes.
    name = error.filename
    return os.fsdecode(name) if isinstance(name, (str, bytes, os.PathLike)) else ""


def refusal(error: OSError, path: Path | None = None) -> Gpt2cliError:
    """Returns what the system's refusal to read means, with the right exit code.

    The path is what was read, if the error does not say.
    """
    where = shortened(name_in(error) or path or "it")
    reason = error.strerror or shortened(error)
    if error.errno in MISSING:
        return MissingInputError(f"{where} is missing: {reason}.")
    if error.errno in REFUSED:
        return UnreadableError(f"Cannot read {where}: {reason}. Nothing was changed.")
    return DiskError(f"Cannot read {where}: {reason}.")
