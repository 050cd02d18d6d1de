"""The samples of a batch: what each continues, how it grows, and how it is printed."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections import deque
from collections.abc import Iterator

from gpt2cli.config.generate import GenerateConfig
from gpt2cli.text.continuation import Continuation
from gpt2cli.text.tokenizer import Tokenizer

DIGITS = 6


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A text to continue.

    Attributes:
        number: its place among the prompts, from 0.
        text: as it was given.
        tokens: what the model sees of it; at least one.
    """

    number: int
    text: str
    tokens: list[int]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What all rows have in common.

    Attributes:
        config: the settings.
        tokenizer: what makes text of tokens.
        n_ctx: the window.
        seed: what random numbers follow from.
        width: how many texts grow at once at most.
        longest: how many tokens the longest prompt has.
    """

    config: GenerateConfig
    tokenizer: Tokenizer
    n_ctx: int
    seed: int
    width: int = 1
    longest: int = 1

    @property
    def streams(self) -> bool:
        """Whether text is printed while it grows: as asked, else on a terminal, if it can be."""
        config = self.config
        if config.stream is not None:
            return config.stream
        whole = config.format == "jsonl" or config.search == "beams"
        return not whole and sys.stdout.isatty()

    def length(self, prompt: Prompt) -> int:
        """Returns how many tokens a sample of a prompt may have."""
        return self.config.length or max(self.n_ctx - len(prompt.tokens), 1)


class Row:
    """A sample as it grows.

    Attributes:
        prompt: what it continues.
        sample: its place among the prompt's samples, from 0.
        new: what the model has written.
        log_probabilities: of each of its tokens (nats).
        seconds: how long it took, once it has ended.
    """

    def __init__(self, prompt: Prompt, sample: int, plan: Plan) -> None:
        self.prompt, self.sample = prompt, sample
        self.new = Continuation(
            plan.tokenizer,
            plan.length(prompt),
            stops=plan.config.stops,
            ignore_end=plan.config.ignore_eos,
        )
        self.log_probabilities: list[float] = []
        self.seconds = 0.0
        self._prefix = prompt.text if plan.config.include_prefix else ""
        self._began = time.monotonic()

    @property
    def whole(self) -> str:
        """The text as the user wants it, with or without the prompt."""
        return self._prefix + self.new.text

    @property
    def certain(self) -> str:
        """What of the whole text stays, whatever follows."""
        return self._prefix + self.new.certain

    def add(self, token: int, log_probability: float) -> None:
        """Takes the next token, unless the sample has come to its end."""
        if not self.new.done:
            self.new.add(token)
            self.log_probabilities.append(log_probability)
            self.seconds = time.monotonic() - self._began

    def record(self, seed: int) -> str:
        """Returns a line of JSON that tells all about the sample."""
        count = len(self.new.tokens)
        fields = {
            "prompt": self.prompt.text,
            "sample": self.sample,
            "text": self.whole,
            "tokens": self.new.tokens,
            "log_probabilities": [round(value, DIGITS) for value in self.log_probabilities],
            "log_probability": round(sum(self.log_probabilities), DIGITS),
            "finish_reason": self.new.reason,
            "seed": seed,
            "seconds": round(self.seconds, DIGITS),
            "tokens_per_second": round(count / self.seconds, 3) if self.seconds else 0.0,
        }
        return json.dumps(fields, ensure_ascii=False) + "\n"


class Telling:
    """Samples told one after the other, with what stands between them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        # Samples told to their ends; whether the next has begun, and its characters told so far.
        self._count, self._begun, self._shown = 0, False, 0

    def finished(self, row: Row) -> str:
        """Returns all that is printed of a sample that has ended."""
        if self._plan.config.format == "jsonl":
            return row.record(self._plan.seed)
        return "".join(self._pieces(row))

    def growing(self, rows: deque[Row]) -> Iterator[str]:
        """Yields what can be printed by now of samples that grow side by side, in their order.

        Those that have been printed to their ends are taken out of the rows.
        """
        while rows:
            yield from self._pieces(rows[0])
            if not rows[0].new.done:
                return
            rows.popleft()

    def _pieces(self, row: Row) -> Iterator[str]:
        text = row.whole if row.new.done else row.certain
        new = text[self._shown :]
        if not self._begun and (new or row.new.done):
            self._begun = True
            if self._count:
                yield self._plan.config.sample_delim
        self._shown = len(text)
        if new:
            yield new
        if row.new.done:
            if not text.endswith("\n"):
                yield "\n"
            self._count, self._begun, self._shown = self._count + 1, False, 0
