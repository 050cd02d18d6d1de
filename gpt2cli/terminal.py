"""One living line on a terminal: drawn anew every second, and out of the way of other lines."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

from gpt2cli.errors import message

STDERR = 2
# How long a piece of work may be silent before its line is drawn; how often that ticks; and how
# soon it is drawn anew.
DELAY_SECONDS, TICK_SECONDS, DRAW_SECONDS = 1.0, 1.0, 0.1
# Back to the beginning of the line; what follows there goes.
BEGIN, CLEAR = "\r", "\x1b[K"
USUAL_COLUMNS = 80
# Those that are drawn, the newest last: only it is seen. Whoever prints takes the lock.
LINES: list[LivingLine] = []
LOCK = threading.RLock()


def is_terminal() -> bool:
    """Returns whether stderr is a terminal that can draw a line anew."""
    return sys.stderr.isatty() and os.isatty(STDERR) and os.environ.get("TERM") != "dumb"


@contextlib.contextmanager
def room() -> Iterator[None]:
    """Within the block no living line is drawn: other lines can be printed there."""
    with LOCK:
        for line in LINES:
            line.clear()
        yield


class LivingLine:
    """A line on stderr while a block runs; stderr must be a terminal."""

    def __init__(self, text: Callable[[], str], *, at_once: bool = False) -> None:
        """Takes what the line says at any moment, and whether it is drawn without delay."""
        self._text = text
        self._delay, self._tick = 0.0 if at_once else DELAY_SECONDS, TICK_SECONDS
        self._due = time.monotonic() + self._delay
        self._drawn, self._done = False, threading.Event()
        # TensorFlow is loaded with another stderr.
        self._descriptor = os.dup(STDERR)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> LivingLine:
        with LOCK:
            LINES.append(self)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self, *, leave: bool = False) -> None:
        """Ends the line: it goes away, or stays as it is."""
        self._done.set()
        self._thread.join()
        with LOCK:
            if leave:
                self.draw()
                self._write("\n")
            else:
                self.clear()
            LINES.remove(self)
        os.close(self._descriptor)

    def refresh(self) -> None:
        """Draws the line, unless it is too new or was drawn just now."""
        if time.monotonic() >= self._due:
            self.draw()

    def draw(self) -> None:
        """Draws the line as it is now, unless another one is drawn in its place."""
        with LOCK:
            if LINES and LINES[-1] is self:
                columns = USUAL_COLUMNS
                with contextlib.suppress(OSError):
                    columns = os.get_terminal_size(self._descriptor).columns or columns
                # A line that fills the last column would go on in the next one.
                self._write(BEGIN + message(self._text())[: columns - 1] + CLEAR)
                self._drawn, self._due = True, time.monotonic() + DRAW_SECONDS

    def clear(self) -> None:
        """Clears the line, if it is drawn."""
        if self._drawn:
            self._write(BEGIN + CLEAR)
        self._drawn = False

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            os.write(self._descriptor, text.encode(errors="replace"))

    def _run(self) -> None:
        seconds = self._delay
        while not self._done.wait(seconds):
            seconds = self._tick
            self.draw()
