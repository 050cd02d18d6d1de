"""Guesses at how texts go on, looked up in the texts themselves and in a corpus.

Each place that has the same tokens before it says what may follow; how much it counts is learned
from those before. A token is drawn from what they say by the very random number by which the model
draws: if both are nearly alike, so is the token, whatever the temperature.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal

from gpt2cli.inference.sampling import SamplingParams
from gpt2cli.text.corpus_index import DEPTH, MOST_PLACES, CorpusIndex

Origin = Literal["text", "corpus"]
# A draft has at most this number of tokens.
MOST_DRAFTED = 15
# The costs of passes are known in steps of this number of tokens.
COSTED = 2
# Before anything is known: how much of what places name is right, how often a guess is that hardly
# any of them names, and how much more often one that all name.
FIRST_SHARE, FIRST_CHANCE, FIRST_CHANCES = 0.25, 0.15, 0.7
# That weighs as much as this number of guesses; of more than the other, older ones fade.
FIRST_WEIGHT, MOST_WEIGHT = 4.0, 64.0
# Places that share this number of tokens or more are of one kind; so are guesses by their share.
SAME_KINDS, SHARE_KINDS = 4, 8
# After each time that this number of passes in a row had no guess that is worth its row, one more
# pass is made without looking for any, up to this number of them.
MISSES, MOST_PAUSED = 8, 8
# A model that knows its corpus is surer than the corpus: by this power.
SHARPNESS = 1.4


class TextIndex:
    """A text that grows, and where in it its last token occurs before.

    Attributes:
        tokens: the text.
    """

    def __init__(self, tokens: Sequence[int]) -> None:
        """Takes the text so far."""
        self.tokens: list[int] = []
        self._places: defaultdict[int, list[int]] = defaultdict(list)
        # Of each place after the last token, how many tokens before it are as those at the end.
        self._same: dict[int, int] = {}
        for token in tokens:
            self.add(token)

    def add(self, token: int) -> None:
        """Takes the next token in."""
        places = self._places[token]
        self._same = {place: self._same.get(place - 1, 0) + 1 for place in places[-MOST_PLACES:]}
        self.tokens.append(token)
        places.append(len(self.tokens))

    def followers(self, count: int) -> tuple[list[list[int]], int]:
        """Returns what follows the longest end that occurs before; see CorpusIndex.followers."""
        longest = max(self._same.values(), default=0)
        places = [place for place, same in self._same.items() if same == longest]
        return [self.tokens[place : place + count] for place in places], longest


@dataclasses.dataclass(kw_only=True)
class Average:
    """How right something was, from 0 to 1; older values fade.

    Attributes:
        first: what it is before anything is known.
        total: the sum of the values.
        count: how many they are.
    """

    first: float
    total: float = 0.0
    count: float = 0.0

    @property
    def value(self) -> float:
        """The average."""
        return (self.total + FIRST_WEIGHT * self.first) / (self.count + FIRST_WEIGHT)

    def learn(self, right: float) -> None:
        """Takes in how right it was."""
        self.total, self.count = self.total + right, self.count + 1
        if self.count > MOST_WEIGHT:
            self.total, self.count = self.total / 2, self.count / 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Places of one origin with the same tokens before them, and what follows there.

    Attributes:
        origin: where they are.
        same: how many tokens are the same.
        rows: the tokens that follow at each place.
    """

    origin: Origin
    same: int
    rows: list[list[int]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Votes:
    """How often sources of one kind name each token as the next.

    Attributes:
        counts: by token.
        places: the sum of the counts.
        weight: how much of what such sources said was right.
    """

    counts: Counter[int]
    places: int
    weight: Average


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guess:
    """A token that may come next.

    Attributes:
        token: the token.
        rate: how often such guesses are right.
        chance: that this and all guesses before it are right.
        votes: what it was drawn from.
    """

    token: int
    rate: Average
    chance: float
    votes: list[Votes]


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
        self._corpus, self._vocab = corpus, vocab
        self._costs, self._slopes = costs, least_slopes(costs)
        self._weights: dict[tuple[Origin, int, bool], Average] = {}
        self._rates: dict[int, Average] = {}

    def begin(self, texts: Sequence[Sequence[int]], params: SamplingParams) -> None:
        """Takes texts in place of those before, and how their tokens are chosen."""
        self.texts, self._temperature = [TextIndex(text) for text in texts], params.temperature
        self._guesses: list[list[Guess]] = [[] for _ in texts]
        # The passes since a guess was worth it, and how many are to come without any.
        self._misses = self._paused = 0

    def draft(self, uniforms: Sequence[Sequence[float] | None]) -> list[list[int]]:
        """Returns each text's next tokens, as many as are worth the rows of a pass.

        A text gets the random numbers of as many tokens as it has room for; None: it has ended.
        """
        if self._paused:
            self._paused -= 1
            return [[] for _ in uniforms]
        rows = sum(numbers is not None for numbers in uniforms)
        self._guesses = [
            self._drawn(self._sources(text), (numbers or [])[:MOST_DRAFTED], rows)
            for text, numbers in zip(self.texts, uniforms, strict=True)
        ]
        # Chances fall along a draft, so that the best ones are the first of each.
        chances = sorted(
            ((guess.chance, text) for text, draft in enumerate(self._guesses) for guess in draft),
            key=lambda pair: -pair[0],
        )
        expected = itertools.accumulate((chance for chance, _ in chances), initial=float(rows))
        worth = [right / cost_of(n, self._costs) for n, right in enumerate(expected, rows)]
        wanted = Counter(text for _, text in chances[: worth.index(max(worth))])
        self._misses = 0 if wanted else self._misses + 1
        self._paused = min(self._misses // MISSES, MOST_PAUSED)
        return [
            [guess.token for guess in draft[: wanted[text]]]
            for text, draft in enumerate(self._guesses)
        ]

    def learn(self, tokens: Sequence[Sequence[int]]) -> None:
        """Takes in the tokens that a pass has given each text."""
        for text, guesses, new in zip(self.texts, self._guesses, tokens, strict=True):
            # One beyond the draft, which was not worth its row, is as good to learn from.
            for guess, token in zip(guesses, new, strict=False):
                guess.rate.learn(guess.token == token)
                for votes in guess.votes:
                    votes.weight.learn(votes.counts[token] / votes.places)
                # What was guessed behind a wrong one says nothing.
                if guess.token != token:
                    break
            for token in new:
                text.add(token)
        self._guesses = [[] for _ in tokens]

    def _sources(self, text: TextIndex) -> list[Source]:
        """Returns the places from which the next tokens are guessed."""
        found: list[tuple[Origin, tuple[list[list[int]], int]]]
        found = [("text", text.followers(MOST_DRAFTED))]
        if self._corpus is not None and text.tokens:
            found.append(("corpus", self._corpus.followers(text.tokens[-DEPTH:], MOST_DRAFTED)))
            if found[-1][1][1] > 1:
                # Few places share many tokens; many share the last one.
                found.append(("corpus", self._corpus.followers(text.tokens[-1:], MOST_DRAFTED)))
        return [Source(origin=origin, same=same, rows=rows) for origin, (rows, same) in found]

    def _drawn(
        self, sources: Sequence[Source], uniforms: Sequence[float], rows: int
    ) -> list[Guess]:
        """Returns guesses, each from the places that have named all those before it.

        They end where no more of them are worth their rows in a pass, of which `rows` are taken.
        """
        guesses: list[Guess] = []
        chance, expected, best = 1.0, float(rows), rows / cost_of(rows, self._costs)
        for at, uniform in enumerate(uniforms):
            votes = [self._votes(source, at) for source in sources if source.rows]
            scores: defaultdict[int, float] = defaultdict(float)
            for each in votes:
                # Squared: several sources that are seldom right do not overrule a good one.
                for token, count in each.counts.items():
                    scores[token] += each.weight.value**2 * count / each.places
            if not scores:
                break
            token = drawn(scores, uniform, self._temperature)
            kind = int(SHARE_KINDS * scores[token] / sum(scores.values()))
            first = FIRST_CHANCE + FIRST_CHANCES * kind / SHARE_KINDS
            rate = self._rates.setdefault(kind, Average(first=first))
            chance *= rate.value
            if token >= self._vocab:
                break
            guesses.append(Guess(token=token, rate=rate, chance=chance, votes=votes))
            expected, size = expected + chance, rows + at + 1
            best = max(best, expected / cost_of(size, self._costs))
            # Those to come are not likelier than this one.
            if chance < best * self._slopes[min(size // COSTED, len(self._slopes) - 1)]:
                break
            sources = [following(source, at, token) for source in sources]
        return guesses

    def _votes(self, source: Source, at: int) -> Votes:
        """Returns what a source says of a token, by the number of those before it."""
        kind = source.origin, min(source.same + at, SAME_KINDS), len(source.rows) == 1
        weight = self._weights.setdefault(kind, Average(first=FIRST_SHARE))
        counts = Counter(row[at] for row in source.rows if len(row) > at)
        return Votes(counts=counts, places=counts.total() or 1, weight=weight)


def cost_of(tokens: int, costs: Sequence[float]) -> float:
    """Returns the time of a pass over some tokens, from `costs` as an engine has them.

    Beyond the known it grows on.
    """
    step = -(-tokens // COSTED) if tokens > 1 else 0
    beyond = max(step - len(costs) + 1, 0)
    return costs[step - beyond] + beyond * (costs[-1] - costs[-2])


def least_slopes(costs: Sequence[float]) -> list[float]:
    """Returns the least that one more token costs from each step of `costs` on."""
    slopes = [(after - before) / COSTED for before, after in itertools.pairwise(costs)]
    return list(itertools.accumulate(reversed(slopes), min))[::-1]


def following(source: Source, at: int, token: int) -> Source:
    """Returns of a source the places that have a token, by the number of those before it."""
    rows = [row for row in source.rows if len(row) > at and row[at] == token]
    return Source(origin=source.origin, same=source.same, rows=rows)


def drawn(scores: Mapping[int, float], uniform: float, temperature: float) -> int:
    """Returns the token in whose stretch of the sum of scores a number falls, as `choose` does.

    Args:
        scores: above 0, by token.
        uniform: from 0 up to 1.
        temperature: 0: the token of the highest score is taken.
    """
    if temperature == 0:
        return max(scores, key=scores.__getitem__)
    most, power = max(scores.values()), SHARPNESS / temperature
    tokens = sorted(scores)
    ends = list(itertools.accumulate((scores[token] / most) ** power for token in tokens))
    return next(token for token, end in zip(tokens, ends, strict=True) if end > uniform * ends[-1])
