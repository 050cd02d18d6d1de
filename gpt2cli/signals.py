"""What SIGINT, SIGTERM and SIGHUP do: leave at once in good order, or finish a step first."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
POLL_SECONDS = 0.1
STDERR = 2


class Interrupted(BaseException):
    """A signal asks the command to leave; like KeyboardInterrupt, not an Exception.

    Attributes:
        signum: the signal's number.
        message: what is safe and how to go on, where the command could say.
    """

    def __init__(self, signum: int, message: str = "stopped") -> None:
        super().__init__(signum, message)
        self.signum = signum
        self.message = message


class Stop:
    """A wish to stop, to be looked at between two pieces of work.

    Attributes:
        signum: the signal that asked, or None.
    """

    def __init__(self) -> None:
        self.signum: int | None = None

    def request(self, signum: int) -> None:
        """Notes the first signal and says so at once; a second one ends the process at once."""
        if self.signum is not None:
            os._exit(128 + signum)
        self.signum = signum
        # Not through sys.stderr: the main thread may be in the middle of a line.
        with contextlib.suppress(OSError):
            os.write(STDERR, b"stopping after this step; a second signal leaves at once, unsaved\n")


def handled() -> list[signal.Signals]:
    """Returns those of the three signals that the parent has not told us to ignore (nohup)."""
    return [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]


def raise_on_signals() -> None:
    """From now on a signal raises Interrupted in the main thread."""

    def leave(signum: int, _frame: FrameType | None) -> None:
        raise Interrupted(signum)

    for number in handled():
        signal.signal(number, leave)


def leave_on_signals() -> None:
    """From now on a signal ends the process at once and quietly."""
    for number in handled():
        signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Within the block signals wait, and the threads that it starts will never take one.

    Those of NumPy's products would: in them a signal that TensorFlow listens for as well is lost,
    and what it raises is lost in NumPy's own imports.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextlib.contextmanager
def deferred() -> Iterator[Stop]:
    """Within the block a signal only sets the Stop that is yielded, and is announced at once.

    The main thread may be deep in TensorFlow for seconds, where Python runs no handler: a thread
    waits for the signals. They are blocked in this thread and in all that it starts, so that
    TensorFlow's own threads don't take them. Outside the main thread signals are left alone.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = handled()
    before = {n: signal.signal(n, lambda signum, _frame: stop.request(signum)) for n in numbers}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    done = threading.Event()
    waiter = threading.Thread(target=_wait, args=(numbers, stop, done), daemon=True)
    waiter.start()
    try:
        yield stop
    finally:
        done.set()
        waiter.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(numbers: list[signal.Signals], stop: Stop, done: threading.Event) -> None:
    while not done.is_set():
        received = signal.sigtimedwait(numbers, POLL_SECONDS)
        if received is not None:
            stop.request(received.si_signo)
