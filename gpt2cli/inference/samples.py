"""The samples of a batch: what each continues, how it grows, and how it is printed."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections import deque
from collections.abc import Iterator, Mapping

from gpt2cli.json_reader import Json
from gpt2cli.text.continuation import Continuation
from gpt2cli.text.tokenizer import Tokenizer

DIGITS = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompt:
    """A text to continue, and what ends its samples.

    Attributes:
        number: its place among the prompts, from 0.
        text: as it was given.
        tokens: what the model sees of it; at least one.
        length: how many tokens a sample may have.
        stops: texts before which a sample ends.
        ignore_end: whether a sample goes on beyond the end-of-text token.
        seed: what random numbers follow from.
        others: more facts about it, which its samples' records repeat.
        is_chat: whether samples are answers, shown without the prompt and the space after it.
    """

    number: int
    text: str
    tokens: list[int]
    length: int
    stops: tuple[str, ...] = ()
    ignore_end: bool = False
    seed: int = 0
    others: Mapping[str, Json] = dataclasses.field(default_factory=dict)
    is_chat: bool = False

    def ends(self, tokens: list[int], tokenizer: Tokenizer) -> bool:
        """Returns whether new tokens hold a stop text, or end with a token that ends texts."""
        if tokens[-1] in tokenizer.ends and not self.ignore_end:
            return True
        text = tokenizer.decode(tokens) if self.stops else ""
        return any(stop in text for stop in self.stops)


class Sample:
    """A sample as it grows.

    Attributes:
        prompt: what it continues.
        number: its place among the prompt's samples, from 0.
        new: what the model has written.
        log_probabilities: of each of its tokens (nats).
        passes: in how many passes a draft was verified, the first ones included; 0: without.
        seconds: how long it took, once it has ended.
    """

    def __init__(
        self, prompt: Prompt, number: int, tokenizer: Tokenizer, *, include_prefix: bool = True
    ) -> None:
        """Takes what it continues, and whether that is a part of its text."""
        self.prompt, self.number = prompt, number
        self.new = Continuation(
            tokenizer, prompt.length, stops=prompt.stops, ignore_end=prompt.ignore_end
        )
        self.log_probabilities: list[float] = []
        self.passes, self.seconds = 0, 0.0
        self._prefix = prompt.text if include_prefix and not prompt.is_chat else ""
        self._began = time.monotonic()

    @property
    def whole(self) -> str:
        """The text as the user wants it, with or without the prompt."""
        return self._shown(self.new.text)

    @property
    def certain(self) -> str:
        """What of the whole text stays, whatever follows."""
        return self._shown(self.new.certain)

    def _shown(self, text: str) -> str:
        return text.lstrip(" ") if self.prompt.is_chat else self._prefix + text

    def add(self, token: int, log_probability: float) -> None:
        """Takes the next token, unless the sample has come to its end."""
        if not self.new.done:
            self.new.add(token)
            self.log_probabilities.append(log_probability)
            self.seconds = time.monotonic() - self._began

    def record(self) -> str:
        """Returns a line of JSON with all that is known of the sample."""
        return json.dumps(self.facts(), ensure_ascii=False) + "\n"

    def facts(self) -> dict[str, Json]:
        """Returns all that is known of the sample."""
        count = len(self.new.tokens)
        return {
            **self.prompt.others,
            "prompt": self.prompt.text,
            "sample": self.number,
            "text": self.whole,
            "tokens": self.new.tokens,
            "log_probabilities": [rounded(value) for value in self.log_probabilities],
            "log_probability": rounded(sum(self.log_probabilities)),
            "finish_reason": self.new.reason,
            "seed": self.prompt.seed,
            "seconds": rounded(self.seconds),
            "passes": self.passes or count,
            "accepted": count - self.passes if self.passes else 0,
            "tokens_per_second": round(count / self.seconds, 3) if self.seconds else 0.0,
        }


def rounded(value: float) -> float | None:
    """Returns a number for JSON, which has none for NaN: a model that has diverged."""
    return round(value, DIGITS) if math.isfinite(value) else None


class Printer:
    """Samples as text or JSON, one after the other, with what stands between them."""

    def __init__(self, delimiter: str, *, jsonl: bool) -> None:
        self._delimiter, self._jsonl = delimiter, jsonl
        # Samples printed to their ends; whether the next has begun, and its characters so far.
        self._count, self._begun, self._shown = 0, False, 0

    def finished(self, sample: Sample) -> str:
        """Returns all that is printed of a sample that has ended."""
        return sample.record() if self._jsonl else "".join(self._pieces(sample))

    def growing(self, samples: deque[Sample]) -> Iterator[str]:
        """Yields what can be printed by now of samples that grow side by side, in their order.

        Those that have been printed to their ends are taken out.
        """
        while samples:
            yield from self._pieces(samples[0])
            if not samples[0].new.done:
                return
            samples.popleft()

    def _pieces(self, sample: Sample) -> Iterator[str]:
        text = sample.whole if sample.new.done else sample.certain
        new = text[self._shown :]
        if not self._begun and (new or sample.new.done):
            self._begun = True
            if self._count:
                yield self._delimiter
        self._shown = len(text)
        if new:
            yield new
        if sample.new.done:
            if not text.endswith("\n"):
                yield "\n"
            self._count, self._begun, self._shown = self._count + 1, False, 0
