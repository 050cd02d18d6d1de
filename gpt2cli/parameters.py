"""The options of a config as Typer reads them."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from gpt2cli.options import Option

TYPE_NAMES = {int: "INT", float: "FLOAT", str: "TEXT"}


def parameter(field: dataclasses.Field[Any], rule: Option, kind: Any) -> inspect.Parameter:
    """Returns a field as a parameter that Typer reads: its type, help, range, names, default."""
    default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
    word = field.name.upper()
    if get_origin(kind) is tuple:
        required = default is inspect.Parameter.empty
        word = f"{word}..." if required else f"[{word.removesuffix('S')}]..."
        kind = list[get_args(kind)[0]]  # type: ignore[misc]
        default = list(default) if isinstance(default, tuple) else default
    told = (
        typer.Argument(help=rule.help, metavar=word)
        if rule.argument
        else typer_option(field.name, rule, kind)
    )
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, told],
    )


def typer_option(name: str, rule: Option, kind: Any) -> Any:
    """Returns Typer's description of an option: its names, help, range and kind of value."""
    word = name.replace("_", "-")
    two_sided = bool in (kind, *get_args(kind))
    names = [f"--{word}/--no-{word}" if two_sided else f"--{word}"]
    if rule.short:
        names.append(rule.short)
    plain = next((TYPE_NAMES[t] for t in TYPE_NAMES if t is kind or t in get_args(kind)), None)
    choices = "|".join(get_args(kind)) if get_origin(kind) is Literal else None
    return typer.Option(
        *names,
        help=rule.help,
        min=rule.least,
        max=rule.most,
        metavar=plain or choices,
        show_envvar=False,
        callback=each_line if get_origin(kind) is list else None,
    )


def each_line(
    context: typer.Context, told: typer.CallbackParam, values: list[str]
) -> Sequence[str]:
    """Returns a repeatable option's values; those from the environment stand one a line.

    Typer would split them at every space.
    """
    source = context.get_parameter_source(str(told.name))
    if source is None or source.name != "ENVIRONMENT":
        return values
    text = os.environ[f"{context.auto_envvar_prefix}_{str(told.name).upper()}"]
    return [line for line in text.split("\n") if line]
