"""One writer to a folder: a lock that dies with the process that holds it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from gpt2cli.errors import TryLaterError

POLL_SECONDS = 0.2
BUSY = (errno.EAGAIN, errno.EACCES)


class BusyError(TryLaterError):
    """Another process holds a lock.

    Attributes:
        holder: which one, as far as it is known.
    """

    def __init__(self, what: str, holder: str) -> None:
        super().__init__(f"{what} is in use by {holder}. Try again later.")
        self.holder = holder


@contextlib.contextmanager
def locked(path: Path, what: str, wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Holds the lock on a file within the block; the operating system frees it if we die.

    Args:
        path: the lock file; it is made where it is missing, and left there.
        what: the thing that is locked, for the message.
        wait: called once with who holds the lock, and then waited for; without it a lock that
            another process holds is an error.

    Raises:
        BusyError: another process holds the lock.
    """
    with contextlib.ExitStack() as stack:
        while True:
            file = stack.enter_context(path.open("a+", encoding="utf-8"))
            if not acquire(file):
                if wait is None:
                    raise BusyError(what, holder(file))
                wait(holder(file))
                while not acquire(file):
                    time.sleep(POLL_SECONDS)
            # Who held it may have removed the file: then this lock is one that nobody sees.
            if is_at(file, path):
                break
        sign(file)
        yield


def is_at(file: IO[str], path: Path) -> bool:
    """Returns whether an open file is the one that has this name now."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def acquire(file: IO[str]) -> bool:
    """Returns whether the lock is ours now; file systems without locks grant it always."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in BUSY
    return True


def sign(file: IO[str]) -> None:
    """Writes who holds the lock into its file, for others to name."""
    file.seek(0)
    file.truncate()
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    json.dump({"pid": os.getpid(), "host": platform.node(), "started": started}, file)
    file.flush()


def holder(file: IO[str]) -> str:
    """Returns who holds the lock, as far as its file says."""
    file.seek(0)
    try:
        owner = json.load(file)
        return f"process {owner['pid']} on {owner['host']}, started {owner['started']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
