"""An export: written aside, then put in its place in one step; it replaces only another export.

A folder that was exported lists its files in MARK; a file has WORD near its beginning.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import shutil
import stat
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from gpt2cli import json_reader, reading
from gpt2cli.errors import BadDataError, OutputError, shortened
from gpt2cli.files import atomic, temporary
from gpt2cli.files.lock import locked
from gpt2cli.json_reader import Json

MARK = ".gpt2cli-export.json"
WORD = b"gpt2cli"
LOOKED_AT_BYTES = 4096
GZIP, GZIP_FORMAT = b"\x1f\x8b", 16 + zlib.MAX_WBITS
# No export has a folder this far below its own.
TOO_DEEP = 8
# From Linux's fcntl.h and fs.h.
AT_FDCWD = -100
RENAME_EXCHANGE = 2
OLD = ".old"


def check_free(path: Path, *, overwrite: bool, spare: Iterable[Path]) -> None:
    """Raises OutputError if something is at a path that may not be replaced.

    Folders to `spare` must not be replaced, nor the folders above them.
    """
    with atomic.disk_errors(path):
        try:
            path.lstat()
        except FileNotFoundError:
            return
        shown = shortened(path)
        if not overwrite:
            raise OutputError(f"{shown} exists; --overwrite replaces it if it is an export.")
        if path.is_symlink():
            raise OutputError(f"{shown} is a link, and is not replaced. Give what it leads to.")
        for folder in spare if path.is_dir() else ():
            if folder.resolve().is_relative_to(path.resolve()):
                raise OutputError(
                    f"{shown} holds {shortened(folder)}, and is not replaced. Give another path."
                )
        if found := foreign(path):
            raise OutputError(
                f"{shortened(found)} is not of a gpt2cli export, so {shown} is not replaced; "
                "nothing was changed. Give another path, or move it away."
            )


@contextlib.contextmanager
def output(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yields a path to write a file or folder to; it becomes `path` when the block ends well.

    What is at `path` stays whole until then, and is replaced in one step. If the block fails,
    nothing of it is left, nor of what a process that was killed had begun to write there. Raises
    TryLaterError if another process writes to it, and as `check_free` and `disk_errors` do.
    """
    aside = temporary.name_of(path)
    lock_file = path.with_name(f".{temporary.short(path.name)}.lock")
    old = f"What was at {path} is untouched." if os.path.lexists(path) else ""
    with (
        atomic.disk_errors(path, old),
        atomic.made_folders(path.parent),
        locked(lock_file, f"The destination {path}"),
    ):
        try:
            clean_up(path)
            yield aside
            sign(aside)
            check_free(path, overwrite=overwrite, spare=())
            put(aside, path)
        finally:
            with contextlib.suppress(OSError):
                clean_up(path)
            with contextlib.suppress(OSError):
                lock_file.unlink()


def clean_up(path: Path) -> None:
    """Removes what was written aside for a path; what it was to replace is put back first."""
    for old in temporary.names(path, OLD):
        if not (os.path.lexists(path) or old.is_symlink()):
            old.rename(path)
    for left in (*temporary.names(path), *temporary.names(path, OLD)):
        remove(left)


def put(aside: Path, path: Path) -> None:
    """Moves a finished file or folder to its place; a power loss can't undo it.

    If the file system cannot exchange two names, an old folder is away for an instant.
    """
    for inside in sorted(aside.rglob("*"), reverse=True):
        atomic.sync(inside)
    if not os.path.lexists(path) or not (path.is_dir() or aside.is_dir()):
        atomic.move(aside, path)
        return
    atomic.sync(aside)
    atomic.before("rename", path)
    if not exchange(aside, path):
        path.rename(temporary.name_of(path, OLD))
        aside.rename(path)
    atomic.sync(path.parent)


def exchange(first: Path, second: Path) -> bool:
    """Returns whether two paths have come to stand for each other's content, in one step."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "renameat2"):
        return False
    names = os.fsencode(first), os.fsencode(second)
    return bool(library.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE) == 0)


def remove(path: Path) -> None:
    """Removes a file, or a folder with all that is in it."""
    atomic.before("remove", path)
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    try:
        # It follows no link, not even one that takes a folder's place meanwhile.
        shutil.rmtree(path)
    except RecursionError:
        problem = f"{path.name} beside it nests too deep to be removed"
        raise OSError(errno.ENOTEMPTY, problem, str(path)) from None


def size_of(path: Path) -> int:
    """Returns the size of a file, or of all files in a folder (bytes)."""
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())


def sign(folder: Path) -> None:
    """Writes into a folder that was just exported which files are in it; a file signs itself."""
    if folder.is_dir():
        atomic.write(folder / MARK, json.dumps({"exported": files(folder)}, indent=1) + "\n")


def foreign(path: Path) -> Path | None:
    """Returns the first thing at a path that gpt2cli did not export, or None.

    A folder or file with nothing in it is nobody's. Raises OSError if it cannot be read.
    """
    status = path.lstat()
    if stat.S_ISREG(status.st_mode):
        return None if not status.st_size or WORD in beginning(path) else path
    if not stat.S_ISDIR(status.st_mode):
        return path
    known = listed(path)
    strange = (path / name for name in files(path) if name not in known)
    # Empty folders that nest by the thousand could not be removed.
    return next(strange, None) or next(path.glob("/".join("*" * TOO_DEEP)), None)


def listed(folder: Path) -> frozenset[str]:
    """Returns the files that were exported into a folder; none if gpt2cli did not export there."""
    names: Json = None
    with contextlib.suppress(FileNotFoundError, BadDataError):
        names = json_reader.read(folder / MARK).get("exported")
    is_ours = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return frozenset([*names, MARK] if is_ours else [])


def files(folder: Path) -> list[str]:
    """Returns the paths below a folder of all that are not folders; links are not followed."""
    paths = (Path(entry.path) for entry in reading.files_below(folder))
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def beginning(path: Path) -> bytes:
    """Returns the first bytes of a file, unzipped if it is zipped."""
    with reading.opened(path) as file:
        found = file.read(LOOKED_AT_BYTES)
    if not found.startswith(GZIP):
        return found
    with contextlib.suppress(zlib.error):
        return zlib.decompressobj(GZIP_FORMAT).decompress(found, LOOKED_AT_BYTES)
    return b""
