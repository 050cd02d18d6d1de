"""`gpt2cli generate`: a run or a base model in, text out."""

from __future__ import annotations

import contextlib
import secrets
import sys
from collections import deque
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path

from gpt2cli.config.generate import DEFAULT_FOLDER, GenerateConfig
from gpt2cli.fetching.base import find_weights
from gpt2cli.files import outputs
from gpt2cli.inference.load import Writer, batches, load_texts, load_writer, needs_tensorflow
from gpt2cli.inference.samples import Plan, Prompt, Row, Telling
from gpt2cli.progress import COMPILING, Count, announced
from gpt2cli.records import Alert, Notice, Progress, Record, Text
from gpt2cli.runtime import tensorflow
from gpt2cli.storage.source import load
from gpt2cli.text import markers
from gpt2cli.text.prompts import read_prompts, reads_stdin_unasked
from gpt2cli.text.tokenizer import Tokenizer, check_fits, read_tokenizer

SEED_BITS = 32
LEANER = "Try a lower --batch-size, or --precision bfloat16."


def generate(config: GenerateConfig) -> Iterator[Record]:
    """Yields the samples of every prompt, in order, as text; or writes them to files.

    Raises:
        MissingInputError: there is no such run, model or file of prompts.
        BadDataError: a checkpoint is damaged, or a prompt is not text.
        OutputError: a file exists, or cannot be written.
    """
    config.check_device()
    check_destination(config)
    if reads_stdin_unasked(config):
        # Whoever left a pipe open by mistake sees what is waited for.
        yield Progress("reading prompts from stdin")
    texts = read_prompts(config)
    names, start = yield from find_weights(config)
    tokenizer = read_tokenizer(*start.vocabulary, start.hparams.n_vocab)
    check_fits(tokenizer, start.hparams)
    yield from map(Alert, markers.remarks(texts, tokenizer))
    prompts = yield from encoded(texts, tokenizer, start.hparams.n_ctx)
    seed = secrets.randbits(SEED_BITS) if config.seed is None else config.seed
    yield from map(Alert, start.remarks())
    yield Notice(f"from {start.prefix}, seed {seed}")
    width = min(config.batch_size, config.nsamples * len(prompts))
    longest = max((len(prompt.tokens) for prompt in prompts), default=1)
    plan = Plan(config, tokenizer, start.hparams.n_ctx, seed, width, longest)
    with contextlib.ExitStack() as stack:
        prepare = load_writer if needs_tensorflow(plan) else load_texts
        if prepare is load_writer:
            with announced(f"loading {start.prefix}", quiet=config.quiet):
                tensorflow.load(verbose=config.verbose, keep_compiled=config.xla)
            from gpt2cli.training import out_of_memory

            stack.enter_context(out_of_memory.explained(config, LEANER))
        with announced(f"loading {start.prefix}", quiet=config.quiet):
            writer = yield from load(names, start, partial(prepare, plan))
        yield from delivered(config, plan, writer, prompts)


def delivered(
    config: GenerateConfig, plan: Plan, writer: Writer, prompts: list[Prompt]
) -> Iterator[Record]:
    """Writes the samples to where the config wants them."""
    if config.destination_path is not None:
        yield from to_file(Path(config.destination_path), plan, writer, prompts, 0)
    elif config.files:
        folder = Path(config.folder or DEFAULT_FOLDER)
        outputs.clean_up(folder)
        ending = ".jsonl" if config.format == "jsonl" else ".txt"
        for number, path in enumerate(outputs.names(folder, config.files, ending)):
            yield from to_file(path, plan, writer, prompts, number)
    else:
        yield from to_stdout(plan, writer, prompts)


def check_destination(config: GenerateConfig) -> None:
    """Raises OutputError if the output cannot go where the config wants it."""
    if config.destination_path is not None:
        outputs.check_file(Path(config.destination_path), overwrite=config.overwrite)
    elif config.files:
        outputs.check_folder(Path(config.folder or DEFAULT_FOLDER))


def encoded(
    texts: list[str], tokenizer: Tokenizer, n_ctx: int
) -> Generator[Record, None, list[Prompt]]:
    """Returns the texts as tokens that fit the window; yields a line where one has to be cut.

    Raises:
        BadDataError: a text holds half a character.
    """
    prompts = []
    for number, text in enumerate(texts):
        tokens = tokenizer.encode(text, special=True) or [tokenizer.end_of_text]
        if len(tokens) > n_ctx:
            cut = len(tokens) - n_ctx
            yield Alert(f"prefix {number + 1}: {cut} tokens are cut from its left.")
        prompts.append(Prompt(number, text, tokens[-n_ctx:]))
    return prompts


def to_stdout(plan: Plan, writer: Writer, prompts: list[Prompt]) -> Iterator[Record]:
    """Yields each sample as one text once it has ended, or all in pieces as they are certain."""
    telling, shown = Telling(plan), sys.stdout.isatty() or plan.streams
    with Growth(plan, prompts, shown=shown) as growth:
        for rows in batches(plan, prompts, 0):
            untold = deque(rows)
            for told in growth.of(rows, writer):
                yield from told
                if plan.streams:
                    yield from map(Text, telling.growing(untold))
            for row in untold:
                yield Text(telling.finished(row))


def to_file(
    path: Path, plan: Plan, writer: Writer, prompts: list[Prompt], number: int
) -> Iterator[Record]:
    """Writes all samples to a file; the number is that of the file, from 0, and makes others."""
    telling = Telling(plan)
    with (
        outputs.written(path, overwrite=plan.config.overwrite) as aside,
        Growth(plan, prompts) as growth,
    ):
        for rows in batches(plan, prompts, number * plan.config.nsamples):
            for told in growth.of(rows, writer):
                yield from told
            outputs.add(aside, "".join(map(telling.finished, rows)))
    yield Notice(f"{growth.done} sample{'s' if growth.done > 1 else ''} in {path}")


class Growth:
    """Shows how far the samples are, if their text does not.

    Attributes:
        done: samples that have ended.
    """

    def __init__(self, plan: Plan, prompts: list[Prompt], *, shown: bool = False) -> None:
        """Takes what is written, and whether its text is shown while it is."""
        self.done, quiet = 0, plan.config.quiet or shown
        total = len(prompts) * plan.config.nsamples
        self._meter = Count("writing", total, quiet=quiet, unit="samples")

    def __enter__(self) -> Growth:
        self._meter.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._meter.__exit__()

    def of(self, rows: list[Row], writer: Writer) -> Iterator[Iterator[Record]]:
        """Lets rows grow to their ends; yields the progress whenever they have grown."""
        growing = writer.grow(rows)
        if not self.done:
            growing = self._meter.named(growing, COMPILING)
        for tokens, _ in enumerate(growing, 1):
            yield self._meter.advance(self.done, f"token {tokens:,}")
        self.done += len(rows)
        yield self._meter.advance(self.done)
        if remarks := writer.pop_warnings():
            self._meter.make_room()
            yield map(Notice, remarks)
