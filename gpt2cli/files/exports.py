"""Which files and folders gpt2cli has exported: another export replaces only those."""

from __future__ import annotations

import contextlib
import json
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path

from gpt2cli import json_reader, reading
from gpt2cli.errors import BadDataError
from gpt2cli.files import atomic
from gpt2cli.json_reader import Json

# In a folder, it lists what was exported into it.
MARK = ".gpt2cli-export.json"
# In a file, it stands near the beginning.
WORD = b"gpt2cli"
LOOKED_AT_BYTES = 4096
GZIP, GZIP_FORMAT = b"\x1f\x8b", 16 + zlib.MAX_WBITS
# No export has a folder this far below its own.
TOO_DEEP = 8


def sign(folder: Path) -> None:
    """Writes into a folder that was just exported which files are in it; a file signs itself."""
    if folder.is_dir():
        names = sorted(files(folder))
        atomic.write(folder / MARK, json.dumps({"exported": names}, indent=1) + "\n")


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
    strange = (path / name for name in sorted(files(path)) if name not in known)
    # Empty folders that nest by the thousand could not be removed.
    return next(strange, None) or next(path.glob("/".join("*" * TOO_DEEP)), None)


def listed(folder: Path) -> frozenset[str]:
    """Returns the files that were exported into a folder; none if gpt2cli did not export there."""
    try:
        mark: dict[str, Json] = json_reader.read(folder / MARK)
    except (FileNotFoundError, BadDataError):
        return frozenset()
    names = mark.get("exported")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return frozenset()
    return frozenset([*names, MARK])


def files(folder: Path) -> Iterator[str]:
    """Yields the paths below a folder of all that are not folders; links are not followed."""
    for entry in reading.files_below(folder):
        yield Path(entry.path).relative_to(folder).as_posix()


def beginning(path: Path) -> bytes:
    """Returns the first bytes of a file, unzipped if it is zipped."""
    with reading.opened(path) as file:
        found = file.read(LOOKED_AT_BYTES)
    if not found.startswith(GZIP):
        return found
    with contextlib.suppress(zlib.error):
        return zlib.decompressobj(GZIP_FORMAT).decompress(found, LOOKED_AT_BYTES)
    return b""
