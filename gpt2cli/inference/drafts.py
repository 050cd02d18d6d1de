"""Guesses at how texts go on, looked up in the texts themselves and in a corpus.

A guess costs a row of the pass that verifies it. How likely it is right is learned from those
before: by how much of the text's end its place shares, and by how many places agree.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Literal

from gpt2cli.text.corpus_index import DEPTH, MOST_PLACES, CorpusIndex

Origin = Literal["text", "corpus"]
# Fewer tokens that are the same say too little.
LEAST_SAME = 2
# A draft has at most this number of tokens, each of at least this chance.
MOST_DRAFTED, LEAST_CHANCE = 15, 0.05
# The costs of passes are known in steps of this number of tokens.
COSTED = 4
# Classes of guesses: by tokens that are the same, and by places that agree (%), from these on.
SAME_STEPS, AGREED_STEPS = (3, 4, 6), (40, 70, 95)
# Chances before any guess, by places that agree, lowest first, and of a place by itself. They
# weigh as much as this number of guesses.
FIRST_CHANCES, FIRST_ALONE, FIRST_WEIGHT = (0.2, 0.4, 0.6, 0.8), 0.5, 2.0
# Of more guesses than this the older ones count less; so they do after this number of passes
# without any, and what had no chance is tried again.
MOST_WEIGHT, IDLE_PASSES = 32.0, 64


class TextIndex:
    """A text, and where in it each two tokens in succession occur; it grows."""

    def __init__(self, tokens: Sequence[int]) -> None:
        """Takes the text so far."""
        self.tokens: list[int] = []
        self._places: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
        for token in tokens:
            self.add(token)

    def add(self, token: int) -> None:
        """Takes the next token in."""
        # Nothing follows the end itself, so the pair before it joins only now.
        if len(self.tokens) >= LEAST_SAME:
            self._places[tuple(self.tokens[-LEAST_SAME:])].append(len(self.tokens))
        self.tokens.append(token)

    def followers(self, count: int) -> tuple[list[list[int]], int]:
        """Returns what follows the longest end that occurs before; see CorpusIndex.followers."""
        places = self._places.get(tuple(self.tokens[-LEAST_SAME:]), [])[-MOST_PLACES:]
        sames = [self._same(place) for place in places]
        longest = max(sames, default=0)
        best = [place for place, same in zip(places, sames, strict=True) if same == longest]
        return [self.tokens[place : place + count] for place in best], longest

    def _same(self, place: int) -> int:
        """Returns how many tokens before a place are as those at the end, at most DEPTH."""
        before = zip(reversed(self.tokens[:place]), reversed(self.tokens), strict=False)
        pairs = itertools.islice(before, DEPTH)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


@dataclasses.dataclass(kw_only=True)
class Rate:
    """How often guesses of one kind were right.

    Attributes:
        first: the chance before any guess.
        right: those that were right; older ones count less.
        all: those that were made.
    """

    first: float
    right: float = 0.0
    all: float = 0.0

    @property
    def chance(self) -> float:
        """How likely the next guess is right."""
        return (self.right + FIRST_WEIGHT * self.first) / (self.all + FIRST_WEIGHT)

    def learn(self, *, right: bool) -> None:
        """Takes in whether a guess was right."""
        self.right, self.all = self.right + right, self.all + 1
        if self.all > MOST_WEIGHT:
            self.forget()

    def forget(self) -> None:
        """Lets what was learned count half."""
        self.right, self.all = self.right / 2, self.all / 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guess:
    """A token that may come next.

    Attributes:
        token: the token.
        rate: of its kind.
        chance: that this and all guesses before it are right.
    """

    token: int
    rate: Rate
    chance: float


class Drafter:
    """Guesses how texts side by side go on, and learns from what came of it.

    Attributes:
        texts: the texts.
    """

    def __init__(self, corpus: CorpusIndex | None, vocab: int, costs: tuple[float, ...]) -> None:
        """Takes a corpus, if there is one, and what a pass costs.

        Args:
            corpus: what the model was trained on.
            vocab: the model's tokens; others are never guessed.
            costs: of one token, then of up to COSTED, of twice as many, and so on.
        """
        self.texts: list[TextIndex] = []
        self._corpus, self._vocab, self._costs = corpus, vocab, costs
        self._rates: dict[tuple[Origin, int, int], Rate] = {}
        self._idle = 0

    def _cost(self, tokens: int) -> float:
        """Returns the time of a pass over this number of tokens; beyond the known it grows on."""
        step = -(-tokens // COSTED) if tokens > 1 else 0
        beyond = max(step - len(self._costs) + 1, 0)
        return self._costs[step - beyond] + beyond * (self._costs[-1] - self._costs[-2])

    def begin(self, texts: Sequence[Sequence[int]]) -> None:
        """Takes texts in place of those before."""
        self.texts = [TextIndex(text) for text in texts]

    def draft(self, room: Sequence[int | None]) -> list[list[Guess]]:
        """Returns each text's next tokens, as many as are worth the rows of a pass.

        Args:
            room: how many tokens a text has room for; None: it has ended, and has no row.
        """
        drafts = [
            self._best(text, min(most or 0, MOST_DRAFTED))
            for text, most in zip(self.texts, room, strict=True)
        ]
        rows = sum(most is not None for most in room)
        # Chances fall along a draft, so that the best ones are the first of each.
        chances = sorted(
            ((guess.chance, text) for text, draft in enumerate(drafts) for guess in draft),
            key=lambda pair: -pair[0],
        )
        expected = itertools.accumulate((chance for chance, _ in chances), initial=float(rows))
        worth = [right / self._cost(count) for count, right in enumerate(expected, rows)]
        wanted = Counter(text for _, text in chances[: worth.index(max(worth))])
        self._idle = 0 if wanted else self._idle + 1
        if self._idle == IDLE_PASSES:
            self._forget()
        return [draft[: wanted[text]] for text, draft in enumerate(drafts)]

    def learn(self, passed: Sequence[tuple[Sequence[Guess], Sequence[int]]]) -> None:
        """Takes in each text's draft and the tokens that the pass has given it."""
        for text, (draft, tokens) in zip(self.texts, passed, strict=True):
            # Behind the first wrong guess none counts.
            for guess, token in zip(draft, tokens, strict=False):
                guess.rate.learn(right=guess.token == token)
            for token in tokens:
                text.add(token)

    def _forget(self) -> None:
        """Lets what was learned count half, so that what was not worth its rows is tried again."""
        self._idle = 0
        for rate in self._rates.values():
            rate.forget()

    def _best(self, text: TextIndex, most: int) -> list[Guess]:
        """Returns the draft from the text or from the corpus, by the chance of the first token."""
        if most < 1 or len(text.tokens) < LEAST_SAME:
            return []
        own = self._guesses("text", *text.followers(most))
        if self._corpus is None:
            return own
        other = self._guesses("corpus", *self._corpus.followers(text.tokens[-DEPTH:], most))
        return max((own, other), key=lambda draft: draft[0].chance if draft else 0.0)

    def _guesses(self, origin: Origin, rows: list[list[int]], same: int) -> list[Guess]:
        """Returns at each place the token on which most of the rows agree that agreed so far."""
        guesses: list[Guess] = []
        chance = 1.0
        while same >= LEAST_SAME and (rows := [row for row in rows if len(row) > len(guesses)]):
            at = len(guesses)
            token, votes = Counter(row[at] for row in rows).most_common(1)[0]
            rate = self._rate(origin, same + at, 100 * votes // len(rows) if len(rows) > 1 else -1)
            chance *= rate.chance
            if chance < LEAST_CHANCE or token >= self._vocab:
                break
            guesses.append(Guess(token=token, rate=rate, chance=chance))
            rows = [row for row in rows if row[at] == token]
        return guesses

    def _rate(self, origin: Origin, same: int, agreed: int) -> Rate:
        """Returns the rate of a kind of guess; of one place by itself `agreed` is -1."""
        kind = sum(same >= step for step in SAME_STEPS)
        class_of = -1 if agreed < 0 else sum(agreed >= step for step in AGREED_STEPS)
        first = FIRST_ALONE if agreed < 0 else FIRST_CHANCES[class_of]
        return self._rates.setdefault((origin, kind, class_of), Rate(first=first))
