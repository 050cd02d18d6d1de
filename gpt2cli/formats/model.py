"""What every format is made of: a checkpoint's weights, one at a time, and what belongs to them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gpt2cli.files import atomic, paths
from gpt2cli.hparams import HParams
from gpt2cli.special_tokens import Specials
from gpt2cli.storage.state import State
from gpt2cli.vocabulary import Vocabulary

# A weight in memory is float32.
WEIGHT_BYTES = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A model that is to be written in another program's format.

    Attributes:
        name: the base model that it is, or began with.
        precision: what its weights are to be stored in.
        gzipped: whether an archive is to be compressed.
        state: the state of the run's step, if gpt2cli trained it.
        settings: those of the run's last invocation, if gpt2cli trained it.
        advance: called with how many bytes of its weights were taken, and how many there are.
        chat_template: how it knows conversations, in Jinja; or empty.
    """

    name: str
    folder: Path
    prefix: Path
    hparams: HParams
    vocabulary: Vocabulary
    precision: str = "float32"
    gzipped: bool = False
    state: State | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    advance: Callable[[int, int], object] = lambda done, total: None
    chat_template: str = ""

    def weights(self) -> Iterator[tuple[str, Any]]:
        """Yields the weights by OpenAI's names, float32, one at a time; raises BadDataError."""
        from gpt2cli.storage import checkpoint

        done, total = 0, self.hparams.count() * WEIGHT_BYTES
        for name, array in checkpoint.load(self.prefix, self.hparams.shapes()):
            done += array.nbytes
            yield name, array
            # Here it must not be held on to while the next one is read.
            del array
            self.advance(done, total)

    @property
    def title(self) -> str:
        """What it is called elsewhere, with the steps that it was trained for if they are known."""
        step = paths.step_of(self.prefix)
        trained = f", fine-tuned for {step:,} steps" if step else ""
        return f"GPT-2 {self.name}{trained}"

    def tokens(self) -> list[str]:
        """Returns the vocabulary in the order of the numbers.

        Pieces of words are in GPT-2's byte symbols; added tokens are as they stand in a text.
        """
        added = self.specials.added
        return [
            added[number].text if number in added else token
            for token, number in sorted(self.vocabulary.tokens.items(), key=lambda item: item[1])
        ]

    @property
    def specials(self) -> Specials:
        """The tokens that are not pieces of words."""
        return self.vocabulary.specials


def write_files(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Makes a folder if it is missing, and writes files into it, which nothing reads yet."""
    with atomic.made_folders(folder):
        for name, content in files.items():
            atomic.write(folder / name, content)


def write_model(model: Model, path: Path, kind: str) -> None:
    """Writes a model in a format; raises BadDataError if the checkpoint is damaged, or OSError."""
    # Only the format's own module is loaded.
    if kind == "huggingface":
        from gpt2cli.formats.huggingface import write_huggingface as write
    elif kind == "openai":
        from gpt2cli.formats.openai import write_openai as write
    elif kind == "gguf":
        from gpt2cli.formats.gguf import write_gguf as write
    elif kind == "savedmodel":
        from gpt2cli.formats.savedmodel import write_savedmodel as write
    elif kind == "tar":
        from gpt2cli.formats.archive import write_archive as write
    else:
        raise ValueError(kind)
    write(model, path)
