"""Files for what was generated: each appears whole, and none takes another's place unasked."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from gpt2cli.errors import OutputError
from gpt2cli.storage import atomic


def check_file(path: Path, *, overwrite: bool) -> None:
    """Raises OutputError where a file cannot be written, or exists and must not be replaced."""
    if path.is_dir():
        raise OutputError(f"{path} is a folder. Give a file's name, or --folder.")
    if path.exists() and not path.is_file():
        raise OutputError(f"{path} is no regular file, and is not replaced. Give another name.")
    if os.path.lexists(path) and not overwrite:
        raise OutputError(f"{path} exists. Give another name, or --overwrite to replace it.")
    check_folder(real(path).parent)


def real(path: Path) -> Path:
    """Returns the file that a path means, which may be missing: links are followed."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def check_folder(folder: Path) -> None:
    """Raises OutputError where no files can be put into a folder, made if it is missing."""
    nearest = atomic.existing(folder)
    if not nearest.is_dir():
        raise OutputError(f"{nearest} is no folder, so nothing can be put into {folder}.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(f"{nearest} cannot be written to. Give a file in another folder.")


def names(folder: Path, count: int, ending: str) -> Iterator[Path]:
    """Yields names for new files, as gpt-2-simple's: by the time, and counted from 1."""
    stamp = datetime.now().strftime("%Y%m%d_%H%M%S_%f")
    for number in range(1, count + 1):
        yield folder / f"gentext_{stamp}_{number}{ending}"


@contextlib.contextmanager
def written(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yields a path to append to by `add`; it becomes the file when the block ends well.

    Where a link is to be overwritten, the file that it leads to is.

    Raises:
        OutputError: the place cannot be written to, or has a file by now.
        DiskError: the disk is full or fails.
    """
    place = real(path) if overwrite else path
    with atomic.disk_errors(path), atomic.whole_file(place, replace=overwrite) as aside:
        atomic.write(aside, "")
        yield aside


def add(aside: Path, text: str) -> None:
    """Adds text to a file that is being written."""
    atomic.write(aside, text, "ab")
