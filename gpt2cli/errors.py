"""Every failure that a user can cause or mend, each with its exit code.

    Gpt2cliError            1    training diverged, memory does not fit
    ├── UsageError          2    an option is out of range, or two contradict each other
    ├── BadDataError       65    a corpus is not text, a file is damaged, a run does not fit
    ├── MissingInputError  66    a corpus, model, run or checkpoint is not there
    ├── RefusedError       69    the host refuses for good
    ├── OutputError        73    output cannot be created, or exists and was not to be replaced
    ├── DiskError          74    the disk is full or fails
    └── TryLaterError      75    the run is locked, or the network is down

The codes are those of BSD's sysexits.h, so that a wrapper can tell what to do next.
"""

from __future__ import annotations

import os
import re

# The longest message (characters).
MOST_CHARACTERS = 499
# A name and password within an address.
CREDENTIALS = re.compile(r"://[^/?#\s]*@")
# A shorter HF_TOKEN is none, and may be part of any word (characters).
LEAST_TOKEN = 8
# How much of a text that comes from elsewhere a message shows (characters).
SHOWN = 120


def shortened(text: object, most: int = SHOWN) -> str:
    """Returns foreign text fit for a message: on one line, printable, with its middle left out.

    It may be a path, a header, an exception, whatever a stranger may have written.
    """
    # What str() makes of undecodable bytes in a path are lone surrogates: not printable either.
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in cut(text, most))
    return cut(shown, most)


def cut(text: object, most: int) -> str:
    """Returns a text without passwords, its middle left out if it is longer than `most`."""
    whole = without_password(str(text))
    half = (most - 1) // 2
    return whole if len(whole) <= most else f"{whole[:half]}…{whole[-half:]}"


def without_password(text: str) -> str:
    """Returns a text with `…` in place of HF_TOKEN, and of the names and passwords in addresses."""
    token = os.environ.get("HF_TOKEN", "").strip()
    if len(token) >= LEAST_TOKEN:
        text = text.replace(token, "…")
    return CREDENTIALS.sub("://…@", text)


def message(text: str) -> str:
    """Returns a whole message as it may be shown: printable, with its middle left out if long."""
    lines = (shortened(line, MOST_CHARACTERS) for line in cut(text, MOST_CHARACTERS).split("\n"))
    return cut("\n".join(lines), MOST_CHARACTERS)


class Gpt2cliError(Exception):
    """A failure that takes one or two lines to report: what is wrong, and what mends it."""

    exit_code = 1


class UsageError(Gpt2cliError):
    """The command line asks for something that cannot be."""

    exit_code = 2


class BadDataError(Gpt2cliError):
    """Input is there, but is not what it should be."""

    exit_code = 65


class MissingInputError(Gpt2cliError):
    """Input is not there."""

    exit_code = 66


class RefusedError(Gpt2cliError):
    """The host answers, and will not give the file."""

    exit_code = 69


class OutputError(Gpt2cliError):
    """Output cannot be created, or exists and was not to be replaced."""

    exit_code = 73


class DiskError(Gpt2cliError):
    """The disk is full, or reading or writing it fails."""

    exit_code = 74


class TryLaterError(Gpt2cliError):
    """The same command may succeed later."""

    exit_code = 75
