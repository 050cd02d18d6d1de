"""`gpt2cli generate`: a run or a base model in, text out."""

from __future__ import annotations

import contextlib
import secrets
from collections import deque
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path

from gpt2cli import tensorflow_start
from gpt2cli.commands.rows import Plan, Prompt, Telling
from gpt2cli.commands.writers import Writer, batches, load_texts, load_writer, needs_tensorflow
from gpt2cli.config.generate import DEFAULT_FOLDER, GenerateConfig
from gpt2cli.fetching.base import fetch_base
from gpt2cli.records import Alert, Notice, Progress, Record, Text
from gpt2cli.storage import outputs
from gpt2cli.storage.start import for_reading, loaded
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
    yield from fetch_base(config)
    start = for_reading(config)
    tokenizer = read_tokenizer(start.encoder, start.merges, start.hparams.n_vocab)
    check_fits(tokenizer, start.hparams)
    yield from map(Notice, markers.remarks(texts, tokenizer))
    prompts = yield from encoded(texts, tokenizer, start.hparams.n_ctx)
    seed = secrets.randbits(SEED_BITS) if config.seed is None else config.seed
    yield from map(Alert, start.remarks())
    yield Notice(f"from {start.prefix}, seed {seed}")
    width = min(config.batch_size, config.nsamples * len(prompts))
    longest = max((len(prompt.tokens) for prompt in prompts), default=1)
    plan = Plan(config, tokenizer, start.hparams.n_ctx, seed, width, longest)
    with contextlib.ExitStack() as stack:
        load = load_writer if needs_tensorflow(plan) else load_texts
        if load is load_writer:
            tensorflow_start.load(verbose=config.verbose, keep_compiled=config.xla)
            from gpt2cli.training import exhaustion

            stack.enter_context(exhaustion.explained(config, LEANER))
        writer = yield from loaded(config, start, partial(load, plan))
        yield from delivered(config, plan, writer, prompts)


def delivered(
    config: GenerateConfig, plan: Plan, writer: Writer, prompts: list[Prompt]
) -> Iterator[Record]:
    """Writes the samples to where the config wants them."""
    if config.destination_path is not None:
        yield from to_file(Path(config.destination_path), plan, writer, prompts, 0)
    elif config.files:
        folder = Path(config.folder or DEFAULT_FOLDER)
        outputs.sweep(folder)
        ending = ".jsonl" if config.format == "jsonl" else ".txt"
        for number, path in enumerate(outputs.names(folder, config.files, ending)):
            yield from to_file(path, plan, writer, prompts, number)
    else:
        yield from to_stdout(plan, writer, prompts)


def check_destination(config: GenerateConfig) -> None:
    """Raises OutputError where the output cannot go where the config wants it."""
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
    telling = Telling(plan)
    for rows in batches(plan, prompts, 0):
        untold = deque(rows)
        for _ in writer.grow(rows):
            if plan.streams:
                yield from map(Text, telling.growing(untold))
        yield from map(Notice, writer.remarks())
        for row in untold:
            yield Text(telling.finished(row))


def to_file(
    path: Path, plan: Plan, writer: Writer, prompts: list[Prompt], number: int
) -> Iterator[Record]:
    """Writes all samples to a file; the number is that of the file, from 0, and makes others."""
    telling, count = Telling(plan), 0
    with outputs.written(path, overwrite=plan.config.overwrite) as aside:
        for rows in batches(plan, prompts, number * plan.config.nsamples):
            for _ in writer.grow(rows):
                pass
            yield from map(Notice, writer.remarks())
            outputs.add(aside, "".join(map(telling.finished, rows)))
            count += len(rows)
    yield Notice(f"{count} sample{'s' if count > 1 else ''} in {path}")
