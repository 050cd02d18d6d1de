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

# How much of a text that comes from elsewhere a message shows (characters).
SHOWN = 120


def shortened(text: object, most: int = SHOWN) -> str:
    """Returns foreign text fit for a message: on one line, printable, with its middle left out.

    Args:
        text: a path, a header, an exception, whatever a stranger may have written.
        most: how many characters to keep.
    """
    # What str() makes of undecodable bytes in a path are lone surrogates: not printable either.
    whole = str(text)
    if len(whole) > most:
        half = (most - 1) // 2
        whole = f"{whole[:half]}…{whole[-half:]}"
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in whole)


class Gpt2cliError(Exception):
    """A failure that is told in one or two lines: what is wrong, and what mends it."""

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
