"""A text as it grows out of tokens: what of it is certain, and where it ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from gpt2cli.text.tokenizer import Tokenizer

Reason = Literal["length", "stop", "end_of_text"]


class Continuation:
    """What a model writes after a prompt.

    It ends before the first stop text in it, wherever the borders of tokens are, at a
    token that ends texts, or after a number of tokens; half a character at its end is left out.

    Attributes:
        text: what has been written; once it has ended, cut before the stop text.
        tokens: the tokens taken in, with those of a stop text and the end-of-text token.
        reason: why it has ended, or None while it goes on.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        length: int,
        *,
        stops: Sequence[str] = (),
        ignore_end: bool = False,
    ) -> None:
        """Takes the longest it may be (tokens), and what ends it before."""
        self.text = ""
        self.tokens: list[int] = []
        self.reason: Reason | None = None
        self._length, self._stops = length, stops
        self._ends = frozenset() if ignore_end else tokenizer.ends
        self._added = tokenizer.specials.added
        self._stream = tokenizer.stream()
        self._longest = max(map(len, stops), default=0)
        # Where the first stop text begins that was found, and where one may begin that is not
        # whole yet: nothing from there on is certain.
        self._stop: int | None = None
        self._certain = 0

    @property
    def certain(self) -> str:
        """What stays, whatever follows."""
        return self.text[: self._certain]

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.reason is not None

    def add(self, token: int) -> None:
        """Takes the next token in; it must not have ended."""
        self.tokens.append(token)
        if token in self._ends and token in self._added:
            self._end("end_of_text")
            return
        self._write(self._stream.feed([token]))
        if token in self._ends:
            # It is a piece of what is said, as a full stop is.
            self._end("end_of_text")
        elif self._stop is not None and self._certain == self._stop:
            self._end("stop")
        elif len(self.tokens) == self._length:
            self._end("length")

    def finish(self) -> None:
        """Ends it, unless it has ended: no more tokens follow."""
        if not self.done:
            self._end("length")

    def _write(self, new: str) -> None:
        """Adds text and looks for the stop texts in it."""
        begin = max(0, len(self.text) - self._longest + 1)
        self.text += new
        found = [at for at in (self.text.find(stop, begin) for stop in self._stops) if at >= 0]
        if self._stop is not None:
            found.append(self._stop)
        self._stop = min(found, default=None)
        # A longer stop text that begins before one that was found may still become whole.
        halves = [len(self.text) - half_found(self.text, stop) for stop in self._stops]
        self._certain = min([len(self.text), *found, *halves])

    def _end(self, reason: Reason) -> None:
        self.reason = "stop" if self._stop is not None else reason
        self.text = self.text[: self._stop]
        self._certain = len(self.text)


def half_found(text: str, stop: str) -> int:
    """Returns how many of a stop text's characters, but not all, end the text."""
    longest = min(len(stop) - 1, len(text))
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
