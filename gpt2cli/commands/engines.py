"""The model that a command line means: found, checked, and loaded into an engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from functools import partial

from gpt2cli.config.shared import ReadingOptions, SourceOptions
from gpt2cli.fetching.base import find_weights
from gpt2cli.inference.engine import Engine
from gpt2cli.inference.load import EngineParams, load_engine
from gpt2cli.progress import announced
from gpt2cli.records import Record
from gpt2cli.runtime import tensorflow
from gpt2cli.storage.source import CheckpointSource, SourceNames, load
from gpt2cli.text.tokenizer import Tokenizer, check_fits, read_tokenizer

LEANER, SINGLE = "Try a lower --batch-size, or --precision bfloat16.", "Try --precision bfloat16."


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoundModel:
    """A model that is there and fits together, not loaded; `names` are the options, filled in."""

    options: SourceOptions
    names: SourceNames
    source: CheckpointSource
    tokenizer: Tokenizer

    @property
    def n_ctx(self) -> int:
        """The tokens of its window."""
        return self.source.hparams.n_ctx


def found_model(options: SourceOptions) -> Generator[Record, None, FoundModel]:
    """Returns the model that the options mean; yields what is fetched.

    Raises MissingInputError if there is no such run or model, BadDataError if its checkpoint or
    vocabulary is damaged, or they do not fit each other.
    """
    names, source = yield from find_weights(options)
    tokenizer = read_tokenizer(*source.vocabulary, source.hparams.n_vocab)
    check_fits(tokenizer, source.hparams)
    return FoundModel(options=options, names=names, source=source, tokenizer=tokenizer)


def engine_of(model: FoundModel, options: ReadingOptions) -> Generator[Record, None, Engine]:
    """Returns the model, loaded; raises BadDataError if its checkpoint is damaged."""
    params = EngineParams(
        device=options.device,
        precision=options.precision,
        gpu_bytes=options.gpu_bytes,
        xla=options.xla,
    )
    line, quiet = f"loading {model.source.prefix}", model.options.quiet
    if params.needs_tensorflow:
        with announced(line, quiet=quiet):
            tensorflow.load(verbose=model.options.verbose, keep_compiled=options.xla)
    read = partial(load_engine, params=params)
    with announced(line, quiet=quiet):
        return (yield from load(model.names, model.source, read))
