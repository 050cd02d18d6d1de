"""A file appears whole, or not at all; and what the disk says, in the product's own errors."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from gpt2cli.errors import DiskError, OutputError, shortened
from gpt2cli.files import temporary
from gpt2cli.reading import name_in

# The name of what is written aside, with the one that it is to have in it.
ASIDE = re.compile(r"(?<![^/])\.([^/]+)\.[0-9a-f]+\.part(?![^/])")
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
NOT_ALLOWED = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR),
    *(errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTEMPTY, errno.ENXIO, errno.ENODEV),
    *(errno.EINVAL, errno.EILSEQ, errno.ETXTBSY, errno.EXDEV, errno.EMLINK),
)
COPIED_BYTES = 1 << 20


def before(operation: str, path: Path) -> None:
    """Is called before every write, sync, rename and removal, and does nothing.

    The tests put a function in its place that fails, or ends the process, at the N-th call.
    """


@contextlib.contextmanager
def disk_errors(path: Path, safe: str = "") -> Iterator[None]:
    """Within the block the operating system's refusals to write become errors with an exit code.

    OutputError: the place cannot be written to. DiskError: the disk is full or fails. `safe` is a
    sentence on what is safe on disk, added to the message.
    """
    try:
        yield
    except OSError as error:
        # A file that is written aside is called by the name that it is to have.
        name = ASIDE.sub(r"\1", name_in(error) or str(path))
        is_link = error.errno == errno.ELOOP and Path(name_in(error)).is_symlink()
        reason = "It is a link" if is_link else error.strerror or shortened(error)
        message = f"Cannot write {shortened(name)}: {reason}. {safe}".rstrip()
        if error.errno in FULL_DISK:
            free = shutil.disk_usage(existing(path)).free / 1e6
            message += f" {free:.1f} MB are free there; make room."
        kind = OutputError if error.errno in NOT_ALLOWED else DiskError
        raise kind(message) from error


@contextlib.contextmanager
def whole_file(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yields a path to write to; what was written there becomes `path` when the block ends well.

    Folders above are made. If the block fails, the file and the folders made for it are removed.
    An old file at `path` is replaced in one step: a reader sees the old one or the new one. With
    `replace=False` it stays, and FileExistsError is raised.
    """
    part = temporary.name_of(path)
    with made_folders(path.parent), contextlib.ExitStack() as stack:
        try:
            before("write", part)
            stack.callback(os.close, temporary.claimed(part))
            yield part
            (move if replace else move_new)(part, path)
        except BaseException:
            with contextlib.suppress(OSError):
                remove(part)
            raise


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file so that it appears whole or not at all."""
    with whole_file(path) as part:
        write(part, content)


def write(path: Path, content: str | bytes, mode: str = "wb") -> None:
    """Writes a file in place, which is not safe: for files that nothing reads yet, and for logs.

    No link is followed. Raises OutputError if a pipe or a device is in its place.
    """
    before("write", path)
    how = os.O_APPEND if mode == "ab" else os.O_TRUNC
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | how | temporary.SAFELY, 0o666)
    with open(descriptor, mode) as file:  # noqa: PTH123
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OutputError(f"{shortened(path)} is not a regular file; it is not written to.")
        file.write(content.encode() if isinstance(content, str) else content)


def move(source: Path, destination: Path) -> None:
    """Renames a finished file to its place; when this returns, a power loss can't undo it."""
    if not source.is_symlink():
        sync(source)
    before("rename", destination)
    source.replace(destination)
    sync(destination.parent)


def move_new(source: Path, destination: Path) -> None:
    """Gives a finished file its name as `move` does; FileExistsError if another file has it."""
    sync(source)
    before("rename", destination)
    try:
        destination.hardlink_to(source)
    except OSError as error:
        # A file system without second names: the moment between look and rename is left.
        if isinstance(error, FileExistsError) or os.path.lexists(destination):
            raise FileExistsError(errno.EEXIST, "File exists", str(destination)) from None
        source.replace(destination)
    remove(source)
    sync(destination.parent)


def sync(path: Path) -> None:
    """Waits until a file's bytes, or a folder's names, are on the disk."""
    before("sync", path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # A pipe that is moved out of the way has nothing to wait for.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def link(source: Path, destination: Path) -> None:
    """Gives a file a second name, or makes a copy if the file system has no such thing."""
    before("write", destination)
    destination.unlink(missing_ok=True)
    try:
        # A second name of a link would be a link.
        destination.hardlink_to(source.resolve())
    except OSError as error:
        if error.errno in FULL_DISK:
            raise
        with source.open("rb") as old, destination.open("xb") as new:
            shutil.copyfileobj(old, new, COPIED_BYTES)
        sync(destination)


def remove(path: Path) -> None:
    """Removes a file that may be missing."""
    before("remove", path)
    path.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Removes a folder, which may be missing, with all that is in it; of a link, only the link."""
    waiting = [folder] if os.path.lexists(folder) else []
    # Not by recursion, which has an end: folders may nest deeper.
    while waiting:
        path = waiting.pop()
        if path.is_symlink() or not path.is_dir():
            remove(path)
        elif inside := sorted(path.iterdir(), reverse=True):
            waiting += [path, *inside]
        else:
            before("remove", path)
            path.rmdir()


def empty_folder(folder: Path) -> None:
    """Makes a folder that only we can put anything into, in place of what has its name."""
    remove_folder(folder)
    before("write", folder)
    folder.mkdir(mode=0o700)


@contextlib.contextmanager
def made_folders(folder: Path) -> Iterator[None]:
    """Makes a folder and those above it; new ones that are empty after the block go again."""
    places = (folder, *folder.parents)
    missing = list(itertools.takewhile(lambda place: not place.exists(), places))
    before("write", folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for new in missing:
            with contextlib.suppress(OSError):
                new.rmdir()


def existing(path: Path) -> Path:
    """Returns the path itself or the nearest folder above it that is there."""
    # Not Path.exists, which raises if we may not look.
    places = (path.absolute(), *path.absolute().parents)
    return next(place for place in places if os.path.exists(place))  # noqa: PTH110


def need_room(path: Path, size: int, safe: str = "") -> None:
    """Raises DiskError unless the disk below `path` has room for `size` bytes; ends with `safe`."""
    free = shutil.disk_usage(existing(path)).free
    if free < size:
        raise DiskError(
            f"{path} needs {size / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB are free; make room. "
            f"{safe}".rstrip()
        )
