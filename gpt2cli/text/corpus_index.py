"""Where in a corpus the last tokens of a text occur, and what follows them there.

The index of a token file is a file beside it: the positions of the corpus, in the order of the
tokens before them, the nearest first. So those after the same tokens are neighbours, and one binary
search finds the longest end of a text. What is found is a guess: a wrong index is only of no use.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from gpt2cli import reading
from gpt2cli.arrays import Array
from gpt2cli.errors import BadDataError
from gpt2cli.files import atomic
from gpt2cli.text.arrays import TOKEN_TYPE
from gpt2cli.text.batches import Tokens
from gpt2cli.text.token_files import (
    DIGEST_BYTES,
    MASKED,
    append_digest,
    is_intact,
    open_tokens,
)

ENDING = ".index"
# What an index begins with, before the digest of its token file. Another one if its order changes.
MAGIC = b"gpt2cli index 1\n"
HEADER_BYTES = len(MAGIC) + DIGEST_BYTES
POSITION_TYPE = np.dtype("<u4")
MOST_POSITIONS = 1 << 32
# Positions are ordered by this many tokens before them, which are two numbers of 64 bits.
DEPTH, HALF, TOKEN_BITS = 8, 4, 16
# About this number of positions is sorted at once; of this number the borders between are made.
SORTED_AT_ONCE, SAMPLED = 1 << 22, 1 << 18
# Bytes of tokens that are indexed in a few seconds: about 16 MB of text.
MOST_IN_PASSING = 1 << 23
# Of the places of the same tokens, at most this number is looked at.
MOST_PLACES = 32


class CorpusIndex:
    """A corpus, and its positions in the order of what is before them."""

    def __init__(self, tokens: Tokens, positions: Array) -> None:
        """Takes uint16 (tokens,), and uint32 (positions,) as `ordered_positions` yields them."""
        self._tokens, self._positions = tokens.data, positions.data
        self._bytes = self._tokens.cast("B")

    def followers(self, text: Sequence[int], count: int) -> tuple[list[list[int]], int]:
        """Returns what follows the longest end of a text that the corpus has.

        Args:
            text: the tokens so far.
            count: how many tokens to return of each place.

        Returns:
            At most MOST_PLACES rows of up to `count` tokens, in no useful order; and how many
            tokens at the text's end are the same at each of those places, at most DEPTH.
        """
        packed = np.asarray(text[-DEPTH:], TOKEN_TYPE).tobytes().rjust(2 * DEPTH, b"\0")
        wanted = int.from_bytes(packed, "little")
        place = bisect_left(self._positions, wanted, key=self._before)
        near = range(max(place - 1, 0), min(place + 1, len(self._positions)))
        same = min(max((self._same(wanted, each) for each in near), default=0), len(text))
        if not same:
            return [], 0
        shift = (DEPTH - same) * TOKEN_BITS
        first = self._border(wanted >> shift << shift, place, -1)
        last = self._border(((wanted >> shift) + 1) << shift, place, 1)
        places = range(first, last, -(-(last - first) // MOST_PLACES))
        starts = map(self._positions.__getitem__, places)
        return [self._tokens[start : start + count].tolist() for start in starts], same

    def _before(self, position: int) -> int:
        """Returns the tokens before a position as a number, in which the nearest counts most."""
        return int.from_bytes(self._bytes[2 * (position - DEPTH) : 2 * position], "little")

    def _same(self, wanted: int, place: int) -> int:
        """Returns how many of the tokens before a position, given by its place, are as wanted."""
        different = wanted ^ self._before(self._positions[place])
        return DEPTH - -(-different.bit_length() // TOKEN_BITS)

    def _border(self, wanted: int, place: int, direction: int) -> int:
        """Returns the first place with no less than `wanted`, which is mostly near `place`."""
        size, end = 1, len(self._positions)
        while 0 <= (other := place + direction * size) < end:
            if (self._before(self._positions[other]) < wanted) == (direction < 0):
                break
            size *= 2
        low, high = sorted((place, min(max(place + direction * size, 0), end)))
        return bisect_left(self._positions, wanted, low, high, key=self._before)


def token_file(folder: Path, corpus: str) -> Path | None:
    """Returns the token file in a run folder whose name, and perhaps a part, a run's state says."""
    name = corpus.partition("-")[0]
    return folder / f"tokens-{name}.u16" if name.removesuffix(MASKED).isalnum() else None


def is_slow(tokens: Path) -> bool:
    """Returns whether a token file has no index yet, and is too large to get one in passing."""
    try:
        return tokens.stat().st_size > MOST_IN_PASSING and not tokens.with_suffix(ENDING).exists()
    except OSError:
        return False


def load_index(tokens: Path) -> CorpusIndex:
    """Returns the index of a token file; it is built unless an intact one is beside the file.

    Raises:
        BadDataError: the token file is damaged.
        MissingInputError: there is no token file.
        OutputError: the folder cannot be written to.
        DiskError: the disk is full or fails.
    """
    try:
        with reading.opened(tokens) as file:
            if not is_intact(tokens):
                raise BadDataError(f"{tokens} is damaged.")
            file.seek(-DIGEST_BYTES, 2)
            header = MAGIC + file.read()
    except OSError as error:
        raise reading.refusal(error, tokens) from error
    path = tokens.with_suffix(ENDING)
    with atomic.disk_errors(path):
        if not is_index(path, header):
            write_index(path, header, open_tokens(tokens))
        size = path.stat().st_size - HEADER_BYTES - DIGEST_BYTES
    shape = (size // POSITION_TYPE.itemsize,)
    positions = np.zeros(0, POSITION_TYPE)
    if size:
        positions = np.memmap(path, POSITION_TYPE, "r", HEADER_BYTES, shape)
    return CorpusIndex(open_tokens(tokens), positions)


def is_index(path: Path, header: bytes) -> bool:
    """Returns whether a file is an intact index that begins like this."""
    try:
        with reading.opened(path) as file:
            return file.read(HEADER_BYTES) == header and is_intact(path)
    except (OSError, BadDataError):
        return False


def write_index(path: Path, header: bytes, tokens: Tokens) -> None:
    """Writes the index of tokens, which appears whole or not at all."""
    with atomic.whole_file(path) as aside:
        with aside.open("wb") as file:
            file.write(header)
            for positions in ordered_positions(tokens):
                file.write(positions.tobytes())
        append_digest(aside)


def ordered_positions(tokens: Tokens) -> Iterator[Array]:
    """Yields the positions after DEPTH tokens or more, uint32 (some,), in the order of an index.

    If far too many have the same tokens before them, which is of no use, some are left out.
    """
    count = min(len(tokens), MOST_POSITIONS) - DEPTH
    if count <= 0:
        return
    nearer, farther = quads(tokens[HALF:], count), quads(tokens, count)
    sample = np.sort(nearer[:: -(-count // SAMPLED)])
    borders = np.unique(sample[:: max(len(sample) * SORTED_AT_ONCE // count, 1)])
    borders[0] = 0
    for low, high in itertools.pairwise([*borders, None]):
        chosen = np.concatenate(list(within(nearer, low, high)))[: 2 * SORTED_AT_ONCE]
        order = np.lexsort((farther[chosen], nearer[chosen]))
        yield (chosen[order] + DEPTH).astype(POSITION_TYPE)


def quads(tokens: Tokens, count: int) -> Array:
    """Returns uint64 (count,): HALF tokens from each position on; the last one counts most."""
    stride = TOKEN_TYPE.itemsize
    return np.ndarray((count,), "<u8", tokens.data.cast("B"), strides=(stride,))


def within(numbers: Array, low: int, high: int | None) -> Iterator[Array]:
    """Yields where numbers are from `low` up to `high`, int64 (some,)."""
    for start in range(0, len(numbers), SORTED_AT_ONCE):
        some = numbers[start : start + SORTED_AT_ONCE]
        inside = some >= low if high is None else (some >= low) & (some < high)
        yield np.flatnonzero(inside) + start
