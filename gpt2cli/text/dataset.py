"""The text that a run trains and is validated on: encoded once into token files, and split."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path

import numpy as np

from gpt2cli.config.finetune import DEFAULT_VAL_FRACTION
from gpt2cli.errors import BadDataError
from gpt2cli.files import atomic
from gpt2cli.records import Alert, Notice, Record
from gpt2cli.text import batches, corpus_index
from gpt2cli.text.batches import LossMask, Tokens, Windows
from gpt2cli.text.documents import Corpus
from gpt2cli.text.token_files import Encoder, open_mask, open_tokens

# Whole documents are held out if they come within this factor of what was asked for.
TOLERANCE = 2.0
# How many tokens are looked at together.
AT_ONCE = 1 << 22


@dataclasses.dataclass(frozen=True, kw_only=True)
class Validation:
    """What a run is validated on: windows of a text of its own, or of a part that is held out.

    It is a fraction from 0 to 1; None: 5 % if the text is long enough.
    """

    files: Corpus | None = None
    fraction: float | None = None
    windows: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """The tokens that a run trains and is validated on.

    Attributes:
        tokens: uint16 (tokens,), at least two of them.
        name: identifies the corpus, and how much of it: the same text has the same name.
        window: tokens that an example predicts.
        held_out: int32 (windows, window + 1) to validate on, of `batches.spread`; or None.
        held_out_tokens: the length of the text that was held out.
        mask: which tokens count in the loss; None: all.
    """

    tokens: Tokens
    name: str
    window: int
    held_out: Windows | None = None
    held_out_tokens: int = 0
    mask: LossMask | None = None
    has_conversations: bool = False

    @property
    def windows_per_epoch(self) -> int:
        """How many windows show each token once (but for a rest that fills no window)."""
        return batches.per_epoch(len(self.tokens), self.window)

    @property
    def held_out_name(self) -> str:
        """Identifies the windows that are validated on; empty if there are none."""
        if self.held_out is None:
            return ""
        return hashlib.sha256(self.held_out.tobytes()).hexdigest()[:16]

    def windows(self, seed: int, first: int, count: int) -> Windows:
        """Returns the windows to train on from number `first` on; see `batches.windows`."""
        return batches.windows(self.tokens, seed, first, count, self.window, self.mask)

    def remarks(self, end_of_text: int) -> Iterator[Record]:
        """Yields what is trained on of conversations, and that some do not fit a window."""
        total = len(self.tokens)
        if self.mask is not None:
            counted = self.mask.count(total)
            yield Notice(f"loss on {counted:,} of {total:,} tokens: what the assistant says")
        if self.has_conversations:
            many, most = longer_documents(self.tokens, end_of_text, self.window)
            if many:
                yield Alert(
                    f"{many:,} of the conversations {'are' if many > 1 else 'is'} longer than the "
                    f"window, {self.window:,} tokens (the longest has {most:,}): never seen whole, "
                    "but in parts. Raise --window if the model's n_ctx allows it, or cut them."
                )

    def with_held_out(self, text: Tokens, count: int, mask: LossMask | None = None) -> Data:
        """Returns it with a text to validate on, of which at most `count` windows are taken."""
        windows = batches.spread(text, count, self.window, mask)
        return dataclasses.replace(self, held_out=windows, held_out_tokens=len(text))


def encode_dataset(
    encoder: Encoder, corpus: Corpus, validation: Validation, folder: Path, window: int
) -> Generator[Record, None, Data]:
    """Yields how far it is; returns a text as tokens and windows.

    The token files are in the run folder; those of other corpora are removed when all is done.
    Raises BadDataError if it is not text, or has fewer than two tokens, or none that count in the
    loss; no new file is left then.
    """
    before = token_files(folder)
    try:
        used = []
        # The smaller one first: if it is refused, little was done in vain.
        for each in filter(None, (validation.files, corpus)):
            used.append((yield from encoder.token_file(each, folder)))
        dataset = Data(
            tokens=open_tokens(used[-1]),
            name=used[-1].stem.removeprefix("tokens-"),
            window=window,
            mask=open_mask(used[-1]),
            has_conversations=corpus.has_conversations,
        )
        yield from dataset.remarks(encoder.tokenizer.end_of_text)
        if validation.files is not None:
            held_out = open_tokens(used[0])
            dataset = dataset.with_held_out(held_out, validation.windows, open_mask(used[0]))
            check_counted(dataset, str(validation.files))
        else:
            dataset = yield from split(dataset, validation, encoder.tokenizer.end_of_text)
    except BaseException:
        remove_files(token_files(folder) - before)
        raise
    remove_files(token_files(folder) - set(used))
    return dataset


def split(dataset: Data, validation: Validation, end_of_text: int) -> Generator[Record, None, Data]:
    """Returns a dataset with a part of its text held out.

    If no fraction is asked for and the text is too small to spare a window, a notice says so and
    nothing is held out. Raises BadDataError if a fraction that is asked for leaves nothing to
    validate or to train on.
    """
    asked = validation.fraction is not None
    fraction = DEFAULT_VAL_FRACTION if validation.fraction is None else validation.fraction
    if not fraction:
        return dataset
    length = len(dataset.tokens)
    place = training_length(dataset.tokens, fraction, end_of_text)
    rest = length - place
    if asked and min(place, rest) < batches.LEAST:
        raise BadDataError(
            f"--val-fraction {fraction:g} of {length:,} tokens leaves {place:,} to train on and "
            f"{rest:,} to validate on; each needs {batches.LEAST}. Give more text, another "
            "--val-fraction, or --val-dataset."
        )
    if not asked and min(place, rest) <= dataset.window:
        yield Notice(
            f"{length:,} tokens are too few to hold out {fraction:g} of them for validation; "
            "give --val-dataset, or --val-fraction."
        )
        return dataset
    kept = dataclasses.replace(
        dataset, tokens=dataset.tokens[:place], name=f"{dataset.name}-{place}"
    )
    mask = dataset.mask.after(place) if dataset.mask else None
    kept = kept.with_held_out(dataset.tokens[place:], validation.windows, mask)
    check_counted(kept, f"--val-fraction {fraction:g}")
    return kept


def check_counted(dataset: Data, what: str) -> None:
    """Raises BadDataError unless both texts have tokens that count in the loss."""
    if dataset.mask is not None and not dataset.mask.count(len(dataset.tokens)):
        raise BadDataError(f"{what} leaves no answer to train on. Give more conversations.")
    if dataset.held_out is not None and not (dataset.held_out[:, 1:] >= 0).any():
        raise BadDataError(
            f"{what}: the windows to validate on have no answer in them. Give more --val-batches, "
            "another --val-dataset, or --val-fraction 0."
        )


def training_length(tokens: Tokens, fraction: float, end_of_text: int) -> int:
    """Returns how many of a text's tokens are trained on; those after them are held out.

    It is the end of a document, the one that leaves most nearly the fraction (0 to 1), if that
    leaves half to twice the fraction; else the exact share. It depends only on the arguments.
    """
    length = len(tokens)
    wanted = fraction * length
    exact = length - round(wanted)
    if exact in (0, length):
        return exact
    first = max(length - int(wanted * TOLERANCE), 1)
    last = min(length - int(np.ceil(wanted / TOLERANCE)), length - 1)
    near = np.asarray(tokens[first - 1 : last])  # so that a document's end just before counts
    ends = np.flatnonzero(near == end_of_text) + first
    return int(ends[np.argmin(np.abs(ends - exact))]) if len(ends) else exact


def longer_documents(tokens: Tokens, end_of_text: int, window: int) -> tuple[int, int]:
    """Returns how many documents have more tokens than a window, and how many the longest has."""
    last, many, most = -1, 0, 0
    for start in range(0, len(tokens), AT_ONCE):
        ends = np.flatnonzero(tokens[start : start + AT_ONCE] == end_of_text) + start
        lengths = np.diff(ends, prepend=last)
        if len(ends):
            many += int((lengths > window).sum())
            last, most = int(ends[-1]), max(most, int(lengths.max()))
    return many, most


def token_files(folder: Path) -> set[Path]:
    """Returns the token files in a run folder."""
    return set(folder.glob("tokens-*.u16"))


def remove_files(paths: Iterable[Path]) -> None:
    """Removes token files and their indexes; one that cannot be removed stays."""
    for path in paths:
        with contextlib.suppress(OSError):
            atomic.remove(path.with_suffix(corpus_index.ENDING))
            atomic.remove(path)
