"""How far a piece of work is: a bar on a terminal, elsewhere a plain line now and then."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from tqdm import tqdm

from gpt2cli.records import Progress, Record

LINE_SECONDS = 10.0
DRAW_SECONDS = 0.1
# How long a piece of work may be silent before it is named.
LONG_SECONDS = 4.0
STDERR = 2
COMPILING = "compiling (once for this model, options and device)"

Piece = TypeVar("Piece")


@dataclass(frozen=True)
class Received:
    """How far one file is.

    Attributes:
        done: bytes that are there.
        total: bytes that it will have, or None if that is not known.
    """

    done: int
    total: int | None


Event = Received | Record


def told(events: Iterator[Event], label: str, bars: bool) -> Iterator[Record]:
    """Yields the records among the events; tells how far they are by a bar, or by lines.

    Args:
        events: what happens to one file.
        label: what the bar or line begins with.
        bars: whether to draw a bar on stderr.
    """
    meter = Bar(label) if bars else Lines(label)
    with closing(meter):
        for event in events:
            if isinstance(event, Received):
                yield from meter.advance(event)
            else:
                meter.make_room()
                yield event
        yield from meter.end()


class Lines:
    """A line every ten seconds and one at the end."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._began = self._told = time.monotonic()
        self._last: Received | None = None

    def advance(self, event: Received) -> Iterator[Record]:
        """Yields a line if the last one is ten seconds ago."""
        self._last = event
        now = time.monotonic()
        if now - self._told >= LINE_SECONDS:
            self._told = now
            yield Progress(f"{self._label}: {portion(event.done, event.total)}")

    def end(self) -> Iterator[Record]:
        """Yields the last line."""
        if self._last is not None:
            seconds = time.monotonic() - self._began
            yield Progress(f"{self._label}: {amount(self._last.done)} in {seconds:.1f} s")

    def make_room(self) -> None:
        """Does nothing: a line stands above the next one by itself."""

    def close(self) -> None:
        """Does nothing: there is nothing to put away."""


@contextlib.contextmanager
def announced(line: str, *, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Says a line on stderr if the block takes long, and then now and then how long it has taken.

    The block may be deep in a library by then. What is yielded takes another line in its place.
    """
    lines, done = [line], threading.Event()
    if quiet:
        yield lines.append
        return
    try:
        # TensorFlow is loaded with another stderr.
        stderr = os.dup(STDERR)
    except OSError:
        yield lines.append
        return

    def say() -> None:
        """Writes the newest line with its seconds until the block has ended."""
        began, seconds = time.monotonic(), LONG_SECONDS
        while not done.wait(seconds):
            seconds = LINE_SECONDS
            with contextlib.suppress(OSError):
                os.write(stderr, f"{lines[-1]} ({time.monotonic() - began:.0f} s)\n".encode())

    teller = threading.Thread(target=say, daemon=True)
    teller.start()
    try:
        yield lines.append
    finally:
        done.set()
        teller.join()
        os.close(stderr)


class Count:
    """How many pieces of the total are done: a bar on a terminal, or a line every ten seconds."""

    def __init__(self, label: str, total: int, *, quiet: bool, unit: str = "") -> None:
        """Takes what the bar or line begins with."""
        self._label, self._total, self._unit, self._quiet = label, total, unit, quiet
        self._told = time.monotonic()
        self._bar: tqdm[NoReturn] | None = None
        if not quiet and sys.stderr.isatty():
            self._bar = tqdm(desc=label, total=total, unit=unit, leave=False, dynamic_ncols=True)

    def named(self, work: Iterator[Piece], line: str) -> Iterator[Piece]:
        """Yields the work's pieces; a line says what the first one is, if it takes long."""
        if self._bar is not None:
            self._bar.set_postfix_str(line)
        with announced(line, quiet=self._quiet or self._bar is not None):
            first = list(itertools.islice(work, 1))
        yield from first
        yield from work

    def advance(self, done: int, remark: str = "") -> Iterator[Progress]:
        """Draws how many are done, or yields a line if the last one is ten seconds ago."""
        now = time.monotonic()
        if self._bar is not None:
            if now - self._told >= DRAW_SECONDS or done == self._total:
                self._told = now
                self._bar.n = done
                self._bar.set_postfix_str(remark)
        elif not self._quiet and now - self._told >= LINE_SECONDS:
            self._told = now
            line = f"{self._label} {done:,} of {self._total:,} {self._unit}".rstrip()
            yield Progress(f"{line}: {remark}" if remark else line)

    def make_room(self) -> None:
        """Clears the bar's line, so that another can be printed there."""
        if self._bar is not None:
            self._bar.clear()

    def __enter__(self) -> Count:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


class Bar:
    """A tqdm bar, drawn on stderr."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._bar: tqdm[NoReturn] | None = None

    def advance(self, event: Received) -> Iterator[Record]:
        """Draws how far the file is; yields nothing."""
        if self._bar is None:
            self._bar = tqdm(
                desc=self._label,
                initial=event.done,
                total=event.total,
                unit="B",
                unit_scale=True,
                dynamic_ncols=True,
            )
        self._bar.total = event.total
        self._bar.update(event.done - self._bar.n)
        return iter(())

    def end(self) -> Iterator[Record]:
        """Yields nothing: the bar stays as it is."""
        return iter(())

    def make_room(self) -> None:
        """Clears the bar's line, so that another can be printed there."""
        if self._bar is not None:
            self._bar.clear()

    def close(self) -> None:
        """Leaves the bar as it is and goes to the next line."""
        if self._bar is not None:
            self._bar.close()


def portion(done: int, total: int | None) -> str:
    """Returns how much of a file is there, as in `12.5 of 497.8 MB`."""
    if total is None:
        return f"{amount(done)} of an unknown size"
    if total < 1e6:
        return f"{done:,} of {total:,} bytes"
    return f"{done / 1e6:,.1f} of {total / 1e6:,.1f} MB"


def amount(size: int) -> str:
    """Returns a number of bytes for people to read."""
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size:,} bytes"
