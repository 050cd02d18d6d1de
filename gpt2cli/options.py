"""How an option is written once: a dataclass field that carries its help and its range."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

from gpt2cli.errors import UsageError

Part = TypeVar("Part", bound="Config")


@dataclasses.dataclass(frozen=True)
class Option:
    """What the command line says of a field beside its name, type and default.

    Attributes:
        help: one sentence.
        least, most: the range of its values, both ends included.
        short: a second name of one letter, such as `-q`.
        argument: whether the value stands on the command line without an option's name.
        unset: what None stands for, as help shows it in place of a default.
        group: the heading in help; empty: that of the class.
    """

    help: str
    _: dataclasses.KW_ONLY
    least: float | None = None
    most: float | None = None
    short: str | None = None
    argument: bool = False
    unset: object = None
    group: str = ""


def option(default: Any, text: str, **rules: Any) -> Any:
    """Returns a dataclass field for an option; `rules` are Option's attributes but the help."""
    return dataclasses.field(default=default, metadata={"option": Option(text, **rules)})


def argument(text: str, *, default: Any = dataclasses.MISSING) -> Any:
    """Returns a dataclass field for a value that needs no option's name."""
    return dataclasses.field(default=default, metadata={"option": Option(text, argument=True)})


def flag(name: str) -> str:
    """Returns a field's name as the command line spells it: `top_k` is `--top-k`."""
    return "--" + name.replace("_", "-")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of one command; its values are checked when it is made.

    Attributes:
        group: the heading in help under which the fields of a class stand.
    """

    group: ClassVar[str] = "Reporting"

    def __post_init__(self) -> None:
        """Raises UsageError if a value is out of its range or not one of its choices."""
        for field, rule, kind in options(type(self)):
            value = getattr(self, field.name)
            if value is not None:
                check_range(flag(field.name), value, rule, kind)

    def part(self, kind: type[Part]) -> Part:
        """Returns the settings of one of the groups that this config is made of."""
        return kind(**{field.name: getattr(self, field.name) for field in dataclasses.fields(kind)})


def options(config: type[Config]) -> Iterator[tuple[dataclasses.Field[Any], Option, Any]]:
    """Yields each field of a config once, its option and type; the command's own come first."""
    hints = get_type_hints(config)
    fields = {field.name: field for field in dataclasses.fields(config)}
    for owner in (each for each in config.__mro__ if issubclass(each, Config)):
        for name in vars(owner).get("__annotations__", {}):
            if field := fields.pop(name, None):
                rule: Option = field.metadata["option"]
                yield field, dataclasses.replace(rule, group=rule.group or owner.group), hints[name]


def check_range(name: str, value: Any, rule: Option, kind: object) -> None:
    """Raises UsageError unless a value is within the option's range or choices."""
    if get_origin(kind) is Literal and value not in get_args(kind):
        raise UsageError(f"{name} must be one of {', '.join(get_args(kind))}, not {value!r}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{name} must be a finite number, not {value!r}.")
    if rule.least is not None and not value >= rule.least:
        raise UsageError(f"{name} must be at least {rule.least:g}, not {value!r}.")
    if rule.most is not None and not value <= rule.most:
        raise UsageError(f"{name} must be at most {rule.most:g}, not {value!r}.")
