"""`gpt2cli generate`: a run or a base model in, text out."""

from __future__ import annotations

import dataclasses
import itertools
import secrets
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2cli import tensorflow_start
from gpt2cli.config.generate import GenerateConfig
from gpt2cli.fetching.base import fetch_base
from gpt2cli.hparams import HParams
from gpt2cli.records import Notice, Record, Text
from gpt2cli.storage.start import for_reading, loaded
from gpt2cli.text.tokenizer import Tokenizer, read_tokenizer

if TYPE_CHECKING:
    from gpt2cli.decoding.loop import Decoder

SEED_BITS = 32


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A text to continue.

    Attributes:
        number: its place among the prompts, from 0.
        text: as it was given.
        tokens: what the model sees of it; at least one.
    """

    number: int
    text: str
    tokens: list[int]


def generate(config: GenerateConfig) -> Iterator[Record]:
    """Yields the samples of every prompt, in order, each as one text.

    Raises:
        MissingInputError: there is no such run or model.
        BadDataError: a checkpoint is damaged, or a prefix is not text.
    """
    yield from fetch_base(config)
    start = for_reading(config)
    tokenizer = read_tokenizer(start.encoder, start.merges)
    n_ctx = start.hparams.n_ctx
    prompts = []
    for number, text in enumerate(config.prefix or ("",)):
        tokens = tokenizer.encode(text, special=True) or [tokenizer.end_of_text]
        if len(tokens) > n_ctx:
            cut = len(tokens) - n_ctx
            yield Notice(f"prefix {number + 1}: {cut} tokens are cut from its left.")
        prompts.append(Prompt(number, text, tokens[-n_ctx:]))
    seed = secrets.randbits(SEED_BITS) if config.seed is None else config.seed
    yield from map(Notice, start.remarks())
    yield Notice(f"from {start.prefix}, seed {seed}")
    tensorflow_start.load(verbose=config.verbose)
    decoder = yield from loaded(config, start, partial(load_decoder, config))
    jobs = list(itertools.product(prompts, range(config.nsamples)))
    for first in range(0, len(jobs), config.batch_size):
        rows = [
            Row(given, sample, config, tokenizer, n_ctx)
            for given, sample in jobs[first : first + config.batch_size]
        ]
        decode(decoder, rows, config.batch_size, seed)
        for number, row in enumerate(rows, first):
            yield Text(
                (config.sample_delim if number else "") + row.whole.removesuffix("\n") + "\n"
            )


class Row:
    """A sample as it grows.

    Attributes:
        prompt: what it continues.
        sample: its place among the prompt's samples, from 0.
        length: how many tokens it may have.
        text: what is certain of it, without the prompt.
        done: whether it has come to its end.
    """

    def __init__(
        self, prompt: Prompt, sample: int, config: GenerateConfig, tokenizer: Tokenizer, n_ctx: int
    ) -> None:
        self.prompt = prompt
        self.sample = sample
        self.length = config.length or max(n_ctx - len(prompt.tokens), 1)
        self.text = ""
        self.done = False
        self._stops = config.stops
        self._prefix = prompt.text if config.include_prefix else ""
        self._end_of_text = None if config.ignore_eos else tokenizer.end_of_text
        self._stream = tokenizer.stream()
        self._count = 0

    @property
    def whole(self) -> str:
        """The text as the user wants it, with or without the prompt."""
        return self._prefix + self.text

    def add(self, token: int) -> None:
        """Takes the next token, unless the sample has come to its end."""
        if self.done:
            return
        if token == self._end_of_text:
            self._write(self._stream.finish(), last=True)
            return
        self._count += 1
        last = self._count == self.length
        self._write(self._stream.feed([token]) + (self._stream.finish() if last else ""), last=last)

    def _write(self, text: str, *, last: bool) -> None:
        """Adds text and cuts it before the first of the stop texts that is in it."""
        self.text += text
        found = [at for at in map(self.text.find, self._stops) if at >= 0]
        if found:
            self.text = self.text[: min(found)]
        self.done = last or bool(found)


def decode(decoder: Decoder, rows: list[Row], batch_size: int, seed: int) -> None:
    """Lets rows grow until all are done; a batch that is not full repeats its last row."""
    from gpt2cli.decoding.loop import uniforms

    places = rows + [rows[-1]] * (batch_size - len(rows))
    draws = [uniforms(seed, row.prompt.number, row.sample) for row in places]
    length = max(row.length for row in rows)
    for chosen in decoder.tokens([row.prompt.tokens for row in places], draws, length):
        # The repeated rows at the end are left out.
        for row, token in zip(rows, chosen.tolist(), strict=False):
            row.add(token)
        if all(row.done for row in rows):
            return


def load_decoder(config: GenerateConfig, prefix: Path, hparams: HParams) -> Decoder:
    """Returns a decoder over the checkpoint's weights.

    Raises:
        BadDataError: the checkpoint is damaged.
    """
    from gpt2cli.decoding.filters import Sampling
    from gpt2cli.decoding.loop import Decoder
    from gpt2cli.network import gpt2
    from gpt2cli.storage import checkpoint
    from gpt2cli.training import devices

    devices.prepare()
    weights = gpt2.variables(checkpoint.load(prefix, hparams.shapes()))
    sampling = Sampling(config.temperature, config.top_k, config.top_p)
    return Decoder(weights, hparams, sampling, xla=config.xla)
