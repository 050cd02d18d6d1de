"""The door: command line → config → one call → print what it yields; alone prints and exits."""

from __future__ import annotations

import importlib
import inspect
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer
import typer.core

from gpt2cli import __version__, reading, spelling
from gpt2cli.config.download import DownloadConfig
from gpt2cli.config.evaluate import EvaluateConfig
from gpt2cli.config.export import ExportConfig
from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.config.generate import GenerateConfig
from gpt2cli.config.shared import Shared
from gpt2cli.errors import DiskError, Gpt2cliError, UsageError, message, shortened
from gpt2cli.files.atomic import FULL_DISK
from gpt2cli.options import options
from gpt2cli.parameters import parameter
from gpt2cli.records import Record, Sample, Stopped
from gpt2cli.runtime.signals import (
    Interrupted,
    held,
    leave_on_signals,
    raise_on_signals,
    undisturbed,
)

COMMANDS: dict[str, type[Shared]] = {
    "download": DownloadConfig,
    "finetune": FinetuneConfig,
    "generate": GenerateConfig,
    "evaluate": EvaluateConfig,
    "export": ExportConfig,
}
EPILOG = (
    "Every option of a command can come from the environment: GPT2CLI_FINETUNE_STEPS=100 is "
    "`finetune --steps 100`; of a repeatable option each line is a value. Exit codes: 0 done, "
    "1 failed, 2 usage, 65 bad data, 66 input missing, 69 refused by the host, 73 output exists, "
    "74 disk, 75 try again later, 129/130/143 stopped by a signal, 141 nobody reads the output."
)
BROKEN_PIPE_EXIT_CODE = 141
USAGE_EXIT_CODE = 2
STDOUT = 1
STDERR = 2


def main() -> None:
    """Runs the command line and exits with the code that tells how it went."""
    replace_closed_outputs()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Where the locale has no such character, a `?` is better than no text.
        sys.stdout.reconfigure(errors="replace")
    try:
        raise_on_signals()
        arguments = spelling.with_mode(sys.argv[1:])
        code = undisturbed(lambda: run_command(arguments))
        # From here on a signal ends the process, without a traceback of Python's own end.
        leave_on_signals()
    except Interrupted as interrupted:
        leave_on_signals()
        say(f"gpt2cli: {interrupted.message}")
        code = 128 + interrupted.signum
    sys.exit(code)


def run_command(arguments: list[str]) -> int:
    """Runs a command line; returns the exit code."""
    try:
        code = application()(arguments, standalone_mode=False, prog_name="gpt2cli") or 0
        sys.stdout.flush()
    except (Gpt2cliError, typer.TyperException) as error:
        code = refuse(error)
    except (OSError, SystemExit) as error:
        code = code_of(error)
    return int(code)


def code_of(error: OSError | SystemExit) -> int:
    """Returns the exit code where the system refuses, or Typer ends the process itself.

    Raises:
        OSError: it is no refusal of the system's.
    """
    # Typer answers a closed pipe by ending the process, with 1.
    cause = error.__context__ if isinstance(error, SystemExit) else error
    if isinstance(error, SystemExit) and not isinstance(cause, OSError):
        return int(error.code or 0)
    if isinstance(cause, BrokenPipeError):
        code = BROKEN_PIPE_EXIT_CODE
    # Files that cannot be written are told elsewhere, by their names.
    elif isinstance(cause, OSError) and cause.filename is None and cause.errno in FULL_DISK:
        code = refuse(DiskError(f"Cannot write to stdout: {cause.strerror}."))
    elif isinstance(cause, OSError) and cause.errno is not None:
        # What is written is told by atomic.disk_errors: this is of something that is read.
        return refuse(reading.refusal(cause))
    else:
        raise error
    # What Python still holds for stdout must not fail once more at exit.
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


def application() -> typer.Typer:
    """Returns the command line with every command on it."""
    app = typer.Typer(
        name="gpt2cli",
        cls=Program,
        help="Fine-tune GPT-2 on your text and generate from it.",
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={
            "token_normalize_func": lambda token: token.replace("_", "-"),
            "help_option_names": ["-h", "--help"],
            "max_content_width": 100,
        },
    )
    app.callback(epilog=EPILOG)(program)
    for name, settings in COMMANDS.items():
        # Only of commands: else GPT2CLI_VERSION would be `--version`, whatever the command.
        variables = {"auto_envvar_prefix": f"{spelling.ENVIRONMENT}_{name.upper()}"}
        made = command(name, settings)
        app.command(name, cls=Command, help=settings.__doc__, context_settings=variables)(made)
    return app


class Program(typer.core.TyperGroup):
    """The commands, with proposals where one is not known."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Returns the command that the arguments begin with.

        Raises:
            UsageError: there is none of that name.
        """
        if args[0].startswith("-") or args[0] in COMMANDS or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        raise UsageError(
            f"There is no command '{shortened(args[0])}'; there are {', '.join(COMMANDS)}."
            + spelling.meant_command(args[0], COMMANDS)
        )


class Command(typer.core.TyperCommand):
    """A command that takes gpt-2-simple's spellings, and names the variable that is wrong."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Reads the arguments; returns those that are left."""
        if not ctx.resilient_parsing:
            args = spelling.plain(args, COMMANDS[str(self.name)])
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; returns its exit code.

        Raises:
            UsageError: as the command does; it names the variables that options come from.
        """
        given = {name.replace("_", "-"): ctx.get_parameter_source(name) for name in ctx.params}
        if not ctx.params["quiet"]:
            for line in spelling.strange_variables(os.environ, COMMANDS):
                say(f"gpt2cli: {line}")
        try:
            return super().invoke(ctx)
        except UsageError as error:
            told = spelling.with_sources(str(error), str(self.name), given)
            raise UsageError(told) from error


def print_version(wanted: bool) -> None:
    """Prints the version and leaves, where it is asked for."""
    if wanted:
        print(f"gpt2cli {__version__}")
        raise typer.Exit


def program(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=print_version, is_eager=True),
    ] = False,
) -> None:
    """Stands for `gpt2cli` itself, before any command."""


def command(name: str, settings: type[Shared]) -> Callable[..., int]:
    """Returns a function with the settings' fields as its signature, for Typer to read."""

    def run(**values: Any) -> int:
        fields: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return perform(name, settings(**fields))

    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameter(field, rule, kind) for field, rule, kind in options(settings)]
    )
    run.__annotations__ = {}
    return run


def perform(name: str, settings: Shared) -> int:
    """Runs a verb and prints what it yields; returns the exit code."""
    if not settings.verbose:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with held():
        verb = getattr(importlib.import_module(f"gpt2cli.commands.{name}"), name)
    records: Iterator[Record] = verb(settings)
    for record in records:
        show(record, settings)
        if isinstance(record, Stopped):
            return 128 + record.signal
    return 0


def show(record: Record, settings: Shared) -> None:
    """Prints a record where its channel belongs."""
    if isinstance(record, Sample):
        offer(str(record))
    elif record.channel == "text":
        deliver(str(record))
    elif record.channel == "alert" or not settings.quiet:
        say(str(record))


def deliver(text: str) -> None:
    """Prints text on stdout, where it must arrive.

    Raises:
        BrokenPipeError: nobody reads it any more.
        DiskError: stdout is a file that cannot take it.
    """
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        # What Python still holds for stdout must not fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
        raise DiskError(f"Cannot write to stdout: {error.strerror}.") from error


def offer(text: str) -> None:
    """Prints text on stdout, where somebody still reads it."""
    try:
        print(text, end="", flush=True)
    except OSError:
        # A closed pipe or a full disk must not end a training run, nor fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)


def refuse(error: Exception) -> int:
    """Prints what went wrong in a line or two; returns the exit code."""
    code = int(getattr(error, "exit_code", 1))
    if isinstance(error, typer.TyperException):
        error = UsageError(spelling.wording(error, COMMANDS))
    say(f"gpt2cli: {error}" + (" See `gpt2cli --help`." if code == USAGE_EXIT_CODE else ""))
    return code


def say(line: str) -> None:
    """Prints a line on stderr, where somebody still reads it."""
    try:
        print(message(line), file=sys.stderr, flush=True)
    except OSError:
        # A closed terminal must not end a training run.
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
