"""What SIGINT, SIGTERM and SIGHUP do: leave at once in good order, or finish a step first."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

from gpt2cli.terminal import BEGIN, CLEAR, LINES, STDERR

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Means nothing to anybody else: so the thread that waits for signals calls the main one.
WAKE_UP = signal.SIGURG
# How long a call into a library may keep a signal waiting if nothing can be lost.
GRACE_SECONDS = 1.5
# `timeout` sends its signal twice in a row, to its child and to the group: so soon it is the same.
ECHO_SECONDS = 0.3
STOPPED = "stopped"
# The thread that waits for signals.
WAITER = "signals"
# Threads that may still compute when the command ends, after a signal: nobody waits for them.
ABANDONED: list[threading.Thread] = []


class Interrupted(BaseException):
    """A signal asks the command to leave; like KeyboardInterrupt, not an Exception.

    Its message says what is safe and how to go on, if the command could say.
    """

    def __init__(self, signum: int, message: str = STOPPED) -> None:
        super().__init__(signum, message)
        self.signum = signum
        self.message = message


class Stop:
    """A wish to stop: to be looked at between two pieces of work, or one that is heard at once.

    Attributes:
        signum: the signal that asked, or None.
        asked: whether it was to be heard at once.
        catches: whether a first Ctrl-C is only noted: in `interrupts_caught`.
        interrupted: whether it was.
    """

    def __init__(self, *, at_once: bool = False) -> None:
        """Takes whether there is nothing to finish, so that a signal raises Interrupted."""
        self.signum: int | None = None
        self.asked = self.interrupted = self.catches = False
        self._at_once, self._message = at_once, STOPPED
        self._ended, self._came = False, 0.0

    def __bool__(self) -> bool:
        return self.signum is not None

    def request(self, signum: int) -> None:
        """Notes the first signal and says so at once; a second one ends the process at once."""
        if self.catches and signum == signal.SIGINT and not self.interrupted:
            self.interrupted = True
            return
        again = self.signum is not None
        if again and signum == self.signum and time.monotonic() - self._came < ECHO_SECONDS:
            return
        if again or self._ended:
            os._exit(128 + signum)
        self._came, self.signum = time.monotonic(), signum
        if self._at_once:
            self.asked = True
            signal.pthread_kill(threading.main_thread().ident or 0, WAKE_UP)
            threading.Thread(target=self._insist, args=(signum,), daemon=True).start()
        else:
            say(b"stopping after this step; a second signal leaves at once, unsaved\n")

    @contextlib.contextmanager
    def at_once(self, message: str = STOPPED) -> Iterator[None]:
        """Within the block a signal, be it from before, raises Interrupted with a message."""
        before = self._at_once, self._message
        self._at_once, self._message = True, message
        try:
            self.check()
            yield
            # Libraries lose what is raised in their callbacks.
            self.check()
        finally:
            self._at_once, self._message = before

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Within the block a signal is looked at only between two pieces of work."""
        before, self._at_once = self._at_once, False
        try:
            yield
        finally:
            self._at_once = before

    def end(self, *, forget: bool = False) -> None:
        """Lets a signal end the process at once and quietly from now on; or nothing at all."""
        self._ended, self.asked = True, self.asked and not forget

    def check(self) -> None:
        """Raises Interrupted if a signal came."""
        if self.signum is not None:
            raise Interrupted(self.signum, self._message)

    def handle(self, signum: int, _frame: FrameType | None) -> None:
        """Is Python's handler, for what the main thread itself gets and for its being called."""
        if signum != WAKE_UP:
            self.request(signum)
            return
        if self._at_once and not self._ended:
            self.check()

    def _insist(self, signum: int) -> None:
        """Ends the process if its main thread hears nothing, or does not come to an end."""
        threading.Event().wait(GRACE_SECONDS)
        if self.asked and self._at_once:
            # The command has printed its closing message by now, if it had ended.
            if not self._ended:
                say(f"gpt2cli: {self._message}\n".encode())
            os._exit(128 + signum)


# What the whole process listens with, once `raise_on_signals` was called.
WHOLE: list[Stop] = []
PROCESS = contextlib.ExitStack()


def say(line: bytes) -> None:
    """Writes a line to stderr, but not through Python: the main thread may be in another line."""
    with contextlib.suppress(OSError):
        os.write(STDERR, (f"{BEGIN}{CLEAR}".encode() if LINES else b"") + line)


def raise_on_signals() -> None:
    """From now on a signal raises Interrupted in the main thread; if it stays, the process ends.

    The main thread may be deep in a library, which may lose what is raised in it as well. Nothing
    is lost if the process ends: what is half-written has no name by which it would be taken.
    """
    stop_listening()
    sys.unraisablehook = print_unraisable
    stop = Stop(at_once=True)
    PROCESS.enter_context(listening(stop))
    PROCESS.callback(WHOLE.clear)
    WHOLE.append(stop)


def stop_listening() -> None:
    """Undoes `raise_on_signals`."""
    PROCESS.close()


def leave_on_signals() -> None:
    """From now on a signal ends the process at once and quietly."""
    for stop in WHOLE:
        stop.end()


def run_interruptible(work: Callable[[], int]) -> int:
    """Returns what work does; a signal raises Interrupted, whatever libraries made of it."""
    code, fault = 0, None
    try:
        code = work()
    except Exception as error:
        fault = error
    for stop in WHOLE:
        if stop.asked:
            stop.check()
    if fault is not None:
        raise fault
    return code


def print_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """Prints an exception that nobody can catch, but for Interrupted."""
    if not issubclass(unraisable.exc_type, Interrupted):
        sys.__unraisablehook__(unraisable)


def leave(code: int) -> NoReturn:
    """Ends the process; at once if a thread still computes that nobody waits for.

    TensorFlow must not be taken down under such a thread.
    """
    if any(thread.is_alive() for thread in ABANDONED):
        # It would slow every start.
        from gpt2cli.runtime import compile_cache

        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        # Whatever is registered for the end is not called now. A program takes its name when it is
        # whole, so that none is sealed that the thread still writes.
        compile_cache.seal_prepared()
        os._exit(code)
    sys.exit(code)


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Within the block signals wait, and the threads that it starts will never take one.

    Those of NumPy's products would: in them a signal that TensorFlow listens for as well is lost,
    and what it raises is lost in NumPy's own imports.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (*SIGNALS, WAKE_UP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextlib.contextmanager
def deferred() -> Iterator[Stop]:
    """Within the block a signal only sets the Stop that is yielded, and is announced at once."""
    if WHOLE and threading.current_thread() is threading.main_thread():
        with WHOLE[0].noted():
            yield WHOLE[0]
        return
    stop = Stop()
    with listening(stop):
        yield stop


@contextlib.contextmanager
def interrupts_caught() -> Iterator[Stop]:
    """Within the block Ctrl-C only sets `interrupted` of the Stop that is yielded.

    A second one is a signal as elsewhere: the block may be in a call that does not end.
    """
    stop = WHOLE[0] if WHOLE else Stop()
    stop.interrupted, stop.catches = False, True
    try:
        yield stop
    finally:
        stop.catches = False


@contextlib.contextmanager
def listening(stop: Stop) -> Iterator[None]:
    """Within the block the Stop gets the signals, wherever the main thread is.

    It may be deep in TensorFlow for seconds, while Python runs no handler: a thread waits for the
    signals. They are blocked in this thread and in all that it starts, so that TensorFlow's own
    threads don't take them. Outside the main thread signals are left alone.
    """
    # Not those that the parent has told us to ignore (nohup).
    numbers = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    if threading.current_thread() is not threading.main_thread() or not numbers:
        yield
        return
    before = {number: signal.signal(number, stop.handle) for number in (*numbers, WAKE_UP)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    done = threading.Event()
    waiter = threading.Thread(target=_wait, args=(numbers, stop, done), name=WAITER, daemon=True)
    waiter.start()
    try:
        yield
    finally:
        stop.end(forget=True)
        done.set()
        if waiter.ident is not None:
            signal.pthread_kill(waiter.ident, numbers[0])
        waiter.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(numbers: list[signal.Signals], stop: Stop, done: threading.Event) -> None:
    """Takes signals until all is done and `deferred` sends one itself.

    Not by sigtimedwait: if SIGCONT ends its time, Python tells of a signal that never came.
    """
    while True:
        received = signal.sigwaitinfo(numbers)
        if done.is_set() and received.si_pid == os.getpid():
            return
        stop.request(received.si_signo)
