"""A process that encodes what comes on stdin, until there is no more; crew.py starts it."""

from __future__ import annotations

import pickle
import struct
import sys
from typing import IO

# Each message is its length and as many bytes.
LENGTH = struct.Struct("<Q")


def main() -> None:
    """Takes a pickled tokenizer, then texts; answers each text with its packed tokens."""
    source, target = sys.stdin.buffer, sys.stdout.buffer
    try:
        tokenizer = pickle.loads(receive(source))
        while True:
            send(target, tokenizer.encode_packed(receive(source).decode(), special=True))
    except (EOFError, BrokenPipeError):
        # The parent has finished, or has died.
        return


def send(file: IO[bytes], content: bytes) -> None:
    """Writes a message."""
    file.write(LENGTH.pack(len(content)))
    file.write(content)
    file.flush()


def receive(file: IO[bytes]) -> bytes:
    """Returns the next message.

    Raises:
        EOFError: there is no whole one.
    """
    start = file.read(LENGTH.size)
    content = file.read(LENGTH.unpack(start)[0]) if len(start) == LENGTH.size else None
    if content is None or len(content) < LENGTH.unpack(start)[0]:
        raise EOFError
    return content
