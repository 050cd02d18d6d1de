"""Where added tokens stand in a text, as Hugging Face's tokenizers find them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import regex

from gpt2cli.special_tokens import Added

# Compiled when first needed, which few vocabularies do: that takes longer than to read some.
BLANK_END, BLANK_START = r"\p{White_Space}+$", r"\p{White_Space}+"
WORD = r"[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]"
# Where a token begins and ends, and its number.
Span = tuple[int, int, int]


class AddedTokens:
    """The tokens that are found as a whole: the first in a text, and of those the longest.

    Attributes:
        longest: characters of the longest.
        any_single_word: whether one of them counts only if no letters touch it.
    """

    def __init__(self, added: Mapping[int, Added]) -> None:
        """Takes them by number."""
        self.longest = max((len(token.text) for token in added.values()), default=0)
        self.any_single_word = any(token.single_word for token in added.values())
        self._passes = []
        for late in (False, True):
            known = {t.text: (n, t) for n, t in added.items() if t.normalized == late}
            if known:
                texts = sorted(known, key=len, reverse=True)
                self._passes.append((re.compile("|".join(map(re.escape, texts))), known))

    def spans(self, text: str) -> list[Span]:
        """Returns where they stand, in order, with the white space that they take."""
        found: list[Span] = []
        for pattern, known in self._passes:
            if pattern.search(text):
                gaps = between(found, len(text))
                found += (span for gap in gaps for span in spans(text, *gap, pattern, known))
                found.sort()
        return found

    def parts(self, text: str) -> Iterator[str | int]:
        """Yields a text's parts: added tokens by number, and what stands between them."""
        last = 0
        for begin, end, number in self.spans(text):
            if last < begin:
                yield text[last:begin]
            yield number
            last = end
        if last < len(text):
            yield text[last:]


def spans(
    text: str,
    begin: int,
    end: int,
    pattern: re.Pattern[str],
    known: Mapping[str, tuple[int, Added]],
) -> Iterator[Span]:
    """Yields where tokens stand in a part of a text."""
    last = begin
    for match in pattern.finditer(text, begin, end):
        start, stop = match.span()
        number, token = known[match[0]]
        if token.single_word and (
            (start > begin and regex.match(WORD, text[start - 1]))
            or (stop < end and regex.match(WORD, text[stop]))
        ):
            continue
        if token.lstrip:
            blank = regex.search(BLANK_END, text, pos=min(last, start), endpos=start)
            start = max(last, blank.start() if blank else start)
        if token.rstrip and (blank := regex.match(BLANK_START, text, pos=stop, endpos=end)):
            stop = blank.end()
        # What another one has taken as its white space leaves nothing of this one.
        if start < stop:
            yield start, stop, number
        last = stop


def between(found: list[Span], length: int) -> list[tuple[int, int]]:
    """Returns where a text is that no token takes."""
    begins = [0, *(end for _, end, _ in found)]
    ends = [*(begin for begin, _, _ in found), length]
    return [(begin, end) for begin, end in zip(begins, ends, strict=True) if begin < end]
