"""What guesses tokens while text is written: from the texts, and from the corpus of their run."""

from __future__ import annotations

from collections.abc import Generator

from gpt2cli.config.generate import GenerateConfig
from gpt2cli.errors import Gpt2cliError
from gpt2cli.inference.drafts import Drafter
from gpt2cli.inference.engine import Engine
from gpt2cli.inference.speculation import VerifyingEngine
from gpt2cli.progress import announced
from gpt2cli.records import Notice, Record
from gpt2cli.storage.source import CheckpointSource
from gpt2cli.text import corpus_index


def drafter_of(
    config: GenerateConfig, source: CheckpointSource, engine: Engine
) -> Generator[Record, None, Drafter | None]:
    """Returns what guesses tokens, or None if the engine cannot verify them."""
    if not isinstance(engine, VerifyingEngine):
        if config.speculate:
            yield Notice("TensorFlow computes a token at a time; --speculate changes nothing.")
        return None
    corpus = None
    if source.state and (path := corpus_index.token_file(source.folder, source.state.corpus)):
        try:
            with announced(f"indexing {path}", quiet=config.quiet):
                corpus = corpus_index.load_index(path)
        except Gpt2cliError as error:
            yield Notice(f"What may follow is looked up in the text only. {error}")
    return Drafter(corpus, source.hparams.n_vocab, engine.pass_costs)
