"""Rewrites the tables of options in the README from the code.

    python -m tests.readme_options

The tables stand between the heading `## Options` and the next one of its kind.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from gpt2cli.application import COMMANDS
from gpt2cli.config.shared import Shared
from gpt2cli.options import Option, flag, options

ROOT = Path(__file__).parent.parent
SECTION = re.compile(r"(?<=^## Options\n).*?(?=^## )", re.MULTILINE | re.DOTALL)
HEAD = "| option | default | |\n|---|---|---|"
WORDS = {int: "INT", float: "FLOAT", str: "TEXT"}


def name(field: dataclasses.Field[Any], rule: Option, kind: Any) -> str:
    """Returns an option with what is to be given to it."""
    if rule.argument:
        return f"`{field.name.upper()}`"
    inner = get_args(kind) or (kind,)
    if bool in inner:
        short = f" `{rule.short}`" if rule.short else ""
        return f"`{flag(field.name)}`{short} `--no-{flag(field.name)[2:]}`"
    if get_origin(kind) is Literal:
        return f"`{flag(field.name)}` {' '.join(f'`{choice}`' for choice in get_args(kind))}"
    return f"`{flag(field.name)} {next(WORDS[each] for each in inner if each in WORDS)}`"


def default(field: dataclasses.Field[Any]) -> str:
    """Returns a default as one would write it; empty where there is none."""
    value = field.default
    if value is dataclasses.MISSING or value is None or value is False or value in ((), ""):
        return ""
    if value is True:
        return "yes"
    words = value if isinstance(value, tuple) else (value,)
    return " ".join(f"`{word!r}`" if "\n" in str(word) else f"`{word}`" for word in words)


def limits(rule: Option) -> str:
    """Returns an option's range in words; empty where it has none."""
    bounds = [("from", rule.least), ("to", rule.most)]
    told = " ".join(f"{word} {bound:,}" for word, bound in bounds if bound is not None)
    return f" {told.capitalize()}." if told else ""


def table(config: type[Shared], without: set[str]) -> str:
    """Returns the options of a command as a table."""
    rows = [HEAD]
    for field, rule, kind in options(config):
        if field.name not in without:
            text = re.sub(r" \[([^\]]*)\]\.$", r"; default: \1.", rule.help.replace("|", "\\|"))
            rows.append(f"| {name(field, rule, kind)} | {default(field)} | {text}{limits(rule)} |")
    return "\n".join(rows)


def tables() -> Iterator[str]:
    """Yields the parts of the section."""
    shared = {field.name for field, _, _ in options(Shared)}
    yield "Of every command:"
    yield table(Shared, set())
    for command, config in COMMANDS.items():
        yield f"### Options of {command}"
        yield table(config, shared)


def section() -> str:
    """Returns what stands below the heading."""
    return "\n" + "\n\n".join(tables()) + "\n\n"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    if not SECTION.search(text):
        raise SystemExit("README.md has no section `## Options`")
    readme.write_text(SECTION.sub(lambda _: section(), text), encoding="utf-8")
