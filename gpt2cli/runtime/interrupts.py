"""Ctrl-C that stops a piece of work, and not the command."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from gpt2cli.runtime.signals import WHOLE, Stop


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
