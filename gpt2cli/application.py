"""The command line as Typer runs it: the commands, their options, their help."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args, get_origin

import typer
import typer.core
import typer.models

from gpt2cli import __version__, help_text, spelling
from gpt2cli.errors import UsageError, shortened
from gpt2cli.options import Option, flag, options

if TYPE_CHECKING:
    # Remove when typer gives its own click another place to import from.
    from typer._click.core import Command as ClickCommand
    from typer._click.core import Context
    from typer._click.formatting import HelpFormatter

    from gpt2cli.config.shared import Shared

# Runs a command with its settings; returns the exit code.
Perform = Callable[[str, "Shared"], int]

SUMMARIES = {
    "download": "Fetch GPT-2 models, OpenAI's and others from the Hub.",
    "finetune": "Train a model on your text.",
    "generate": "Write text with a model.",
    "chat": "Talk with a model, line by line.",
    "evaluate": "Judge how well a model predicts a text.",
    "export": "Write a model in another program's format.",
    "tokens": "Show the tokens of a text.",
    "info": "Show what is installed, and which models and runs there are.",
}
# By this variable a shell asks what could come next (Typer, "CLI Option autocompletion").
COMPLETING = "_GPT2CLI_COMPLETE"
EPILOG = (
    "Every option of a command can come from the environment: GPT2CLI_FINETUNE_STEPS=100 is "
    "`finetune --steps 100`; each line of such a variable is a value of a repeatable option. Exit "
    "codes: 0 done, 1 failed, 2 usage, 65 bad data, 66 input missing, 69 refused by the host, 73 "
    "output exists, 74 disk, 75 try again later, 129/130/143 stopped by a signal, 141 nobody reads "
    "the output."
)


class Commands(Mapping[str, "type[Shared]"]):
    """The config of each command by the command's name; its module loads when it is needed."""

    def __getitem__(self, name: str) -> type[Shared]:
        module = importlib.import_module(f"gpt2cli.config.{name}")
        config: type[Shared] = getattr(module, f"{name.capitalize()}Config")
        return config

    def __iter__(self) -> Iterator[str]:
        return iter(SUMMARIES)

    def __len__(self) -> int:
        return len(SUMMARIES)

    def __contains__(self, name: object) -> bool:
        return name in SUMMARIES


COMMANDS = Commands()


class Program(typer.core.TyperGroup):
    """The commands; each is made when it is needed, and calls `perform`."""

    perform: Perform

    def list_commands(self, ctx: Context) -> list[str]:
        """Returns the names of the commands."""
        return list(SUMMARIES)

    def get_command(self, ctx: Context, cmd_name: str) -> ClickCommand | None:
        """Returns a command, or None if there is none of that name."""
        return typer_command(cmd_name, self.perform) if cmd_name in SUMMARIES else None

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Returns the arguments that are left; if there are none at all, help is shown."""
        if args or ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        typer.echo(ctx.get_help(), err=True)
        raise typer.Exit(UsageError.exit_code)

    def resolve_command(
        self, ctx: Context, args: list[str]
    ) -> tuple[str | None, ClickCommand | None, list[str]]:
        """Returns the command that the arguments begin with; raises UsageError if there is none."""
        if args[0].startswith("-") or args[0] in SUMMARIES or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        raise UsageError(
            f"There is no command '{shortened(args[0])}'; there are {', '.join(SUMMARIES)}."
            + spelling.meant_command(args[0], SUMMARIES)
        )

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Writes the commands, and the options that need none."""
        with formatter.section("Commands"):
            formatter.write_dl(list(SUMMARIES.items()))
        with formatter.section("Options"):
            records = (each.get_help_record(ctx) for each in self.get_params(ctx))
            formatter.write_dl([record for record in records if record])


class Command(typer.core.TyperCommand):
    """A command that takes gpt-2-simple's spellings, and names the variable that is wrong."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Reads the arguments; returns those that are left."""
        if not ctx.resilient_parsing:
            args = spelling.plain(args, COMMANDS[str(self.name)])
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Context) -> object:
        """Returns the command's exit code; a UsageError names the variables options come from."""
        try:
            return super().invoke(ctx)
        except UsageError as error:
            raise UsageError(spelling.with_sources(str(error), ctx)) from error

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Writes the options in groups, then the examples."""
        for heading, rows in help_text.sections(COMMANDS[str(self.name)]):
            with formatter.section(heading):
                formatter.write_dl(rows)
        with formatter.section("Examples"):
            for line in help_text.prose(COMMANDS[str(self.name)])[1]:
                formatter.write(f"  {line}\n")


def application(perform: Perform) -> Program:
    """Returns the command line: a function of its arguments, which calls `perform`."""
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
    app.callback(epilog=EPILOG)(no_command)
    made = cast(Program, typer.main.get_command(app))
    made.perform = perform
    return made


def show_version(wanted: bool) -> None:
    """Shows the version and exits, if that is wanted."""
    if wanted:
        typer.echo(f"gpt2cli {__version__}")
        raise typer.Exit


def no_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Stands for `gpt2cli` itself, before any command."""


def typer_command(name: str, perform: Perform) -> ClickCommand:
    """Returns a command as Typer runs it; its options are the fields of its config."""
    config = COMMANDS[name]

    def run(**values: object) -> int:
        """Runs the command with its options by their fields' names; returns the exit code."""
        fields: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return perform(name, config(**fields))

    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameter(field, rule, kind) for field, rule, kind in options(config)]
    )
    run.__annotations__ = {}
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    # Only of commands: else GPT2CLI_VERSION would be `--version`, whatever the command.
    variables = {"auto_envvar_prefix": f"{spelling.ENVIRONMENT}_{name.upper()}"}
    text, _ = help_text.prose(config)
    app.command(name, cls=Command, help=text, context_settings=variables)(run)
    return typer.main.get_command(app)


def proposals_for(name: str) -> Callable[..., list[str]] | None:
    """Returns what proposes values of an option, if a shell asks; else None."""
    if COMPLETING not in os.environ:
        return None
    # Loading it would slow the start of every command.
    from gpt2cli import completion

    return completion.proposals_for(name)


def parameter(field: dataclasses.Field[Any], rule: Option, kind: object) -> inspect.Parameter:
    """Returns a field as a parameter that Typer reads: its type, help, range, names, default."""
    default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
    described = typer_option(field.name, rule, kind)
    if rule.argument:
        shown, proposals = help_text.argument_metavar(field), proposals_for(field.name)
        described = typer.Argument(help=rule.help, metavar=shown, autocompletion=proposals)
    if get_origin(kind) is tuple:
        kind = list[get_args(kind)[0]]  # type: ignore[misc]
        default = list(default) if isinstance(default, tuple) else default
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, described],
    )


def typer_option(name: str, rule: Option, kind: object) -> typer.models.OptionInfo:
    """Returns Typer's description of an option: its names, help, range and kind of value."""
    two_sided = bool in (kind, *get_args(kind))
    described: typer.models.OptionInfo = typer.Option(
        f"{flag(name)}/--no-{flag(name)[2:]}" if two_sided else flag(name),
        *filter(None, [rule.short]),
        help=rule.help,
        min=rule.least,
        max=rule.most,
        metavar=None if two_sided else help_text.metavar(kind),
        show_envvar=False,
        callback=each_line if get_origin(kind) is tuple else None,
        autocompletion=proposals_for(name),
    )
    return described


def each_line(
    context: typer.Context, described: typer.CallbackParam, values: list[str]
) -> Sequence[str]:
    """Returns a repeatable option's values; of a variable its lines, as Typer splits at spaces."""
    if not spelling.is_from_environment(context, str(described.name)):
        return values
    text = os.environ[f"{context.auto_envvar_prefix}_{str(described.name).upper()}"]
    return [line for line in text.split("\n") if line]
