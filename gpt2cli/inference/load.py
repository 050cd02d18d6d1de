"""What lets rows of samples grow: a decoder of the kind that the options ask for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from gpt2cli.config.generate import GenerateConfig
from gpt2cli.hparams import HParams
from gpt2cli.inference.samples import Plan, Prompt, Row
from gpt2cli.runtime import numba
from gpt2cli.runtime.hardware import may_have_gpu
from gpt2cli.runtime.signals import signals_blocked

# The precisions that are float32 on a CPU.
WIDE = ("auto", "float32")


class Writer(Protocol):
    """Lets samples grow."""

    def grow(self, rows: Sequence[Row]) -> Iterator[None]:
        """Lets all rows of a batch grow to their ends; yields whenever they have grown."""
        ...

    def pop_warnings(self) -> list[str]:
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
    jobs = ((prompt, sample) for prompt in prompts for sample in samples)
    size = config.batch_size * (config.nsamples if config.search == "beams" else 1)
    while several := list(itertools.islice(jobs, size)):
        yield [Row(prompt, sample, plan) for prompt, sample in several]


def needs_tensorflow(plan: Plan) -> bool:
    """Returns whether TensorFlow is needed: for a GPU, for beams and contrastive search.

    Without Numba it is needed as well for several texts at once, and for narrow weights.
    """
    config = plan.config
    on_cpu = config.device == "cpu" or (config.device == "auto" and not may_have_gpu())
    if config.search != "tokens" or not on_cpu:
        return True
    plain = plan.width == 1 and config.precision in WIDE
    return not plain and not numba.is_available()


def load_texts(plan: Plan, prefix: Path, hparams: HParams) -> Writer:
    """Returns what writes with the checkpoint's weights on a CPU, without TensorFlow.

    Raises:
        BadDataError: the checkpoint is damaged.
    """
    with signals_blocked():
        from gpt2cli.inference.cpu.decode import TextsDecoder, means
        from gpt2cli.inference.cpu.engine import TextsModel
        from gpt2cli.storage import checkpoint

        precision = "float32" if plan.config.precision in WIDE else plan.config.precision
        many = plan.width > 1
        arithmetic, sampling = means(precision, choices(plan.config), many=many)
        # A prompt is taken in but for its last token.
        arithmetic.prepare(few=many or plan.longest > 2)
    model = TextsModel(checkpoint.load(prefix, hparams.shapes()), hparams, arithmetic)
    return TokenWriter(plan, TextsDecoder(model, hparams.n_ctx, sampling), fixed=False)


def load_writer(plan: Plan, prefix: Path, hparams: HParams) -> Writer:
    """Returns what writes with the checkpoint's weights, of the kind that the options ask for.

    Raises:
        BadDataError: the checkpoint is damaged.
    """
    from gpt2cli.inference.beam_search import BeamDecoder, Beams
    from gpt2cli.inference.contrastive_search import ContrastiveDecoder
    from gpt2cli.inference.tensorflow_engine import Decoder
    from gpt2cli.inference.tensorflow_sampling import Sampling
    from gpt2cli.network import low_precision
    from gpt2cli.runtime import devices
    from gpt2cli.storage import checkpoint

    config, xla = plan.config, plan.config.xla
    devices.configure(config.device, config.gpu_bytes, config.precision)
    precision = devices.resolve_precision(config.precision)
    weights = low_precision.cast_weights(checkpoint.load(prefix, hparams.shapes()), precision)
    sampling = Sampling(*choices(config))
    if config.search == "beams":
        beams = Beams(
            config.num_beams, config.beam_sample, config.length_penalty, config.early_stopping
        )
        return BeamWriter(plan, BeamDecoder(weights, hparams, sampling, beams, xla=xla))
    if config.search == "contrast":
        alpha = config.penalty_alpha
        return TokenWriter(plan, ContrastiveDecoder(weights, hparams, sampling, alpha, xla=xla))
    return TokenWriter(plan, Decoder(weights, hparams, sampling, xla=xla))


def choices(config: GenerateConfig) -> tuple[Any, ...]:
    """Returns how the config wants tokens chosen, in the order of Choices' attributes."""
    return (
        config.temperature,
        config.repetition_penalty,
        config.no_repeat_ngram_size,
        config.top_k,
        config.top_p,
        config.min_p,
        config.typical_p,
    )


def full(rows: Sequence[Row], width: int) -> list[Row]:
    """Returns rows with the last one repeated up to the width for which all is compiled."""
    return [*rows, *[rows[-1]] * (width - len(rows))]


class TokenWriter:
    """Lets rows grow side by side, token by token."""

    def __init__(self, plan: Plan, decoder: Any, *, fixed: bool = True) -> None:
        """Takes what the rows have in common, and what continues their tokens.

        If the width of a batch is fixed, what continues them is compiled only for the first one.
        """
        self._plan, self._decoder, self._fixed, self._width = plan, decoder, fixed, 0

    def grow(self, rows: Sequence[Row]) -> Iterator[None]:
        """Lets all rows grow to their ends; yields after each token."""
        from gpt2cli.inference.streams import uniforms

        places = full(rows, self._width)
        self._width = len(places) if self._fixed else 0
        draws = [uniforms(self._plan.seed, row.prompt.number, row.sample) for row in places]
        length = max(self._plan.length(row.prompt) for row in rows)
        for chosen in self._decoder.tokens([row.prompt.tokens for row in places], draws, length):
            for place, row in enumerate(rows):
                row.add(chosen.tokens[place], chosen.log_probabilities[place])
            yield
            if all(row.new.done for row in rows):
                return

    def pop_warnings(self) -> list[str]:
        """Returns a line for each thing that went otherwise than asked, once."""
        told: list[str] = self._decoder.pop_warnings()
        return told


class BeamWriter:
    """Finds the best samples of each prompt by following beams."""

    def __init__(self, plan: Plan, decoder: Any) -> None:
        """Takes what the rows have in common, and what follows the beams."""
        self._plan, self._decoder = plan, decoder
        self._few, self._width = 0, 0

    def grow(self, rows: Sequence[Row]) -> Iterator[None]:
        """Lets each prompt's rows become its best texts, best first; yields after each step.

        If it finds fewer texts than rows, the best one fills the others, with a warning.
        """
        from gpt2cli.inference.beam_search import Group
        from gpt2cli.inference.streams import uniforms

        plan, count = self._plan, self._plan.config.nsamples
        firsts = full(rows[::count], self._width)
        self._width = len(firsts)
        draws = [uniforms(plan.seed, row.prompt.number, row.sample) for row in firsts]
        groups = [
            Group(self._decoder.beams, plan.length(row.prompt), self._ended) for row in firsts
        ]
        length = max(plan.length(row.prompt) for row in firsts)
        yield from self._decoder.search(
            [row.prompt.tokens for row in firsts], draws, groups, length
        )
        for number, row in enumerate(rows):
            found = groups[number // count].best(count)
            self._few += number % count >= len(found)
            beam = found[number % count] if number % count < len(found) else found[0]
            for token, log_probability in zip(beam.tokens, beam.log_probabilities, strict=True):
                row.add(token, log_probability)
            row.new.finish()

    def pop_warnings(self) -> list[str]:
        """Returns a line for each thing that went otherwise than asked, once."""
        few, self._few = self._few, 0
        told: list[str] = self._decoder.pop_warnings()
        if few:
            told.append(f"The filters leave too few texts: {few} repeat the best one.")
        return told

    def _ended(self, tokens: list[int]) -> bool:
        """Returns whether new tokens hold a stop text, or end with a token that ends texts."""
        config, tokenizer = self._plan.config, self._plan.tokenizer
        if tokens[-1] in tokenizer.ends and not config.ignore_eos:
            return True
        if not config.stops:
            return False
        text = tokenizer.decode(tokens)
        return any(stop in text for stop in config.stops)
