"""The settings of `gpt2cli info`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gpt2cli.config.shared import PlaceOptions
from gpt2cli.options import argument, option


@dataclass(frozen=True, kw_only=True)
class InfoConfig(PlaceOptions):
    """Show what is installed, and which models and runs there are.

    With a NAME: a run's settings and its loss curve, or a model's shape. Nothing is changed, and no
    weights are read: a folder is judged by its descriptions and the sizes of its files.

    Examples:
        gpt2cli info
        gpt2cli info run1
        gpt2cli info --format jsonl
    """

    group = "Output"
    run_name: str | None = option(None, "Run to describe, as NAME does.", group="Model and run")
    names: tuple[str, ...] = argument("Runs, or base models, to describe.", default=())
    tensorflow: bool = option(False, "Loads TensorFlow, and shows the devices that it sees.")
    format: Literal["text", "jsonl"] = option(
        "text", "text: tables for people; jsonl: a line of JSON for each thing."
    )

    @property
    def named(self) -> tuple[str, ...]:
        """The runs and models to describe."""
        return self.names if self.run_name is None else (self.run_name, *self.names)
