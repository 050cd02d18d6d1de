"""What guesses tokens while text is written: from the texts, and from the corpus of their run."""

from __future__ import annotations

from collections.abc import Generator

from gpt2cli.errors import Gpt2cliError
from gpt2cli.inference.drafts import Drafter
from gpt2cli.inference.engine import Engine
from gpt2cli.inference.speculation import VerifyingEngine
from gpt2cli.progress import announced
from gpt2cli.records import Notice, Record
from gpt2cli.storage.source import CheckpointSource
from gpt2cli.text import corpus_index


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
    if not isinstance(engine, VerifyingEngine) or (engine.fixed_rows and not speculate):
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
