"""What `gpt2cli generate` can be told."""

from __future__ import annotations

from dataclasses import dataclass

from gpt2cli.config.shared import ComputeOptions, SeedOptions, SourceOptions
from gpt2cli.errors import UsageError
from gpt2cli.options import option


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(ComputeOptions, SeedOptions, SourceOptions):
    """Write text from a run, or from a base model.

    The text goes to stdout and everything else to stderr.
    """

    prefix: tuple[str, ...] = option((), "Text to continue (repeatable).")
    length: int | None = option(None, "New tokens at most [what is left of the window].", least=1)
    temperature: float = option(0.7, "Lower is tamer; 0 takes the likeliest token.", least=0)
    top_k: int = option(0, "Draw from the k likeliest tokens; 0: from all.", least=0)
    top_p: float = option(
        0.0,
        "Draw from the likeliest tokens that reach this probability; 0: from all.",
        least=0,
        most=1,
    )
    nsamples: int = option(1, "Samples for each prefix.", least=1)
    batch_size: int = option(1, "Samples decoded at once.", least=1)
    stop: tuple[str, ...] = option((), "A sample ends before this text (repeatable).")
    truncate: str | None = option(None, "The same as --stop.")
    include_prefix: bool = option(True, "Whether a sample begins with its prefix.")
    sample_delim: str = option("=" * 20 + "\n", "Stands between two samples.")
    ignore_eos: bool = option(False, "Go on beyond the end-of-text token.")

    def __post_init__(self) -> None:
        """Checks what no single option shows.

        Raises:
            UsageError: options contradict each other.
        """
        super().__post_init__()
        if "" in self.stops:
            raise UsageError("--stop and --truncate need a text, not an empty one.")

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end a sample."""
        return self.stop if self.truncate is None else (*self.stop, self.truncate)
