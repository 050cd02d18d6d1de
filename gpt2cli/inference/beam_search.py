"""Beam search: the likeliest texts, or drawn ones, found by following several at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from gpt2cli.arrays import Array
from gpt2cli.inference.decode import newer_half
from gpt2cli.inference.engine import BeamStep, Candidates, Engine, History, Row
from gpt2cli.inference.sampling import SamplingParams

REMOVED = float("-inf")
# Says whether a text that consists of these new tokens has come to its end.
Ended = Callable[[list[int]], bool]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BeamParams:
    """How beams are followed.

    Attributes:
        count: how many at once.
        sample: whether candidates are drawn, and not the likeliest.
        length_penalty: a beam's score is its log-probability over its length to this power.
        early_stopping: whether the search ends once `count` beams have ended.
    """

    count: int
    sample: bool = False
    length_penalty: float = 1.0
    early_stopping: bool = False

    @property
    def candidates(self) -> int:
        """How many are looked at in each step: enough if only one token ends each beam."""
        return 2 * self.count


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beam:
    """A text that is followed, or has ended.

    Attributes:
        tokens: the new ones.
        log_probabilities: of each token, as the model sees it without filters (nats).
        total: the sum of the log-probabilities that the search goes by.
        score: what it is judged by against others, once it has ended.
    """

    tokens: list[int]
    log_probabilities: list[float]
    total: float
    score: float = REMOVED


class Group:
    """The beams of one prompt.

    Attributes:
        beams: how they are followed.
        length: how many tokens they may have.
        running: the beams that are followed.
        parents: which beam each of them continues.
        done: whether the search is at its end.
    """

    def __init__(self, beams: BeamParams, length: int, ended: Ended) -> None:
        """Takes how far it may go (tokens), and what ends a beam before."""
        self.running = [
            Beam(tokens=[], log_probabilities=[], total=0.0 if n == 0 else REMOVED)
            for n in range(beams.count)
        ]
        self.parents = list(range(beams.count))
        self.done = False
        self.beams, self.length, self._ended = beams, length, ended
        self._finished: list[Beam] = []

    def advance(self, candidates: Sequence[tuple[int, int, float, float]]) -> None:
        """Goes on with the best candidates.

        Args:
            candidates: best first, each with its parent, its token, the sum of log-probabilities
                and the token's own log-probability.
        """
        running: list[Beam] = []
        parents: list[int] = []
        lost: list[tuple[Beam, int]] = []
        count = self.beams.count
        for rank, (parent, token, total, log_probability) in enumerate(candidates):
            if len(running) == count:
                break
            before = self.running[parent]
            beam = Beam(
                tokens=[*before.tokens, token],
                log_probabilities=[*before.log_probabilities, log_probability],
                total=total,
            )
            if self._ended(beam.tokens):
                # One that is not among the best is not worth to be kept.
                if rank < count:
                    self._finish(beam)
                lost.append((dataclasses.replace(beam, total=REMOVED), parent))
                continue
            running.append(beam)
            parents.append(parent)
        # Stop texts can end nearly all candidates; the places of the others go to no text.
        for beam, parent in lost[: count - len(running)]:
            running.append(beam)
            parents.append(parent)
        self.running, self.parents = running, parents
        self.done = self._settled(max(candidate[2] for candidate in candidates))
        left = any(beam.total > REMOVED for beam in running)
        if not self.done and (len(running[0].tokens) == self.length or not left):
            for beam in running:
                self._finish(beam)
            # A model that has diverged leaves no text a chance; it gets one all the same.
            self._finished = self._finished or running[:1]
            self.done = True

    def best(self, count: int) -> list[Beam]:
        """Returns the best beams that have ended, best first."""
        return sorted(self._finished, key=lambda beam: -beam.score)[:count]

    def _finish(self, beam: Beam) -> None:
        if beam.total == REMOVED:
            return
        score = self._score(beam.total, len(beam.tokens))
        self._finished.append(dataclasses.replace(beam, score=score))
        self._finished = self.best(self.beams.count)

    def _score(self, total: float, length: int) -> float:
        return float(total / length**self.beams.length_penalty)

    def _settled(self, highest: float) -> bool:
        """Returns whether no running beam can be better than those that have ended."""
        if len(self._finished) < self.beams.count:
            return False
        if self.beams.early_stopping:
            return True
        reach = self._score(highest, len(self.running[0].tokens))
        return self._finished[-1].score >= reach


def search(
    engine: Engine,
    params: SamplingParams,
    *,
    prompts: Sequence[Row],
    streams: Sequence[Iterator[float]],
    groups: Sequence[Group],
) -> Iterator[None]:
    """Lets each prompt's beams go on until they are all done; yields after each step.

    Prompts have from 1 to n_ctx tokens; their groups of beams are all of the same kind. Unless
    candidates are drawn, only early ends and repeats are filtered.
    """
    beams, sizes = groups[0].beams, engine.hparams
    length = max(group.length for group in groups)
    rows = [list(prompt) for prompt in prompts for _ in range(beams.count)]
    engine.make_room(len(rows), max(map(len, rows)), length)
    history = History(rows, length, wanted=params.looks_back)
    parents: list[int] = []
    for number in range(length):
        if number == 0:
            hidden = engine.prefill(prompts)
        elif max(map(len, rows)) > sizes.n_ctx:
            rows = [newer_half(row, sizes.n_ctx) for row in rows]
            hidden = engine.prefill(rows)
        else:
            hidden = engine.step([row[-1] for row in rows], parents)
        step = BeamStep(
            count=beams.candidates,
            totals=totals_of(groups),
            uniforms=uniforms_of(streams, beams),
            history=history,
        )
        found = engine.beam_candidates(hidden, params.after(number), step)
        advance(groups, found, sizes.n_vocab)
        newest, parents = followed(groups)
        rows = [[*rows[p], token] for p, token in zip(parents, newest, strict=True)]
        history.add(newest, parents)
        yield
        if all(group.done for group in groups):
            return


def followed(groups: Sequence[Group]) -> tuple[list[int], list[int]]:
    """Returns each running beam's newest token, and which row of the batch it continues."""
    newest = [beam.tokens[-1] for group in groups for beam in group.running]
    parents = [n * len(group.parents) + p for n, group in enumerate(groups) for p in group.parents]
    return newest, parents


def totals_of(groups: Sequence[Group]) -> Array:
    """Returns the log-probability of each beam so far, float32 (prompts, beams)."""
    return np.array([[beam.total for beam in group.running] for group in groups], np.float32)


def uniforms_of(streams: Sequence[Iterator[float]], beams: BeamParams) -> Array:
    """Returns as many random numbers as candidates are drawn, float32 (prompts, candidates)."""
    count = beams.candidates if beams.sample else 0
    return np.array([[next(stream) for _ in range(count)] for stream in streams], np.float32)


def advance(groups: Sequence[Group], found: Candidates, vocab: int) -> None:
    """Lets each group that is not done go on with its candidates."""
    columns = found.tokens, found.scores, found.log_probabilities
    for group, places, totals, own in zip(groups, *(c.tolist() for c in columns), strict=True):
        if not group.done:
            zipped = zip((divmod(place, vocab) for place in places), totals, own, strict=True)
            group.advance([(parent, token, total, o) for (parent, token), total, o in zipped])
