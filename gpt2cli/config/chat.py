"""The settings of `gpt2cli chat`."""

from __future__ import annotations

from dataclasses import dataclass

from gpt2cli.config.sampling import SamplingOptions
from gpt2cli.config.shared import ReadingOptions, SeedOptions, SourceOptions
from gpt2cli.options import option

DEFAULT_LENGTH = 256


@dataclass(frozen=True, kw_only=True)
class ChatConfig(SamplingOptions, ReadingOptions, SeedOptions, SourceOptions):
    """Talk with a run or a base model, line by line.

    A run that was tuned on conversations answers as the assistant; any other model continues what
    is written. Ctrl-C stops an answer and Ctrl-D ends; /help lists the commands.

    Examples:
        gpt2cli chat --run-name helper
        gpt2cli chat --model-name 124M --length 60
        gpt2cli chat --run-name helper --system "Answer briefly." < questions.txt
    """

    group = "Conversation"
    length: int = option(DEFAULT_LENGTH, "Tokens of an answer at most.", least=1)
    system: str | None = option(
        None, "System message that begins the conversation; for runs tuned on conversations."
    )
