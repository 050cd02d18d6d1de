"""Names beside a path for what is being written there, which nobody else can guess or take."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

PART = ".part"
# A longer name is shortened in those that are made from it (bytes); file systems allow 255.
LONGEST_NAME = 200
# No link is followed, no pipe is waited for, and no child inherits the file.
SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def name_of(path: Path, ending: str = PART) -> Path:
    """Returns a name beside a path, which nobody can guess, for what will become it."""
    return path.with_name(f".{short(path.name)}.{os.urandom(8).hex()}{ending}")


def short(name: str) -> str:
    """Returns a name that leaves room for what is put around it; the same one each time."""
    written = os.fsencode(name)
    if len(written) <= LONGEST_NAME:
        return name
    # It would slow every start.
    import hashlib

    begin = written[: LONGEST_NAME - 20].decode(errors="ignore")
    return f"{begin}-{hashlib.sha256(written).hexdigest()[:16]}"


def names(path: Path, ending: str = PART) -> list[Path]:
    """Returns the files beside a path under names as `name_of` makes them."""
    # Not a pattern of the shell: `.out.*.part` would be `.out.gguf.7.part` too, of another one.
    name = re.compile(rf"\.{re.escape(short(path.name))}\.[0-9a-f]+{re.escape(ending)}")
    return sorted(entry for entry in path.parent.iterdir() if name.fullmatch(entry.name))


def claimed(aside: Path) -> int:
    """Makes an empty file that nothing else can be; returns its descriptor.

    While that is open, `is_abandoned` knows that the file is being written.
    """
    while True:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | SAFELY, 0o666)
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever cleans up may have come between the two.
        if is_at(descriptor, aside):
            return descriptor
        os.close(descriptor)


def is_at(file: int, path: Path) -> bool:
    """Returns whether an open file is the one that has this name now."""
    try:
        return os.path.samestat(os.fstat(file), path.lstat())
    except OSError:
        return False


def is_abandoned(aside: Path) -> bool:
    """Returns whether a file that was being written has lost its writer; links never had one."""
    if aside.is_symlink():
        return True
    try:
        descriptor = os.open(aside, os.O_RDONLY | SAFELY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return False
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """Makes a folder among the temporary files only for the user; it goes when the block ends."""
    # It would slow every start.
    import tempfile

    with tempfile.TemporaryDirectory(prefix="gpt2cli-") as place:
        yield Path(place)
