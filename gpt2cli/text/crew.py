"""Processes that encode text side by side; each is a worker.py with pipes to and from it.

They are plain subprocesses rather than multiprocessing's: those import the program's main module
again, which may load TensorFlow, and outlive a parent that was killed.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from gpt2cli.runtime.hardware import cores
from gpt2cli.text.tokenizer import Tokenizer
from gpt2cli.text.worker import receive, send

# Each takes some 100 MB.
MOST = 4
PROGRAM = (
    "import json, sys\n"
    "sys.path[:] = json.loads(sys.argv[1])\n"
    "from gpt2cli.text import worker\n"
    "worker.main()\n"
)


class Helper:
    """A process that encodes; where it dies, this process does its work."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._process: subprocess.Popen[bytes] | None = None
        self._text = ""

    def start(self) -> None:
        """Starts the process."""
        with contextlib.suppress(OSError):
            self._process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, json.dumps(sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # A terminal's Ctrl-C is for this process to see, not for the helpers.
                start_new_session=True,
            )

    def prepare(self, pickled: bytes) -> None:
        """Hands it the tokenizer."""
        self._send(pickled)

    def give(self, text: str) -> None:
        """Hands it a text to encode; it has none."""
        self._text = text
        try:
            self._send(text.encode())
        except UnicodeEncodeError:
            # No text: the tokenizer says what is wrong with it.
            self.end()

    def take(self) -> bytes:
        """Returns the packed tokens of the text that it was given."""
        try:
            if self._process is not None and self._process.stdout is not None:
                return receive(self._process.stdout)
        except (OSError, EOFError):
            self.end()
        return self._tokenizer.encode_packed(self._text, special=True)

    def _send(self, content: bytes) -> None:
        try:
            if self._process is not None and self._process.stdin is not None:
                send(self._process.stdin, content)
        except OSError:
            self.end()

    def end(self) -> None:
        """Ends the process at once."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
            process.wait()


def size() -> int:
    """Returns how many helpers are worth their while here: one a core, but not too many."""
    return min(cores(), MOST)


def encoded(chunks: Iterable[str | bytes], tokenizer: Tokenizer, count: int) -> Iterator[bytes]:
    """Yields each chunk's packed tokens, in order; chunks of bytes are tokens already.

    Args:
        chunks: the text, cut where no word is.
        tokenizer: what encodes it.
        count: how many processes share it, or threads of compiled loops; 1: this one does it all.
    """
    if count == 1:
        for chunk in chunks:
            yield tokenizer.encode_packed(chunk, special=True) if isinstance(chunk, str) else chunk
        return
    if tokenizer.is_compiled:
        yield from in_threads(chunks, tokenizer, count)
        return
    helpers = [Helper(tokenizer) for _ in range(count)]
    try:
        for helper in helpers:
            helper.start()
        pickled = pickle.dumps(tokenizer)
        for helper in helpers:
            helper.prepare(pickled)
        yield from in_turn(chunks, helpers)
    finally:
        for helper in helpers:
            helper.end()


def in_threads(chunks: Iterable[str | bytes], tokenizer: Tokenizer, count: int) -> Iterator[bytes]:
    """Yields each chunk's packed tokens, in order; so many threads share the work."""

    def encode(chunk: str | bytes) -> bytes:
        return tokenizer.encode_packed(chunk, special=True) if isinstance(chunk, str) else chunk

    waiting: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(count) as pool:
        for chunk in chunks:
            waiting.append(pool.submit(encode, chunk))
            yield waiting.popleft().result() if len(waiting) > count else b""
        while waiting:
            yield waiting.popleft().result()


def in_turn(chunks: Iterable[str | bytes], helpers: list[Helper]) -> Iterator[bytes]:
    """Yields each chunk's packed tokens, in order; every helper has at most one chunk in hand."""
    free = deque(helpers)
    waiting: deque[Helper | bytes] = deque()
    for chunk in chunks:
        done = b""
        if isinstance(chunk, str):
            while not free:
                done += finish(waiting.popleft(), free)
            free[0].give(chunk)
            waiting.append(free.popleft())
        else:
            waiting.append(chunk)
        while waiting and isinstance(waiting[0], bytes):
            done += finish(waiting.popleft(), free)
        yield done
    while waiting:
        yield finish(waiting.popleft(), free)


def finish(work: Helper | bytes, free: deque[Helper]) -> bytes:
    """Returns the tokens that a helper has made, and frees it; tokens are returned as they are."""
    if isinstance(work, bytes):
        return work
    packed = work.take()
    free.append(work)
    return packed
