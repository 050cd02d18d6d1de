"""Guesses of a smaller model: what it would write with the same random numbers."""

from __future__ import annotations

from collections.abc import Sequence

from gpt2cli.inference.decode import newer_half
from gpt2cli.inference.drafts import MOST_DRAFTED, Average, cost_of
from gpt2cli.inference.engine import Engine, Hidden, History, Row
from gpt2cli.inference.sampling import SamplingParams

# Before anything is known: how often a guess is right.
FIRST_RATE = 0.7


class ModelDrafter:
    """Guesses how a text goes on by a smaller model (Leviathan et al. 2023), one text at a time."""

    def __init__(self, engine: Engine, share: float, costs: tuple[float, ...]) -> None:
        """Takes the smaller model, and what computing costs.

        Args:
            engine: the model.
            share: the time of one of its tokens, as a share of one of the larger model's.
            costs: of the larger model's passes, see Engine.
        """
        self._engine, self._share, self._costs = engine, share, costs

    def begin(self, texts: Sequence[Row], params: SamplingParams) -> None:
        """Takes a text in place of that before, and how its tokens are chosen."""
        (text,) = texts
        self._row, self._params = list(text), params.after(params.min_length)
        self._rate = Average(first=FIRST_RATE)
        self._guesses: list[int] = []
        # How many tokens of the row are in the cache.
        self._taken = 0
        self._engine.make_room(1, self._engine.hparams.n_ctx, 0)

    def draft(self, uniforms: Sequence[Sequence[float] | None]) -> list[list[int]]:
        """Returns the next tokens, as many as are worth the rows of a pass; see Drafter.draft."""
        (numbers,) = uniforms
        # A row that is cut to half its window has room for the other half.
        most = min(self._worth(), self._engine.hparams.n_ctx // 2)
        if numbers := (numbers or [])[:most]:
            hidden = self._caught_up(len(numbers))
            history = History([self._row], len(numbers), wanted=self._params.looks_back)
            for uniform in numbers:
                if self._guesses:
                    hidden = self._engine.step(self._guesses[-1:])
                chosen = self._engine.choose(hidden, self._params, [uniform], history)
                self._guesses += chosen.tokens
                history.add(chosen.tokens)
        return [self._guesses]

    def learn(self, tokens: Sequence[Row]) -> None:
        """Takes in the tokens that a pass has given the text."""
        (new,) = tokens
        right = 0
        for guess, token in zip(self._guesses, new, strict=False):
            self._rate.learn(guess == token)
            if guess != token:
                break
            right += 1
        if self._guesses:
            # All but the last guess are in the cache.
            ahead = len(self._guesses) - 1
            self._engine.drop([ahead - min(right, ahead)])
            self._taken = len(self._row) + min(right, ahead)
        self._row += new
        self._guesses = []

    def _worth(self) -> int:
        """Returns how many guesses give the most tokens for their time; none: it is not worth it.

        Once none is, the text goes on without: nothing more is learned.
        """
        rate, best, worth = self._rate.value, 0, 1.0
        expected = chance = 1.0
        for count in range(1, MOST_DRAFTED + 1):
            chance *= rate
            expected += chance
            speed = expected / (cost_of(1 + count, self._costs) + count * self._share)
            if speed > worth:
                best, worth = count, speed
        return best

    def _caught_up(self, more: int) -> Hidden:
        """Takes in what the text has got; returns (1, embed), of its newest token."""
        n_ctx = self._engine.hparams.n_ctx
        if not self._taken or len(self._row) + more > n_ctx:
            self._row = newer_half(self._row, n_ctx, more)
            return self._engine.prefill([self._row])
        new = self._row[self._taken :]
        return self._engine.extend([new])[len(new) - 1 : len(new)]
