"""Which window of a corpus comes when: a pure function of seed and number; and the loss mask."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from gpt2cli.errors import BadDataError

Tokens: TypeAlias = npt.NDArray[np.uint16]
Windows: TypeAlias = npt.NDArray[np.int32]

# Stands beyond the end of a text that is shorter than a window; not a token. In a window a token t
# that is read and not learned is held as ~t, which is negative too: neither counts in the loss.
PADDING = -1
# One token to see, and one to predict.
LEAST = 2
# How many flags are packed together, or bytes unpacked.
AT_ONCE = 1 << 20


@dataclasses.dataclass(frozen=True)
class LossMask:
    """Which tokens count in the loss.

    Its bits, uint8 (bytes,), are eight tokens in each, the first in the highest bit; they begin
    `start` tokens before the text.
    """

    bits: npt.NDArray[np.uint8]
    start: int = 0

    def at(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Returns whether the tokens at these places count, in the same shape."""
        found = places + self.start
        counts: npt.NDArray[np.bool_] = self.bits[found >> 3] >> (7 - (found & 7)) & 1 != 0
        return counts

    def after(self, place: int) -> LossMask:
        """Returns it for the text from a place on."""
        return LossMask(self.bits, self.start + place)

    def count(self, length: int) -> int:
        """Returns how many of a text's first tokens count."""
        steps = range(0, length, AT_ONCE)
        return sum(int(self.at(np.arange(at, min(at + AT_ONCE, length))).sum()) for at in steps)


class MaskBuilder:
    """Collects which tokens count, as they are encoded."""

    def __init__(self) -> None:
        self._packed = bytearray()
        self._waiting = bytearray()

    def add(self, flags: bytes) -> None:
        """Takes a byte for each token that follows: 1 if it counts, else 0."""
        self._waiting += flags
        if len(self._waiting) >= AT_ONCE:
            self._pack(len(self._waiting) // 8 * 8)

    def packed(self) -> bytes:
        """Returns the bits of all tokens; no more may follow."""
        self._pack(len(self._waiting))
        return bytes(self._packed)

    def _pack(self, size: int) -> None:
        flags = np.frombuffer(bytes(self._waiting[:size]), np.uint8)
        self._packed += np.packbits(flags).tobytes()
        del self._waiting[:size]


def check_length(tokens: Tokens, what: str) -> None:
    """Raises BadDataError unless a text has a token to see and another to predict."""
    if len(tokens) < LEAST:
        raise BadDataError(
            f"{what}: {len(tokens)} tokens found, and at least {LEAST} are needed. Give more text."
        )


def per_epoch(length: int, window: int) -> int:
    """Returns how many windows, of `window` tokens to predict, show a text of `length` once."""
    return max(length // window, 1)


def windows(
    tokens: Tokens, seed: int, first: int, count: int, window: int, mask: LossMask | None = None
) -> Windows:
    """Returns training windows number `first` and following, int32 (count, window + 1).

    A row's tokens but the last are what the model sees, and its tokens but the first are what it
    is to predict. The text, at least LEAST tokens, is taken as a ring that begins anywhere, so
    that the windows of an epoch never overlap and those of the next epoch are cut elsewhere; other
    seeds, from 0, give other orders. A text that fills no window is its only one, with PADDING
    behind it. Without a mask all tokens count.
    """
    if len(tokens) <= window:
        return np.repeat(padded(tokens, window, mask), count, axis=0)
    whole = per_epoch(len(tokens), window)
    starts = []
    for number in range(first, first + count):
        epoch, place = divmod(number, whole)
        shift, order = epoch_order(seed, epoch, whole, len(tokens))
        starts.append(shift + window * int(order[place]))
    places = np.array(starts)[:, None] + np.arange(window + 1)  # (count, window + 1)
    return taken(tokens, places % len(tokens), mask)


def taken(tokens: Tokens, places: npt.NDArray[np.int64], mask: LossMask | None) -> Windows:
    """Returns the tokens at these places, int32 in the same shape; ~t for t that do not count."""
    found = tokens[places].astype(np.int32)
    return found if mask is None else np.where(mask.at(places), found, ~found)


@functools.lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, count: int, length: int) -> tuple[int, npt.NDArray[np.intp]]:
    """Returns where an epoch begins in the text (tokens), and the order of its windows.

    The order comes from the generator's raw numbers, which NumPy promises never to change; its
    `permutation` has no such promise.
    """
    generator = np.random.Philox(key=np.array([seed, epoch], np.uint64))
    shift = int(generator.random_raw()) % length
    return shift, np.argsort(generator.random_raw(count), kind="stable")


def spread(tokens: Tokens, count: int, window: int, mask: LossMask | None = None) -> Windows:
    """Returns windows spread evenly over a text, always the same ones, to validate on.

    They are int32 (at most count, window + 1); a text that fills none is one, as in `windows`.
    """
    if len(tokens) <= window:
        return padded(tokens, window, mask)
    available = (len(tokens) - 1) // window
    numbers = np.unique(np.linspace(0, available - 1, min(count, available)).round().astype(int))
    places = numbers[:, None] * window + np.arange(window + 1)  # (count, window + 1)
    return taken(tokens, places, mask)


def padded(tokens: Tokens, window: int, mask: LossMask | None = None) -> Windows:
    """Returns a text that fills no window as one, int32 (1, window + 1), with PADDING behind it."""
    row = np.full((1, window + 1), PADDING, np.int32)
    row[0, : len(tokens)] = taken(tokens, np.arange(len(tokens)), mask)
    return row


def overlapping(
    tokens: Tokens, end_of_text: int, window: int, stride: int, mask: LossMask | None = None
) -> Iterator[tuple[Windows, Windows]]:
    """Yields windows over a whole text in which each token is to be predicted once.

    Each is int32 (window,), what is seen, and int32 (window,), what follows each of its tokens:
    PADDING at those that are not to be predicted.

    The text begins behind an end-of-text token, so that its first token has one before it, too.
    A window goes on `stride` tokens (1 to `window`) behind the one before, and only its last
    `stride` tokens are to be predicted: the others are context, as end-of-text tokens always are.
    A text that fills no window has one of its length.
    """
    window = min(window, len(tokens))
    for start in range(0, max(len(tokens) - window, 0) + stride, stride):
        places = np.arange(max(start - 1, 0), min(start + window, len(tokens)))
        piece = taken(tokens, places, mask)
        piece = np.concatenate([[end_of_text], piece]) if start == 0 else piece
        row = np.full(window + 1, PADDING, np.int32)
        row[: len(piece)] = piece
        targets = np.where((row[1:] < 0) | (row[1:] == end_of_text), PADDING, row[1:])
        if start:
            targets[: window - stride] = PADDING
        yield row[:-1], targets


def stacked(rows: Sequence[tuple[Windows, Windows]], count: int) -> tuple[Windows, Windows]:
    """Returns rows as two arrays of `count` rows; what is missing is PADDING."""
    missing = [(np.full_like(rows[0][0], PADDING),) * 2] * (count - len(rows))
    seen, targets = zip(*rows, *missing, strict=True)
    return np.stack(seen), np.stack(targets)
