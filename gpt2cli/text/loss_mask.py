"""Which tokens of a text count in the loss: a bit for each."""

from __future__ import annotations

import dataclasses
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Bits: TypeAlias = npt.NDArray[np.uint8]
# How many flags are packed together, or bytes unpacked.
AT_ONCE = 1 << 20


@dataclasses.dataclass(frozen=True)
class LossMask:
    """Which tokens count in the loss.

    Attributes:
        bits: uint8 (bytes,), eight tokens in each, the first in the highest bit.
        start: how many tokens the bits begin before the text.
    """

    bits: Bits
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
