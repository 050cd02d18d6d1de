"""The tables of options in gpt2cli/docs/options.md, made from the code."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Literal, get_args, get_origin

from gpt2cli.application import COMMANDS
from gpt2cli.config.shared import Shared
from gpt2cli.options import Option, flag, options

HEAD = "| option | default | |\n|---|---|---|"
OPENING = """# Options

Made from the code by `python -m tests.docs`; `gpt2cli COMMAND --help` shows the same.

- Names are gpt-2-simple's, with `-` or `_` as you like: `--run-name` and `--run_name` are the same.
  So are `--overwrite True` and `--overwrite`, and `--dataset FILE` and `FILE`.
- The environment can give every option: `GPT2CLI_FINETUNE_STEPS=100` means `finetune --steps 100`.
  Of a repeatable option, as in `GPT2CLI_GENERATE_PREFIX`, each line is a value.
- `gpt2cli --install-completion` teaches your shell to complete them.

## Every command"""
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


def page() -> str:
    """Returns the page of all options."""
    shared = {field.name for field, _, _ in options(Shared)}
    parts = [OPENING, table(Shared, set())]
    for command, config in COMMANDS.items():
        parts += [f"## {command}", table(config, shared)]
    return "\n\n".join(parts) + "\n"
