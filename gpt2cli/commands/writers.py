"""What lets rows of samples grow: a decoder of the kind that the options ask for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from gpt2cli.commands.rows import Plan, Prompt, Row
from gpt2cli.config.generate import GenerateConfig
from gpt2cli.hparams import HParams


class Writer(Protocol):
    """Lets samples grow."""

    def grow(self, rows: Sequence[Row]) -> Iterator[None]:
        """Lets all rows of a batch grow to their ends; yields whenever they have grown."""
        ...

    def remarks(self) -> list[str]:
        """Returns a line for each thing that went otherwise than asked, once."""
        ...


def batches(plan: Plan, prompts: Sequence[Prompt], first: int) -> Iterator[list[Row]]:
    """Yields the rows that are decoded at once, in order.

    Args:
        plan: what they have in common.
        prompts: what is continued.
        first: the number of each prompt's first sample.
    """
    config = plan.config
    samples = range(first, first + config.nsamples)
    jobs = list(itertools.product(prompts, samples))
    size = config.batch_size * (config.nsamples if config.search == "beams" else 1)
    for begin in range(0, len(jobs), size):
        yield [Row(prompt, sample, plan) for prompt, sample in jobs[begin : begin + size]]


def load_writer(plan: Plan, prefix: Path, hparams: HParams) -> Writer:
    """Returns what writes with the checkpoint's weights.

    Raises:
        BadDataError: the checkpoint is damaged.
    """
    from gpt2cli.network import gpt2
    from gpt2cli.storage import checkpoint
    from gpt2cli.training import devices

    devices.prepare()
    weights = gpt2.variables(checkpoint.load(prefix, hparams.shapes()))
    return TokenWriter(plan, weights, hparams)


def sampling(config: GenerateConfig) -> Any:
    """Returns how the config wants tokens chosen."""
    from gpt2cli.decoding.filters import Sampling

    return Sampling(
        config.temperature,
        config.repetition_penalty,
        config.no_repeat_ngram_size,
        config.top_k,
        config.top_p,
        config.min_p,
        config.typical_p,
    )


class TokenWriter:
    """Lets rows grow side by side, token by token."""

    def __init__(self, plan: Plan, weights: Any, hparams: HParams) -> None:
        from gpt2cli.decoding.loop import Decoder

        self._plan, self._width = plan, 0
        self._decoder = Decoder(weights, hparams, sampling(plan.config), xla=plan.config.xla)

    def grow(self, rows: Sequence[Row]) -> Iterator[None]:
        """Lets all rows grow to their ends; yields after each token."""
        from gpt2cli.decoding.loop import uniforms

        # A last batch that is smaller repeats its last row, for which all is compiled.
        self._width = max(self._width, len(rows))
        places = [*rows, *[rows[-1]] * (self._width - len(rows))]
        draws = [uniforms(self._plan.seed, row.prompt.number, row.sample) for row in places]
        length = max(self._plan.length(row.prompt) for row in rows)
        for chosen in self._decoder.tokens([row.prompt.tokens for row in places], draws, length):
            for place, row in enumerate(rows):
                row.add(chosen.tokens[place], chosen.log_probabilities[place])
            yield
            if all(row.new.done for row in rows):
                return

    def remarks(self) -> list[str]:
        """Returns a line for each thing that went otherwise than asked, once."""
        return self._decoder.model.compiler.told()
