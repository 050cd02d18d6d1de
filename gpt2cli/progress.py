"""How far a piece of work is: a bar on a terminal, elsewhere a plain line now and then."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from tqdm import tqdm

from gpt2cli.errors import message
from gpt2cli.records import Progress, Record, StepReport
from gpt2cli.terminal import LivingLine, is_terminal

if TYPE_CHECKING:
    from typing_extensions import Self

LINE_SECONDS = 10.0
# How long a piece of work may be silent before it is named.
LONG_SECONDS = 4.0
COMPILING = "compiling (once for this model, options and device)"

Piece = TypeVar("Piece")


@dataclass(frozen=True)
class Received:
    """How far one file is: the bytes that are there, and of how many (None: not known)."""

    done: int
    total: int | None


Event = Received | Record


def told(events: Iterator[Event], label: str, bars: bool) -> Iterator[Record]:
    """Yields the records among the events of a file; the others are drawn as a bar.

    Without bars there is a line every ten seconds, and one at the end.
    """
    began = last_told = time.monotonic()
    last: Received | None = None
    drawn = Bar(label) if bars else None
    with drawn or contextlib.nullcontext():
        for event in events:
            if not isinstance(event, Received):
                yield event
                continue
            last = event
            if drawn:
                drawn.advance(event.done, event.total)
            elif (now := time.monotonic()) - last_told >= LINE_SECONDS:
                last_told = now
                yield Progress(f"{label}: {portion(event.done, event.total)}")
    if last is not None and not bars:
        yield Progress(f"{label}: {amount(last.done)} in {time.monotonic() - began:.1f} s")


@contextlib.contextmanager
def announced(line: str, *, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Says what the block does if that takes long: on a terminal a living line, else a line.

    The block may be deep in a library by then. What is yielded takes another line in its place.
    """
    lines, began = [line], time.monotonic()

    def text() -> str:
        """Returns the newest line, and how long it takes already."""
        return f"{lines[-1]} ({time.monotonic() - began:.0f} s)"

    seen: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
    if not quiet:
        # Without a stderr there is nothing to say it on.
        with contextlib.suppress(OSError):
            seen = LivingLine(text) if is_terminal() else PrintedLine(text)
    with seen:
        yield lines.append


def living(line: str, *, quiet: bool) -> contextlib.AbstractContextManager[object]:
    """Says what the block does if that takes long, on a terminal only."""
    return announced(line, quiet=quiet or not is_terminal())


class PrintedLine(LivingLine):
    """A line that is printed if the block takes long, and now and then anew."""

    def __init__(self, text: Callable[[], str]) -> None:
        super().__init__(text)
        self._delay, self._tick = LONG_SECONDS, LINE_SECONDS

    def draw(self) -> None:
        """Prints the line as it is now."""
        self._write(f"{message(self._text())}\n")


class Count:
    """How many pieces are `done`: a living line on a terminal, or a line every ten seconds."""

    def __init__(self, label: str, total: int, *, quiet: bool, unit: str = "") -> None:
        self._label, self._total, self._unit, self._quiet = label, total, unit, quiet
        self.done, self._remark = 0, ""
        self._began = self._told = time.monotonic()
        self._line = LivingLine(self._text) if not quiet and is_terminal() else None

    @property
    def _counted(self) -> str:
        return f"{self._label} {self.done:,} of {self._total:,} {self._unit}".rstrip()

    def _text(self) -> str:
        elapsed = time.monotonic() - self._began
        return f"{self._counted} {bar(self.done, self._total, elapsed)} {self._remark}"

    def named(self, work: Iterator[Piece], line: str) -> Iterator[Piece]:
        """Yields the work's pieces; a line says what the first one is, if it takes long."""
        self._remark = line
        with announced(line, quiet=self._quiet or self._line is not None):
            first = list(itertools.islice(work, 1))
        self._remark = ""
        yield from first
        yield from work

    def advance(self, done: int, remark: str = "") -> Iterator[Progress]:
        """Draws how many are done, or yields a line if the last one is ten seconds ago."""
        now, self.done, self._remark = time.monotonic(), done, remark
        if self._line is not None:
            self._line.refresh()
        elif not self._quiet and now - self._told >= LINE_SECONDS:
            self._told = now
            yield Progress(f"{self._counted}: {remark}" if remark else self._counted)

    def __enter__(self) -> Self:
        if self._line is not None:
            self._line.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._line is not None:
            self._line.end()


class Steps:
    """How far a training is: one living line on a terminal, which takes the place of step lines."""

    def __init__(self, first: int, last: int | None) -> None:
        """Takes the step before the first one, and the last one, if it is known."""
        self._first, self._last = first, last
        self._newest: StepReport | None = None
        self._first_step, self._first_seconds = first, 0.0
        self._told = time.monotonic()

    def _text(self) -> str:
        """Returns the line: the step, loss, average, tokens a second and time left."""
        step, since = self._newest, time.monotonic() - self._told
        if step is None:
            return f"training ({since:.0f} s)"
        told = f"loss={step.loss:.2f} avg={step.average:.2f} {step.speed:,.0f} tokens/s"
        total = self._last and self._last - self._first
        # The first step compiles.
        took = step.seconds - self._first_seconds
        rate = (step.step - self._first_step) / took if took else None
        drawn = bar(step.step - self._first, total, step.seconds + since, rate)
        of = f" of {self._last:,}" if self._last else ""
        return f"step {step.step:,}{of} {drawn} {told}"

    def told(self, records: Iterator[Record]) -> Iterator[Record]:
        """Yields the records but those of steps, which the line tells of."""
        with LivingLine(self._text, at_once=True) as line:
            for record in records:
                if isinstance(record, StepReport):
                    if self._newest is None:
                        self._first_step, self._first_seconds = record.step, record.seconds
                    self._newest, self._told = record, time.monotonic()
                    line.draw() if record.step == self._last else line.refresh()
                else:
                    yield record


class Bar(LivingLine):
    """A living line that shows how far a file is, and stays when it is done."""

    def __init__(self, label: str) -> None:
        super().__init__(self._told)
        self._label, self._began = label, time.monotonic()
        self._last: tuple[int, int | None] | None = None

    def _told(self) -> str:
        seconds = time.monotonic() - self._began
        if self._last is None:
            return f"{self._label} ({seconds:.0f} s)"
        return f"{self._label}: {portion(*self._last)} {bar(*self._last, seconds)}"

    def advance(self, done: int, total: int | None) -> None:
        """Draws how far the file is."""
        self._last = done, total
        self.refresh()

    def __exit__(self, *_: object) -> None:
        self.end(leave=self._last is not None)


def bar(done: int, total: int | None, elapsed: float, rate: float | None = None) -> str:
    """Returns a bar, with the time that it took and the time that is left (seconds).

    `rate` is how much is done in a second, if that is not `done` by `elapsed`.
    """
    shown = "|{bar:10}| {elapsed} < {remaining}" if total else "{elapsed}"
    return tqdm.format_meter(done, total or 0, elapsed, bar_format=shown, rate=rate)


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
