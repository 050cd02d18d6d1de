"""One writer to a folder: a lock that dies with the process that holds it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gpt2cli import json_reader
from gpt2cli.errors import BadDataError, OutputError, TryLaterError, shortened
from gpt2cli.files import temporary

POLL_SECONDS = 0.2
FIELDS = ("pid", "host", "started")
# What a lock file holds is far shorter (bytes).
MOST_BYTES = 1000
BUSY = (errno.EAGAIN, errno.EACCES)


class BusyError(TryLaterError):
    """Another process holds a lock: `holder`, as far as it is known."""

    def __init__(self, what: str, holder: str) -> None:
        super().__init__(f"{what} is in use by {holder}. Try again later.")
        self.holder = holder


@contextlib.contextmanager
def locked(path: Path, what: str, wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Holds the lock on a file within the block; the operating system frees it if we die.

    The file is made if it is missing, and left there. `wait` is called once with who holds the
    lock, and that is waited for; without it, BusyError is raised, on what the message says. Raises
    OutputError if what has the file's name is not a lock of ours, OSError if it cannot be made.
    """
    with contextlib.ExitStack() as stack:
        while True:
            made = not os.path.lexists(path)
            file = opened(path)
            stack.callback(os.close, file)
            if not acquire(file):
                if wait is None:
                    raise BusyError(what, holder(file))
                wait(holder(file))
                while not acquire(file):
                    time.sleep(POLL_SECONDS)
            # Who held it may have removed the file: then this lock is one that nobody sees.
            if temporary.is_at(file, path):
                break
        try:
            sign(file, path)
        except OSError:
            if made:
                path.unlink(missing_ok=True)
            raise
        yield


def opened(path: Path) -> int:
    """Returns the descriptor of a lock file, made if it is missing; a link is not followed."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | temporary.SAFELY, 0o666)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OutputError(f"{shortened(path)} is not a regular file, and no lock. Remove it.")
    return file


def acquire(file: int) -> bool:
    """Returns whether the lock is ours now; file systems without locks grant it always."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in BUSY
    return True


def sign(file: int, path: Path) -> None:
    """Writes who holds the lock into its file, for others to name."""
    # Something else may be the user's file.
    if owner(file) is None and os.fstat(file).st_size:
        raise OutputError(f"{shortened(path)} is not a gpt2cli lock. Give it another name.")
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    signature = {"pid": os.getpid(), "host": platform.node(), "started": started}
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(signature).encode(), 0)


def holder(file: int) -> str:
    """Returns who holds the lock, as far as its file says."""
    if (found := owner(file)) is None:
        return "another process"
    pid, host, started = (shortened(found[name], 40) for name in FIELDS)
    return f"process {pid} on {host}, started {started}"


def owner(file: int) -> dict[str, Any] | None:
    """Returns who has signed a lock file, or None if nobody has."""
    try:
        found: dict[str, Any] = json_reader.parse(os.pread(file, MOST_BYTES, 0), "the lock")
    except BadDataError:
        return None
    return found if set(found) == set(FIELDS) else None
