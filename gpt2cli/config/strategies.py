"""The ways of writing that `generate --compare` puts side by side: presets, and one's own."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, get_args

from gpt2cli.config.generate import GenerateConfig
from gpt2cli.config.sampling import SamplingOptions, SearchOptions
from gpt2cli.errors import UsageError, shortened
from gpt2cli.options import flag, options

# Options that a strategy gives, by their fields' names.
Settings = dict[str, Any]

# Presets with a number, each named as the option that the number is for; of beam: --num-beams.
NUMBERED = ("top-k", "top-p", "min-p", "typical-p", "temperature", "beam")
FIXED: dict[str, Settings] = {
    "sample": {},
    "greedy": {"temperature": 0.0},
    "contrastive": {"penalty_alpha": 0.6, "top_k": 4},
}
# Presets that draw nothing: what filters the tokens of others is left out.
DRAW_NOTHING = ("greedy", "contrastive", "beam")
PRESETS = "sample, greedy, beam5, top-k40, top-p0.9, min-p0.05, typical-p0.9, temperature1.2"
# What a strategy of one's own may set besides how tokens are chosen.
SOURCES = ("run_name", "model_name", "checkpoint", "precision", "seed", "length")
PRESET = re.compile(r"([a-z-]*[a-z])(\d+(?:\.\d+)?)")


def strategies(config: GenerateConfig) -> list[tuple[str, GenerateConfig]]:
    """Returns name and settings of each strategy of --compare; UsageError if one cannot be."""
    made = []
    for entry in filter(None, map(str.strip, ",".join(config.compare).split(","))):
        name, settings = strategy(entry)
        try:
            made.append((name, dataclasses.replace(config, compare=(), **settings)))
        except UsageError as error:
            raise UsageError(f"--compare {shortened(name, 40)}: {error}") from error
    if not made:
        raise UsageError("--compare needs a strategy, as greedy,top-k40.")
    return made


def strategy(entry: str) -> tuple[str, Settings]:
    """Returns name and settings of a preset, or of `name:option=value …`; or raises UsageError."""
    neutral = vars(SamplingOptions()) | vars(SearchOptions())
    name, colon, words = entry.partition(":")
    if colon and name:
        return name, own_settings(name, words.split(), {*neutral, *SOURCES})
    if entry in FIXED:
        return entry, (neutral if entry in DRAW_NOTHING else {}) | FIXED[entry]
    found = PRESET.fullmatch(entry)
    if found is None or found[1] not in NUMBERED:
        raise UsageError(
            f"--compare: there is no strategy '{shortened(entry, 60)}'. Give {PRESETS}, "
            "contrastive, or name:option=value for one of your own."
        )
    field = "num_beams" if found[1] == "beam" else found[1].replace("-", "_")
    value = typed_value(found[2], entry, field)
    return entry, (neutral if found[1] in DRAW_NOTHING else {}) | {field: value}


def own_settings(name: str, words: list[str], allowed: set[str]) -> Settings:
    """Returns the settings that `option=value` words give; raises as `strategy` does."""
    settings: Settings = {}
    for word in words:
        option, _, value = word.partition("=")
        field = option.lstrip("-").replace("-", "_")
        if field not in allowed:
            there = ", ".join(sorted(flag(each)[2:] for each in allowed))
            raise UsageError(
                f"--compare {shortened(name, 40)}: there is no option "
                f"'{shortened(option, 40)}'; there are {there}."
            )
        settings[field] = typed_value(value, name, field)
    # One of them stands for the other.
    if "run_name" in settings:
        settings.setdefault("model_name", None)
    elif "model_name" in settings:
        settings |= {"run_name": None, "checkpoint": "latest"}
    return settings


def typed_value(text: str, name: str, field: str) -> object:
    """Returns an option's value; raises UsageError if it is not of the option's type."""
    kind = next(kind for each, _, kind in options(GenerateConfig) if each.name == field)
    kinds = (kind, *get_args(kind))
    try:
        if bool in kinds:
            return {"true": True, "": True, "false": False}[text.lower()]
        if int in kinds:
            return int(text)
        return float(text) if float in kinds else text
    except (ValueError, KeyError):
        raise UsageError(
            f"--compare {shortened(name, 40)}: {flag(field)[2:]} cannot be '{shortened(text, 40)}'."
        ) from None
