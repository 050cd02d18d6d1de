"""Work that changes nothing, given up at once when a signal asks the command to stop."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

from gpt2cli.runtime.signals import ABANDONED, Stop

Item = TypeVar("Item")
# How often a signal is looked for.
SLICE_SECONDS = 0.1
END = object()


def interruptible(work: Iterator[Item], stop: Stop) -> Iterator[Item]:
    """Yields the items of some work, and ends early, within a moment, on a signal.

    XLA compiles in one call that may take seconds, so a thread does the work. After a signal
    nobody waits for that thread: it must change nothing that is saved.
    """
    wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
    made: queue.SimpleQueue[object] = queue.SimpleQueue()

    def make() -> None:
        while wanted.get():
            try:
                made.put(next(work, END))
            except BaseException as error:
                made.put(error)

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    wanted.put(not stop)
    try:
        while not stop:
            try:
                item = made.get(timeout=SLICE_SECONDS)
            except queue.Empty:
                continue
            if item is END:
                return
            if isinstance(item, BaseException):
                raise item
            yield item  # type: ignore[misc]
            wanted.put(not stop)
    finally:
        wanted.put(False)
        if stop:
            ABANDONED.append(thread)
