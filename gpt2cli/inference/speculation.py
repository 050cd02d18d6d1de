"""Texts written in fewer passes, the same to the bit: drafts of the next tokens are verified.

A pass takes in the newest token and the draft (Leviathan et al. 2023). The random number of each
position is known before its token, so the token there is chosen as always. If it is the drafted
one, the scores of the position after it have been computed already.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Protocol

from gpt2cli.arrays import Logits
from gpt2cli.inference.decode import newer_half
from gpt2cli.inference.drafts import MOST_DRAFTED
from gpt2cli.inference.engine import Engine, History, Row
from gpt2cli.inference.sampling import SamplingParams


class Drafts(Protocol):
    """Guesses how texts side by side go on."""

    def begin(self, texts: Sequence[Row], params: SamplingParams) -> None:
        """Takes texts in place of those before, and how their tokens are chosen."""
        ...

    def draft(self, uniforms: Sequence[Sequence[float] | None]) -> list[list[int]]:
        """Returns each text's next tokens, as many as are worth the rows of a pass.

        Args:
            uniforms: the random numbers of a text's next tokens, as many as it has room for; None:
                it has ended, and has no row.
        """
        ...

    def learn(self, tokens: Sequence[Row]) -> None:
        """Takes in the tokens that a pass has given each text."""
        ...


class Text:
    """A text that grows at its own speed.

    Attributes:
        window: what the model sees of it, and its newest token.
        length: how many tokens it has got.
        left: how many tokens it is to get; 0: it has ended.
        draft: the tokens that may follow the newest one.
        new: the tokens of the newest pass, each with its log-probability (nats).
    """

    def __init__(self, prompt: Row, stream: Iterator[float], length: int) -> None:
        self.window, self.length, self.left = list(prompt), 0, length
        self._stream, self._ahead = stream, deque[float]()
        self.draft: list[int] = []
        self.new: list[tuple[int, float]] = []

    def uniform(self) -> float:
        """Returns the random number of its next token."""
        return self._ahead.popleft() if self._ahead else next(self._stream)

    def uniforms(self, n_ctx: int) -> list[float] | None:
        """Returns the random numbers of the tokens that may be drafted; None: it has ended.

        They are as many as the text and its window have room for; they are not used up.
        """
        if not self.left:
            return None
        room = min(self.left - 1, n_ctx - len(self.window), MOST_DRAFTED)
        self._ahead.extend(itertools.islice(self._stream, max(room - len(self._ahead), 0)))
        return list(itertools.islice(self._ahead, room))

    def newest(self) -> list[int]:
        """Returns its tokens that a pass takes in: none if it has ended."""
        return [self.window[-1], *self.draft] if self.left else []


def speculate(
    engine: Engine, params: SamplingParams, drafter: Drafts, texts: Sequence[Text]
) -> Iterator[None]:
    """Lets texts grow to their ends; yields after each pass, when a text may be ended from outside.

    Each begins with 1 to n_ctx tokens.
    """
    n_ctx, fresh = engine.hparams.n_ctx, True
    windows, length = [text.window for text in texts], max(text.left for text in texts)
    engine.make_room(len(texts), max(map(len, windows)), length)
    history = History(windows, length, wanted=params.looks_back)
    drafter.begin(windows, params)
    while any(text.left for text in texts):
        if fresh or any(text.left and len(text.window) > n_ctx for text in texts):
            for text in texts:
                text.window, text.draft = newer_half(text.window, n_ctx), []
            taken, fresh = [1 for _ in texts], False
            hidden = engine.prefill([text.window for text in texts])
        else:
            drafts = drafter.draft([text.uniforms(n_ctx) for text in texts])
            for text, draft in zip(texts, drafts, strict=True):
                text.draft = draft
            rows = [text.newest() for text in texts]
            taken = [len(row) for row in rows]
            hidden = engine.extend(rows)
        verify(engine, params, texts, logits=engine.logits(hidden), taken=taken, history=history)
        engine.drop([most - len(text.new) for most, text in zip(taken, texts, strict=True)])
        drafter.learn([[token for token, _ in text.new] for text in texts])
        yield


def verify(
    engine: Engine,
    params: SamplingParams,
    texts: Sequence[Text],
    *,
    logits: Logits,
    taken: Sequence[int],
    history: History,
) -> None:
    """Adds each text's next tokens to it, up to the first that is not the drafted one.

    Args:
        engine: chooses them.
        params: how they are chosen.
        texts: get the tokens, as the history does.
        logits: float32 (tokens, vocab), of the tokens that were taken in, text after text.
        taken: how many those are of each text.
        history: the tokens so far.
    """
    places = [min(n, len(logits) - 1) for n in itertools.accumulate([0, *taken[:-1]])]
    for text in texts:
        text.new = []
    going = [number for number, text in enumerate(texts) if text.left]
    while going:
        # For those that have ended, or come to a wrong token, a token is chosen and left at that.
        uniforms = [text.uniform() if n in going else 0.0 for n, text in enumerate(texts)]
        ways = {number: params.after(texts[number].length) for number in going}
        # Of one text nothing need be copied.
        rows = logits[places] if len(texts) > 1 else logits[places[0] :][:1]
        found = {
            way: engine.choose_from(rows, way, uniforms, history) for way in set(ways.values())
        }
        right = []
        for number in going:
            text, chosen = texts[number], found[ways[number]]
            token = chosen.tokens[number]
            guesses = text.draft[len(text.new) :]
            text.new.append((token, chosen.log_probabilities[number]))
            text.window.append(token)
            text.length, text.left = text.length + 1, text.left - 1
            history.add_to(number, token)
            if guesses and guesses[0] == token:
                places[number] += 1
                right.append(number)
        going = right
