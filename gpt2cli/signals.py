"""What SIGINT, SIGTERM and SIGHUP do: leave at once in good order, or finish a step first."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Means nothing to anybody else: so the thread that waits for signals calls the main one.
CALL = signal.SIGURG
STDERR = 2
# How long a call into a library may keep a signal waiting where nothing can be lost.
GRACE_SECONDS = 1.5


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
        self._at_once = self._asked = False

    def __bool__(self) -> bool:
        return self.signum is not None

    def request(self, signum: int) -> None:
        """Notes the first signal and says so at once; a second one ends the process at once."""
        if self.signum is not None:
            os._exit(128 + signum)
        self.signum = signum
        if self._at_once:
            self._asked = True
            signal.pthread_kill(threading.main_thread().ident or 0, CALL)
            threading.Thread(target=self._insist, args=(signum,), daemon=True).start()
        else:
            say(b"stopping after this step; a second signal leaves at once, unsaved\n")

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Within the block there is nothing to finish: a signal raises Interrupted.

        Raises:
            Interrupted: a signal came, in the block or before it.
        """
        self._at_once = True
        try:
            self.check()
            yield
            # Libraries lose what is raised in their callbacks.
            self.check()
        finally:
            self._at_once = False

    def check(self) -> None:
        """Raises Interrupted if a signal came."""
        if self.signum is not None:
            raise Interrupted(self.signum)

    def handle(self, signum: int, _frame: FrameType | None) -> None:
        """Is Python's handler, for what the main thread itself gets and for its being called."""
        if signum != CALL:
            self.request(signum)
            return
        self._asked = False
        if self._at_once:
            self.check()

    def _insist(self, signum: int) -> None:
        threading.Event().wait(GRACE_SECONDS)
        if self._asked and self._at_once:
            leave_now(signum)


def say(line: bytes) -> None:
    """Writes a line to stderr, but not through Python: the main thread may be in another line."""
    with contextlib.suppress(OSError):
        os.write(STDERR, line)


def leave_now(signum: int) -> None:
    """Ends the process where its main thread hears nothing."""
    say(b"gpt2cli: stopped\n")
    os._exit(128 + signum)


def handled() -> list[signal.Signals]:
    """Returns those of the three signals that the parent has not told us to ignore (nohup)."""
    return [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]


def raise_on_signals() -> None:
    """From now on a signal raises Interrupted in the main thread."""

    def leave(signum: int, _frame: FrameType | None) -> None:
        raise Interrupted(signum)

    for number in handled():
        signal.signal(number, leave)


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
    numbers = handled()
    if threading.current_thread() is not threading.main_thread() or not numbers:
        yield stop
        return
    before = {number: signal.signal(number, stop.handle) for number in (*numbers, CALL)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    done = threading.Event()
    waiter = threading.Thread(target=_wait, args=(numbers, stop, done), daemon=True)
    waiter.start()
    try:
        yield stop
    finally:
        done.set()
        if waiter.ident is not None:
            signal.pthread_kill(waiter.ident, numbers[0])
        waiter.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(numbers: list[signal.Signals], stop: Stop, done: threading.Event) -> None:
    """Takes signals until all is done and `deferred` sends one itself.

    Not by sigtimedwait: where SIGCONT ends its time, Python tells of a signal that never came.
    """
    while True:
        received = signal.sigwaitinfo(numbers)
        if done.is_set() and received.si_pid == os.getpid():
            return
        stop.request(received.si_signo)
