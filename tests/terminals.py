"""A real terminal for tests: a pty, and what is to be seen on it in the end."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

COLUMNS = 100


class Screen:
    """What was written to a pty.

    Attributes:
        pieces: each with the time at which it came (seconds, monotonic).
    """

    def __init__(self, main: int) -> None:
        fcntl.ioctl(main, termios.TIOCSWINSZ, struct.pack("HHHH", 30, COLUMNS, 0, 0))
        self.pieces: list[tuple[float, str]] = []
        self._main = main
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        # It ends by an error once nobody holds the other end.
        with contextlib.suppress(OSError):
            while data := os.read(self._main, 1 << 16):
                self.pieces.append((time.monotonic(), data.decode(errors="replace")))

    def close(self) -> None:
        self._thread.join()
        os.close(self._main)

    @property
    def text(self) -> str:
        """Everything that was written."""
        return "".join(piece for _, piece in self.pieces)

    @property
    def drawn(self) -> list[str]:
        """Each line as it was once, those that were drawn over too."""
        return [line for line in re.split(r"[\r\n]|\x1b\[K", self.text) if line]

    @property
    def seen(self) -> list[str]:
        """The lines that stand there in the end."""
        rows = self.text.replace("\r\n", "\n").split("\n")
        return [row.split("\r")[-1].replace("\x1b[K", "") for row in rows]


@contextlib.contextmanager
def screen() -> Iterator[Screen]:
    """Makes stderr a terminal within the block."""
    main, other = pty.openpty()
    before, kept = sys.stderr, os.dup(2)
    os.dup2(other, 2)
    os.close(other)
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), line_buffering=True)
    found = Screen(main)
    try:
        yield found
    finally:
        sys.stderr.flush()
        sys.stderr = before
        os.dup2(kept, 2)
        os.close(kept)
        found.close()


def run_on_terminal(arguments: Sequence[object], place: Path) -> tuple[int, Screen, float]:
    """Runs the command line with a terminal as all its outputs.

    Returns the exit code, what was on the screen, and when it began (seconds, monotonic).
    """
    main, other = pty.openpty()
    found, began = Screen(main), time.monotonic()
    command = [sys.executable, "-m", "gpt2cli", *map(str, arguments)]
    done = subprocess.run(
        command,
        cwd=place,
        stdin=other,
        stdout=other,
        stderr=other,
        start_new_session=True,
        timeout=300,
        check=False,
    )
    os.close(other)
    found.close()
    return done.returncode, found, began
