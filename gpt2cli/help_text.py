"""The help of a command: its options in groups, each with its default and range."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from gpt2cli.options import Config, Option, flag, options

# The headings, in their order.
GROUPS = (
    "Arguments",
    "Model and run",
    "Source",
    "Prompts",
    "Conversation",
    "Text",
    "Length",
    "Batch",
    "Optimiser",
    "Sampling",
    "Beam and contrastive search",
    "Output",
    "Memory and device",
    "Validation",
    "Samples",
    "Saving",
    "Reporting",
)

# What follows an option's name for a value of a type.
METAVARS = {int: "N", float: "N", str: "TEXT"}
EXAMPLES = "\n\nExamples:\n"

# An option as it is written, and what it does.
Row = tuple[str, str]


def sections(config: type[Config]) -> Iterator[tuple[str, list[Row]]]:
    """Yields each heading of a command's help, and the rows below it; arguments come first."""
    found: dict[str, list[Row]] = {group: [] for group in GROUPS}
    for field, rule, kind in options(config):
        group = GROUPS[0] if rule.argument else rule.group
        found[group].append((spelling(field, rule, kind), rule.help + remarks(field, rule)))
    found["Reporting"].append(("-h, --help", "Shows this message and exits."))
    yield from ((heading, rows) for heading, rows in found.items() if rows)


def spelling(field: dataclasses.Field[Any], rule: Option, kind: object) -> str:
    """Returns an option as help shows it: its names, and what to give to it."""
    if rule.argument:
        return argument_metavar(field)
    name = flag(field.name)
    if bool in (kind, *get_args(kind)):
        shown = name if field.default is False else f"{name} / --no-{name[2:]}"
        return f"{rule.short}, {shown}" if rule.short else shown
    return f"{name} {metavar(kind)}"


def argument_metavar(field: dataclasses.Field[Any]) -> str:
    """Returns the name of a command's argument as its usage shows it, as `[MODEL]...`."""
    word = field.name.upper()
    if not str(field.type).startswith("tuple"):
        return word
    required = field.default is dataclasses.MISSING
    return f"{word}..." if required else f"[{word.removesuffix('S')}]..."


def metavar(kind: object) -> str:
    """Returns what stands for an option's value: its choices, or the name of its type."""
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    kinds = (kind, *get_args(kind))
    return next(word for each, word in METAVARS.items() if each in kinds)


def remarks(field: dataclasses.Field[Any], rule: Option) -> str:
    """Returns an option's default and range in brackets; empty if it has neither."""
    default = shown_default(field, rule)
    notes = [f"default: {default}" if default else "", shown_range(rule)]
    if field.default is dataclasses.MISSING:
        notes.append("required")
    return f" [{'; '.join(filter(None, notes))}]" if any(notes) else ""


def shown_default(field: dataclasses.Field[Any], rule: Option) -> str:
    """Returns what counts if an option is not given; empty if nothing does."""
    value = rule.unset if field.default is None else field.default
    if value is None or value is dataclasses.MISSING or value is False or value in ((), ""):
        return ""
    if value is True:
        return "on"
    words = value if isinstance(value, tuple) else (value,)
    return ", ".join(shown_value(word) for word in words)


def shown_value(value: object) -> str:
    """Returns a default as one would type it."""
    if isinstance(value, float):
        return f"{value:g}"
    return repr(value) if "\n" in str(value) else str(value)


def shown_range(rule: Option) -> str:
    """Returns an option's range; empty if it has none."""
    if rule.least is None:
        return ""
    most = rule.most
    return f"at least {rule.least:,}" if most is None else f"{rule.least:,} to {most:,}"


def prose(config: type[Config]) -> tuple[str, list[str]]:
    """Returns what a command's help says above its options, and the examples below them."""
    text, _, examples = inspect.cleandoc(str(config.__doc__)).partition(EXAMPLES)
    return text, [line.strip() for line in examples.splitlines()]
