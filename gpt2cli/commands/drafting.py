"""What guesses tokens while text is written: a look-up in texts and a corpus, or a small model."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator

from gpt2cli.commands.engines import FoundModel, engine_of, found_model
from gpt2cli.config.shared import LATEST, ReadingOptions, SourceOptions
from gpt2cli.errors import BadDataError, Gpt2cliError, shortened
from gpt2cli.inference.drafts import Drafter
from gpt2cli.inference.engine import Engine
from gpt2cli.inference.model_drafts import ModelDrafter
from gpt2cli.progress import announced
from gpt2cli.records import Notice, Record
from gpt2cli.storage.source import CheckpointSource
from gpt2cli.text import corpus_index
from gpt2cli.text.tokenizer import same_tokens


def small_model(
    name: str, options: SourceOptions, large: FoundModel
) -> Generator[Record, None, FoundModel]:
    """Returns the model that is to guess tokens for a larger one; none is loaded.

    Raises MissingInputError if there is no such model, BadDataError if it has another vocabulary.
    """
    small = yield from found_model(
        dataclasses.replace(options, model_name=name, run_name=None, checkpoint=LATEST)
    )
    # Either may be given any token that the other has a row for.
    rows = {found.source.hparams.n_vocab for found in (small, large)}
    if len(rows) > 1 or not same_tokens(small.tokenizer, large.tokenizer):
        raise BadDataError(
            f"--draft-model {shortened(name)} has other tokens than {large.source.prefix}. Give a "
            "smaller model of the same vocabulary, or leave the option out."
        )
    return small


def model_drafter(
    small: FoundModel, reading: ReadingOptions, engine: Engine
) -> Generator[Record, None, ModelDrafter]:
    """Returns what guesses tokens by a smaller model than the engine's, which is loaded."""
    share = small.source.hparams.count() / engine.hparams.count()
    return ModelDrafter((yield from engine_of(small, reading)), share, engine.pass_costs)


def drafter_of(
    source: CheckpointSource,
    engine: Engine,
    *,
    rows: int,
    batch_size: int,
    speculate: bool | None,
    quiet: bool,
) -> Generator[Record, None, Drafter | None]:
    """Returns what guesses tokens of `rows` texts at once; None if it cannot, or may not pay."""
    # On TensorFlow it pays less, and was not measured on GPUs.
    if engine.fixed_rows and not speculate:
        return None
    if engine.fixed_rows and rows > 1:
        yield Notice(
            f"--speculate does nothing with --batch-size {batch_size}: TensorFlow guesses "
            "for one text at a time. Give --batch-size 1."
        )
        return None
    corpus = None
    if source.state and (path := corpus_index.token_file(source.folder, source.state.corpus)):
        if not speculate and corpus_index.is_slow(path):
            yield Notice(
                f"What may follow is looked up in the text only. To index {path} takes a while; "
                "--speculate does it, once."
            )
            return Drafter(None, source.hparams.n_vocab, engine.pass_costs)
        try:
            with announced(f"indexing {path}", quiet=quiet):
                corpus = corpus_index.load_index(path)
        except Gpt2cliError as error:
            yield Notice(f"What may follow is looked up in the text only. {error}")
    return Drafter(corpus, source.hparams.n_vocab, engine.pass_costs)
