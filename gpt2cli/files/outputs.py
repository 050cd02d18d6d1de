"""Files for what was generated: each appears whole, and none takes another's place unasked."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from gpt2cli.errors import OutputError, shortened
from gpt2cli.files import atomic, temporary

# Names begin so, as gpt-2-simple's.
STEM = "gentext_"


def check_file(path: Path, *, overwrite: bool) -> None:
    """Raises OutputError if a file cannot be written, or exists and must not be replaced."""
    shown = shortened(path)
    with atomic.disk_errors(path):
        check_folder(path.parent)
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            return
    if stat.S_ISLNK(mode):
        raise OutputError(f"{shown} exists and is a link. Give the file that it leads to.")
    if stat.S_ISDIR(mode):
        raise OutputError(f"{shown} is a folder. Give a file's name, or --folder.")
    if not stat.S_ISREG(mode):
        raise OutputError(f"{shown} is not a regular file, and is not replaced. Give another name.")
    if not overwrite:
        raise OutputError(f"{shown} exists. Give another name, or --overwrite to replace it.")


def check_folder(folder: Path) -> None:
    """Raises OutputError if no files can be put into a folder, made if it is missing."""
    nearest = atomic.existing(folder)
    shown = shortened(nearest)
    if not nearest.is_dir():
        inside = shortened(folder)
        raise OutputError(f"{shown} is not a folder, so nothing can be put into {inside}.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(f"{shown} cannot be written to. Give a file in another folder.")


def names(folder: Path, count: int, ending: str) -> Iterator[Path]:
    """Yields names for new files, as gpt-2-simple's: by the time, and counted from 1."""
    stamp = datetime.now().strftime("%Y%m%d_%H%M%S_%f")
    for number in range(1, count + 1):
        yield folder / f"{STEM}{stamp}_{number}{ending}"


@contextlib.contextmanager
def written(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yields a path to append to; it becomes the file when the block ends well.

    What a process that was killed had begun to write there is removed. Raises what
    `atomic.disk_errors` does: OutputError too if there is a file by now.
    """
    with atomic.disk_errors(path):
        left = temporary.names(path) if path.parent.is_dir() else ()
        for abandoned in filter(temporary.is_abandoned, left):
            atomic.remove(abandoned)
        with atomic.whole_file(path, replace=overwrite) as aside:
            yield aside


def clean_up(folder: Path) -> None:
    """Removes what processes that were killed left of files whose names were by the time."""
    for left in folder.glob(f".{STEM}*{temporary.PART}"):
        with contextlib.suppress(OSError):
            if temporary.is_abandoned(left):
                atomic.remove(left)
