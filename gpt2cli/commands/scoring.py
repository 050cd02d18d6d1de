"""What a model gives each token: its probability and rank, and which may come next."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator

import numpy as np

from gpt2cli import layout
from gpt2cli.commands.engines import SINGLE, FoundModel, engine_of, found_model
from gpt2cli.commands.tokens import token_facts, token_lists
from gpt2cli.config.sampling import SamplingOptions
from gpt2cli.config.shared import ReadingOptions, SourceOptions
from gpt2cli.config.tokens import TokensConfig
from gpt2cli.inference.engine import Engine
from gpt2cli.inference.samples import rounded
from gpt2cli.inference.sampling import SamplingParams
from gpt2cli.inference.scoring import Score, filtered_steps, next_logits, scores, window_scores
from gpt2cli.json_reader import Json
from gpt2cli.records import Alert, Notice, Record, Text
from gpt2cli.text.batches import Windows
from gpt2cli.text.tokenizer import Tokenizer, quoted_piece
from gpt2cli.training import memory

# Background colours of xterm, from the least to the most likely, and the probabilities between.
COLOURS, BOUNDS = (174, 180, 186, 150, 114), (0.01, 0.1, 0.3, 0.7)


def scored(config: TokensConfig) -> Iterator[Record]:
    """Yields what the model says of each text's tokens, and of those that may come next."""
    config.check_device()
    model = yield from found_model(config.part(SourceOptions))
    source, tokenizer = model.source, model.tokenizer
    lists = token_lists(config, tokenizer, source.model_name)
    yield from map(Alert, source.remarks())
    yield Notice(f"from {source.prefix}")
    with memory.explained(config.device, config.gpu_bytes, remedy=SINGLE):
        engine = yield from engine_of(model, config.part(ReadingOptions))
        for number, ids in enumerate(lists):
            if number and config.format == "text":
                yield Text("\n")
            if config.probabilities:
                judged = scores(engine, ids, tokenizer.end_of_text)
                show = judged_lines if config.format == "text" else judged_records
                yield from map(Text, show(number, ids, judged, tokenizer))
            if config.next:
                yield from map(Text, following(config, engine, tokenizer, number, ids))


def judged_lines(
    _: int, ids: list[int], judged: Iterator[Score], tokenizer: Tokenizer
) -> Iterator[str]:
    """Yields a line for each token: id, probability, rank and piece, on a terminal in colour."""
    width = len(str(tokenizer.vocab - 1))
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for token, score in zip(ids, judged, strict=True):
        probability = math.exp(score.log_probability)
        piece = quoted_piece(tokenizer.decode_bytes([token]))
        if coloured:
            colour = COLOURS[sum(probability >= bound for bound in BOUNDS)]
            piece = f"\x1b[48;5;{colour};38;5;16m{piece}\x1b[0m"
        yield f"{token:>{width}}  {probability:8.2%}  {score.rank:>{width}}  {piece}\n"


def judged_records(
    number: int, ids: list[int], judged: Iterator[Score], tokenizer: Tokenizer
) -> Iterator[str]:
    """Yields a line of JSON for each token."""
    for position, (token, score) in enumerate(zip(ids, judged, strict=True)):
        place = {"text": number, "position": position}
        yield json.dumps({**place, **token_facts(token, tokenizer), **figures(score)}) + "\n"


def scored_corpus(
    model: FoundModel, options: ReadingOptions, windows: Iterator[tuple[Windows, Windows]]
) -> Iterator[Record]:
    """Yields a line of JSON for each token of `batches.overlapping` windows, and their loss."""
    count, nats = 0, 0.0
    with memory.explained(options.device, options.gpu_bytes, remedy=SINGLE):
        engine = yield from engine_of(model, options)
        for seen, targets in windows:
            for token, score in window_scores(engine, seen, targets):
                facts = {"position": count, **token_facts(token, model.tokenizer), **figures(score)}
                yield Text(json.dumps(facts) + "\n")
                count, nats = count + 1, nats - score.log_probability
    yield Notice(f"loss={nats / count:.4f} tokens={count}")


def figures(score: Score) -> dict[str, Json]:
    """Returns a score as a record has it."""
    return {"log_probability": rounded(score.log_probability), "rank": score.rank}


def following(
    config: TokensConfig, engine: Engine, tokenizer: Tokenizer, number: int, ids: list[int]
) -> Iterator[str]:
    """Yields the likeliest next tokens as a table or as lines of JSON.

    A column for the model itself, and one for each filter, after it and those before it.
    """
    # As `generate` begins.
    row = (ids or [tokenizer.end_of_text])[-engine.hparams.n_ctx :]
    logits = next_logits(engine, row)
    params = SamplingParams(**vars(config.part(SamplingOptions)))
    steps = dict(filtered_steps(logits, np.array(row), params))
    order = np.argsort(-logits, kind="stable")[: config.next].tolist()
    if config.format == "jsonl":
        for rank, token in enumerate(order, 1):
            shares = {name: rounded(float(step[token])) for name, step in steps.items()}
            facts = {"text": number, "next": rank, **token_facts(token, tokenizer)}
            yield json.dumps({**facts, "probabilities": shares}) + "\n"
        return
    rows = [["id", "next", *steps]]
    for token in order:
        shares_shown = [f"{step[token]:.2%}" if step[token] else "-" for step in steps.values()]
        rows.append([str(token), quoted_piece(tokenizer.decode_bytes([token])), *shares_shown])
    for line in layout.table(rows, right=(0, *range(2, 2 + len(steps)))):
        yield f"{line}\n"
