"""What a run trains and is validated on: text, encoded once into the run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import sys
from collections import deque
from collections.abc import Generator, Iterator
from pathlib import Path

from gpt2cli.config.finetune import DEFAULT_VAL_FRACTION, FinetuneConfig
from gpt2cli.config.shared import CorpusOptions
from gpt2cli.errors import BadDataError
from gpt2cli.files import atomic
from gpt2cli.progress import Received, told
from gpt2cli.records import Notice, Record
from gpt2cli.text import batches, corpus, validation_split
from gpt2cli.text.inputs import Texts, reading_of
from gpt2cli.text.readers import Reading
from gpt2cli.text.sources import Meter, Sources
from gpt2cli.text.tokenizer import Tokenizer

# A token file has 16 bits for a token.
MOST_TOKENS = 1 << 16
# A corpus smaller than this is encoded without a word (bytes).
WORTH_A_BAR = 4_000_000


@dataclasses.dataclass(frozen=True)
class Data:
    """What a run trains and is validated on, as tokens.

    Attributes:
        tokens: uint16 (tokens,), at least two of them.
        name: says which corpus it is, and how much of it; the same text has the same name.
        window: tokens that an example predicts.
        held_out: int32 (windows, window + 1) to validate on, or None. Where a text is shorter
            than a window, what is missing is batches.PADDING.
        held_out_tokens: the length of the text that was held out.
    """

    tokens: batches.Tokens
    name: str
    window: int
    held_out: batches.Windows | None = None
    held_out_tokens: int = 0

    @property
    def windows_per_epoch(self) -> int:
        """How many windows show each token once (but for a rest that fills no window)."""
        return batches.per_epoch(len(self.tokens), self.window)

    @property
    def held_out_name(self) -> str:
        """Says which windows are validated on; empty where there are none."""
        if self.held_out is None:
            return ""
        return hashlib.sha256(self.held_out.tobytes()).hexdigest()[:16]


def encode(
    config: FinetuneConfig, texts: Texts, tokenizer: Tokenizer, folder: Path, window: int
) -> Generator[Record, None, Data]:
    """Yields how far it is; returns the texts as tokens and windows.

    The token files lie in the run folder; those of other corpora are removed.

    Raises:
        BadDataError: it is not text, or has fewer than two tokens; nothing is left of it then.
    """
    makes = encoder(config, tokenizer, folder, bars=not config.quiet)
    try:
        data = yield from makes.data(config, texts, window)
    except BaseException:
        makes.remove_made()
        raise
    return data


def encoder(config: CorpusOptions, tokenizer: Tokenizer, folder: Path, *, bars: bool) -> Encoder:
    """Returns what makes token files in a folder; a bar is drawn on a terminal alone.

    Raises:
        BadDataError: the vocabulary is too large for them.
    """
    if tokenizer.vocab > MOST_TOKENS:
        raise BadDataError(
            f"The vocabulary has {tokenizer.vocab:,} tokens; token files hold {MOST_TOKENS:,}."
        )
    reading = reading_of(config, tokenizer.vocab)
    return Encoder(reading, tokenizer, folder, bars and sys.stderr.isatty())


def with_windows(config: FinetuneConfig, data: Data, text: batches.Tokens) -> Data:
    """Returns the data with a text to validate on."""
    windows = batches.spread(text, config.val_batches * config.batch_size, data.window)
    return dataclasses.replace(data, held_out=windows, held_out_tokens=len(text))


def split(
    config: FinetuneConfig, data: Data, tokenizer: Tokenizer
) -> Generator[Record, None, Data]:
    """Returns the data with a part of its text held out, as the config asks.

    By default no part is held out of a text that is too small to spare a window, which is said.

    Raises:
        BadDataError: it was asked for, and nothing is left to validate or to train on.
    """
    asked = config.val_fraction is not None
    fraction = DEFAULT_VAL_FRACTION if config.val_fraction is None else config.val_fraction
    if not fraction or not (asked or config.val_every):
        return data
    length = len(data.tokens)
    place = validation_split.training_length(data.tokens, fraction, tokenizer.end_of_text)
    rest = length - place
    if asked and min(place, rest) < batches.LEAST:
        raise BadDataError(
            f"--val-fraction {fraction:g} of {length:,} tokens leaves {place:,} to train on and "
            f"{rest:,} to validate on; each needs {batches.LEAST}. Give more text, another "
            "--val-fraction, or --val-dataset."
        )
    if not asked and (rest <= data.window or place <= data.window):
        yield Notice(
            f"{length:,} tokens are too few to hold out {fraction:g} of them for validation; "
            "give --val-dataset, or --val-fraction."
        )
        return data
    kept = dataclasses.replace(data, tokens=data.tokens[:place], name=f"{data.name}-{place}")
    return with_windows(config, kept, data.tokens[place:])


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Makes token files in a run folder.

    Attributes:
        reading: how files are read.
        tokenizer: what encodes them.
        folder: the run folder.
        bars: whether to draw a bar on stderr.
        made: the files that were made.
    """

    reading: Reading
    tokenizer: Tokenizer
    folder: Path
    bars: bool
    made: list[Path] = dataclasses.field(default_factory=list)

    def data(
        self, config: FinetuneConfig, texts: Texts, window: int
    ) -> Generator[Record, None, Data]:
        """Yields how far it is; returns what the config wants; removes other token files."""
        used, beside = [], None
        if texts.held_out is not None:
            # First, as it is the smaller one: if it is refused, little was done in vain.
            used.append((yield from self.token_file(texts.held_out)))
            beside = corpus.open_tokens(used[0])
        path = yield from self.token_file(texts.training)
        data = Data(corpus.open_tokens(path), path.stem.removeprefix("tokens-"), window)
        if beside is None:
            data = yield from split(config, data, self.tokenizer)
        else:
            data = with_windows(config, data, beside)
        self.remove_others(path, *used)
        return data

    def token_file(self, texts: Sources) -> Generator[Record, None, Path]:
        """Returns where a corpus's tokens are; it is encoded unless they lie in the folder.

        Raises:
            BadDataError: it is not text, or has fewer than two tokens; no file is left then.
        """
        path = self.folder / corpus.name(texts, self.reading, self.tokenizer)
        damaged = path.exists() and not corpus.is_whole(path)
        if damaged:
            yield Notice(f"{path} is damaged; the text is encoded again.")
        if damaged or not path.exists():
            with atomic.disk_errors(path), atomic.whole_file(path) as aside:
                yield from self._write(texts, aside)
                corpus.seal(aside)
                tokens = corpus.open_tokens(aside)
                batches.check_length(tokens, str(texts))
            self.made.append(path)
        return path

    def _write(self, texts: Sources, path: Path) -> Iterator[Record]:
        size, meter = texts.size(), Meter()
        with path.open("wb") as file:
            written = corpus.write_tokens(texts, self.reading, self.tokenizer, file, meter)
            with contextlib.closing(written):
                received = (Received(done, size) for done in written)
                if size >= WORTH_A_BAR:
                    yield from told(received, f"encoding {texts}", self.bars)
                deque(received, 0)
        if meter.converted:
            first, others = min(map(str, meter.converted)), len(meter.converted) - 1
            yield Notice(
                f"line ends in {first}{f' and {others} more' if others else ''}: \\r\\n and \\r "
                "became \\n; --keep-line-ends keeps them"
            )

    def remove_others(self, *used: Path) -> None:
        """Removes the token files of other corpora; what cannot be removed stays."""
        for path in set(self.folder.glob("tokens-*.u16")) - set(used):
            with contextlib.suppress(OSError):
                path.unlink()

    def remove_made(self) -> None:
        """Removes the token files that were made: the corpus was refused, or given up."""
        for path in self.made:
            with contextlib.suppress(OSError):
                path.unlink()
