"""What paths and globs name, and what is in folders; what cannot be read is never passed over."""

from __future__ import annotations

import fnmatch
import glob
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from gpt2cli.errors import MissingInputError, shortened


def status_of(path: str | Path) -> os.stat_result | None:
    """Returns what the operating system knows of a path; None where there is no such thing.

    Raises:
        MissingInputError: it may not be looked at.
    """
    try:
        return os.stat(path)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        if glob.has_magic(str(path)):
            # A glob may be longer than a name.
            return None
        reason = getattr(error, "strerror", None) or error
        raise MissingInputError(f"{shortened(path)} cannot be read: {reason}.") from error


def needed_status(path: Path) -> os.stat_result:
    """Returns what the operating system knows of something that was found in a folder.

    Raises:
        MissingInputError: it is a link that leads nowhere, or may not be looked at.
    """
    status = status_of(path)
    if status is None:
        raise missing(path)
    return status


def missing(path: Path) -> MissingInputError:
    """Returns the error of a link that leads nowhere, or of a file that is gone by now."""
    if path.is_symlink():
        target = shortened(os.readlink(path))  # noqa: PTH115
        return MissingInputError(
            f"{shortened(path)} is a link to {target}, which is not there. Mend or remove it."
        )
    return MissingInputError(f"{shortened(path)} is not there any more.")


def children(folder: Path) -> list[Path]:
    """Returns what is in a folder, sorted.

    Raises:
        MissingInputError: it cannot be read.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise MissingInputError(
            f"{shortened(folder)} cannot be read: {error.strerror}. "
            "Make it readable, or name the files beside it."
        ) from error


def root(pattern: str) -> Path:
    """Returns the folder in which a glob begins to look."""
    parts = Path(pattern).parts
    fixed = next((n for n, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return Path(*parts[:fixed])


def expanded(pattern: str) -> list[Path]:
    """Returns the paths that a glob matches, sorted, as Python's does; `**` is any folders.

    Raises:
        MissingInputError: a folder that it looks into cannot be read, where Python's says nothing.
    """
    begin = root(pattern)
    found = [begin]
    for part in Path(pattern).parts[len(begin.parts) :]:
        found = [path for folder in found for path in matching(folder, part)]
    return sorted(set(found))


def matching(folder: Path, part: str) -> Iterator[Path]:
    """Yields what in a folder matches one part of a glob; nothing where it is no folder."""
    status = status_of(folder)
    if status is None or not stat.S_ISDIR(status.st_mode):
        return
    if part == "**":
        yield from below(folder)
    elif not glob.has_magic(part):
        if os.path.islink(folder / part) or status_of(folder / part):  # noqa: PTH114
            yield folder / part
    else:
        for path in children(folder):
            hidden = path.name.startswith(".") and not part.startswith(".")
            if not hidden and fnmatch.fnmatchcase(path.name, part):
                yield path


def below(folder: Path) -> Iterator[Path]:
    """Yields a folder and those below it; one that several links lead to comes once."""
    seen, waiting = set[tuple[int, int]](), [folder]
    while waiting:
        path = waiting.pop()
        status = status_of(path)
        if status is None or not stat.S_ISDIR(status.st_mode):
            continue
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            yield path
            shown = [each for each in children(path) if not each.name.startswith(".")]
            waiting += reversed(shown)
