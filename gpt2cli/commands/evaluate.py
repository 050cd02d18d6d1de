"""`gpt2cli evaluate`: a run or a base model and a text in, loss and perplexity out."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2cli.commands.engines import found_model
from gpt2cli.config.evaluate import EvaluateConfig
from gpt2cli.config.shared import CorpusOptions, ReadingOptions, SourceOptions
from gpt2cli.errors import BadDataError, UsageError
from gpt2cli.hparams import HParams
from gpt2cli.progress import COMPILING, Count, announced, living
from gpt2cli.records import Alert, Notice, Record, Text
from gpt2cli.runtime import tensorflow
from gpt2cli.storage.source import load
from gpt2cli.text import batches
from gpt2cli.text.batches import LossMask, Tokens, Windows
from gpt2cli.text.documents import find_corpora
from gpt2cli.text.token_files import Encoder
from gpt2cli.text.tokenizer import Tokenizer
from gpt2cli.training import memory

if TYPE_CHECKING:
    from gpt2cli.training.evaluation import Evaluator, Score

LEANER = "Try --batch-size 1, or --precision bfloat16."


def evaluate(config: EvaluateConfig) -> Iterator[Record]:
    """Yields the loss, perplexity and bits per byte of a text, as one line.

    Raises MissingInputError if there is no such text, run or model, BadDataError if it is not text
    or a checkpoint is damaged.
    """
    config.check_device()
    own = config.model_dir, config.checkpoint_dir, config.model_name
    [corpus] = yield from find_corpora(
        [config.dataset], config.part(CorpusOptions), own, all_skipped=config.verbose
    )
    model = yield from found_model(config.part(SourceOptions))
    start, tokenizer = model.source, model.tokenizer
    stride = config.stride or max(model.n_ctx // 2, 1)
    if stride > model.n_ctx:
        raise UsageError(f"--stride {stride} is more than the model's window, {model.n_ctx}.")
    yield from map(Alert, start.remarks())
    encoder = Encoder(options=config, tokenizer=tokenizer, quiet=config.quiet)
    with living(f"reading {corpus}", quiet=config.quiet):
        tokens, mask = yield from encoder.read_once(corpus)
    batches.check_length(tokens, str(corpus))
    if not (tokens != tokenizer.end_of_text).any():
        raise BadDataError(f"{corpus}: there is no token to judge. Give more text.")
    yield Notice(f"from {start.prefix}")
    windows = batches.overlapping(tokens, tokenizer.end_of_text, model.n_ctx, stride, mask)
    if config.per_token:
        # Others don't need it.
        from gpt2cli.commands.scoring import scored_corpus

        yield from scored_corpus(model, config.part(ReadingOptions), windows)
        return
    with announced("loading TensorFlow", quiet=config.quiet):
        tensorflow.load(verbose=config.verbose, keep_compiled=config.xla)
    with memory.explained(config.device, config.gpu_bytes, remedy=LEANER):
        with announced(f"loading {start.prefix}", quiet=config.quiet):
            judge, prefix = yield from load(model.names, start, partial(load_evaluator, config))
        length = len(tokens) if mask is None else mask.count(len(tokens))
        score = yield from judged(config, judge, windows, length)
    yield from map(Notice, judge.compiler.pop_warnings())
    yield Text(told(config, prefix, score, byte_count(tokens, tokenizer, mask)))


def load_evaluator(
    config: EvaluateConfig, prefix: Path, hparams: HParams
) -> tuple[Evaluator, Path]:
    """Returns what judges with the checkpoint's weights, and the checkpoint."""
    from gpt2cli.network import low_precision
    from gpt2cli.runtime import devices
    from gpt2cli.storage import checkpoint
    from gpt2cli.training.evaluation import Evaluator

    devices.configure(config.device, config.gpu_bytes, config.precision)
    precision = devices.resolve_precision(config.precision)
    weights = low_precision.cast_weights(checkpoint.load(prefix, hparams.shapes()), precision)
    return Evaluator(weights, hparams, xla=config.xla), prefix


def judged(
    config: EvaluateConfig,
    judge: Evaluator,
    windows: Iterator[tuple[Windows, Windows]],
    length: int,
) -> Generator[Record, None, Score]:
    """Yields now and then how far it is; returns the score of about `length` tokens."""
    from gpt2cli.training.evaluation import Score

    several = iter(lambda: list(itertools.islice(windows, config.batch_size)), [])
    judging = (judge.judge(*batches.stacked(each, config.batch_size)) for each in several)
    score = Score()
    with Count("judging", length, quiet=config.quiet, unit="tokens") as meter:
        for batch in meter.named(judging, COMPILING):
            score += batch
            loss = f"loss={score.loss:.4f}" if score.count else ""
            yield from meter.advance(score.count, loss)
    return score


def byte_count(tokens: Tokens, tokenizer: Tokenizer, mask: LossMask | None) -> int:
    """Returns how many bytes the tokens that count stand for, without the borders of documents."""
    import numpy as np

    lengths = np.array([len(tokenizer.decode_bytes([n])) for n in range(tokenizer.vocab)])
    lengths[tokenizer.end_of_text] = 0
    counted = tokens if mask is None else tokens[mask.at(np.arange(len(tokens)))]
    counts = np.bincount(counted, minlength=tokenizer.vocab)
    return int(counts @ lengths)


def told(config: EvaluateConfig, prefix: Path, score: Score, size: int) -> str:
    """Returns the line that tells the result; the size is that of the text (bytes)."""
    bits = score.nats / math.log(2) / size
    if config.format == "text":
        return (
            f"loss={score.loss:.4f} perplexity={score.perplexity:.2f} bits_per_byte={bits:.4f} "
            f"tokens={score.count} bytes={size}\n"
        )
    fields = {"loss": score.loss, "perplexity": score.perplexity, "bits_per_byte": bits}
    fields |= {"accuracy": score.accuracy, "tokens": score.count, "bytes": size}
    return json.dumps({**fields, "checkpoint": str(prefix)}) + "\n"
