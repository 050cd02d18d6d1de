"""The options on how tokens are chosen: filters and searches."""

from __future__ import annotations

from dataclasses import dataclass

from gpt2cli.errors import UsageError
from gpt2cli.options import Config, option

DEFAULT_TEMPERATURE = 0.7
# Logits over less than this can be too large for float32.
LEAST_TEMPERATURE = 0.001


@dataclass(frozen=True, kw_only=True)
class SamplingOptions(Config):
    """How the next token is chosen."""

    group = "Sampling"
    temperature: float = option(
        DEFAULT_TEMPERATURE,
        f"Divides the logits: lower is tamer, down to {LEAST_TEMPERATURE} (0: likeliest token).",
        least=0,
    )
    top_k: int = option(0, "Samples from the N likeliest tokens (0: from all).", least=0)
    top_p: float = option(
        0.0,
        "Samples from the fewest tokens that reach this probability together (0: from all).",
        least=0,
        most=1,
    )
    min_p: float = option(
        0.0,
        "Samples from tokens with this share of the likeliest's probability or more (0: from all).",
        least=0,
        most=1,
    )
    typical_p: float = option(
        1.0,
        "Samples from the most typical tokens that reach this probability together (1: from all).",
        least=0,
        most=1,
    )
    repetition_penalty: float = option(
        1.0,
        "Makes tokens that the text has already less likely (1: no penalty).",
        least=0.01,
        most=100,
    )
    no_repeat_ngram_size: int = option(
        0, "Lets no sequence of N tokens come twice (0: any may).", least=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if 0 < self.temperature < LEAST_TEMPERATURE:
            raise UsageError(
                f"--temperature must be 0, which takes the likeliest token, or at least "
                f"{LEAST_TEMPERATURE}, not {self.temperature!r}."
            )
        if self.typical_p == 0:
            raise UsageError("--typical-p must be above 0; 1 takes all tokens.")


@dataclass(frozen=True, kw_only=True)
class SearchOptions(Config):
    """How whole texts are searched for."""

    group = "Beam and contrastive search"
    num_beams: int = option(
        1, "Searches for the likeliest text with N beams (1: no search).", least=1
    )
    beam_sample: bool = option(False, "Samples the candidates of the beams, with all filters.")
    length_penalty: float = option(
        1.0, "Ranks beams by log-probability over length to the power N.", least=-10, most=10
    )
    early_stopping: bool = option(False, "Ends the search once --num-beams texts have ended.")
    penalty_alpha: float = option(
        0.0,
        "Contrastive search among the --top-k candidates: the weight of their similarity to the "
        "text before (0: no such search).",
        least=0,
        most=1,
    )
