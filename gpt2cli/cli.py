"""Command line → config → one call → print what it yields; nothing else prints or exits."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from gpt2cli import reading, spelling
from gpt2cli.application import COMMANDS, application
from gpt2cli.errors import DiskError, Gpt2cliError, UsageError, message
from gpt2cli.files.atomic import FULL_DISK
from gpt2cli.runtime.signals import (
    Interrupted,
    leave,
    leave_on_signals,
    raise_on_signals,
    run_interruptible,
    signals_blocked,
)
from gpt2cli.terminal import STDERR, room

if TYPE_CHECKING:
    from gpt2cli.config.shared import Shared
    from gpt2cli.records import Record

BROKEN_PIPE_EXIT_CODE = 141
STDOUT = 1


def main() -> None:
    """Runs the command line and exits with the code that tells how it went."""
    replace_closed_outputs()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # If the locale has no such character, a `?` is better than no text.
        sys.stdout.reconfigure(errors="replace")
    try:
        raise_on_signals()
        arguments = spelling.with_mode(sys.argv[1:])
        code = run_interruptible(lambda: run_command(arguments))
        # From here on a signal ends the process, without a traceback as Python ends.
        leave_on_signals()
    except Interrupted as interrupted:
        leave_on_signals()
        say(f"gpt2cli: {interrupted.message}")
        code = 128 + interrupted.signum
    leave(code)


def run_command(arguments: list[str]) -> int:
    """Runs a command line; returns the exit code."""
    try:
        code = application(perform)(arguments, standalone_mode=False, prog_name="gpt2cli") or 0
        sys.stdout.flush()
    except (Gpt2cliError, typer.TyperException) as error:
        code = refuse(error)
    except (OSError, SystemExit) as error:
        code = code_of(error)
    return int(code)


def code_of(error: OSError | SystemExit) -> int:
    """Returns the exit code if the system refuses, or Typer ends the process; else raises anew."""
    if isinstance(error, SystemExit):
        # Typer answers a closed pipe by ending the process, with 1.
        if not isinstance(error.__context__, OSError):
            return int(error.code or 0)
        error = error.__context__
    if isinstance(error, BrokenPipeError):
        code = BROKEN_PIPE_EXIT_CODE
    # Other code reports files that cannot be written, by their names.
    elif error.filename is None and error.errno in FULL_DISK:
        code = refuse(DiskError(f"Cannot write to stdout: {error.strerror}."))
    elif error.errno is not None:
        # atomic.disk_errors reports what is written: this is about something that is read.
        return refuse(reading.refusal(error))
    else:
        raise error
    # What Python still holds for stdout must not fail again at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
    return code


def replace_closed_outputs() -> None:
    """Gives outputs that the parent has closed (`>&-`) to nobody.

    Otherwise the next file that is opened would be stdout, and get what is meant for it.
    """
    for name, descriptor in (("stdin", 0), ("stdout", STDOUT), ("stderr", STDERR)):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
            setattr(sys, name, open(descriptor, "r" if descriptor == 0 else "w"))  # noqa: PTH123, SIM115


def perform(name: str, settings: Shared) -> int:
    """Runs a verb and prints what it yields; returns the exit code."""
    if not settings.quiet:
        for line in spelling.strange_variables(os.environ, COMMANDS):
            say(f"gpt2cli: {line}")
    if not settings.verbose:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from gpt2cli.records import Stopped

    with signals_blocked():
        verb = getattr(importlib.import_module(f"gpt2cli.commands.{name}"), name)
    records: Iterator[Record] = verb(settings)
    for record in records:
        show(record, settings)
        if isinstance(record, Stopped):
            return 128 + record.signal
    return 0


def show(record: Record, settings: Shared) -> None:
    """Prints a record where its channel belongs."""
    if record.event == "sample":
        # A reader that is gone, or a full disk, does not end a training.
        with contextlib.suppress(BrokenPipeError, DiskError):
            deliver(str(record))
    elif record.channel == "text":
        deliver(str(record))
    elif record.channel == "alert" or not settings.quiet:
        say(str(record))


def deliver(text: str) -> None:
    """Prints text on stdout, or raises: BrokenPipeError if nobody reads it any more, DiskError."""
    try:
        with room():
            print(text, end="", flush=True)
    except OSError as error:
        # What Python still holds for stdout must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
        if isinstance(error, BrokenPipeError):
            raise
        raise DiskError(f"Cannot write to stdout: {error.strerror}.") from error


def refuse(error: Exception) -> int:
    """Prints what went wrong in a line or two; returns the exit code."""
    code = int(getattr(error, "exit_code", 1))
    if isinstance(error, typer.TyperException):
        error = UsageError(spelling.wording(error, COMMANDS))
    say(f"gpt2cli: {error}" + (" See `gpt2cli --help`." if code == UsageError.exit_code else ""))
    return code


def say(line: str) -> None:
    """Prints a line on stderr, if somebody still reads it."""
    try:
        with room():
            print(message(line), file=sys.stderr, flush=True)
    except OSError:
        # A closed terminal must not end a training run.
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
