"""Beam search: the likeliest texts, or drawn ones, found by following several at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from gpt2cli.hparams import HParams
from gpt2cli.inference.streams import Row, newer_half
from gpt2cli.inference.tensorflow_cache import CachedModel
from gpt2cli.inference.tensorflow_engine import History
from gpt2cli.inference.tensorflow_sampling import REMOVED, Sampling, draw

# Says whether a text that consists of these new tokens has come to its end.
Ended = Callable[[list[int]], bool]


@dataclasses.dataclass(frozen=True)
class Beams:
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


@dataclasses.dataclass(frozen=True)
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
        running: the beams that are followed.
        parents: which beam each of them continues.
        done: whether the search is at its end.
    """

    def __init__(self, beams: Beams, length: int, ended: Ended) -> None:
        """Takes how far it may go (tokens), and what ends a beam before."""
        self.running = [Beam([], [], 0.0 if n == 0 else REMOVED) for n in range(beams.count)]
        self.parents = list(range(beams.count))
        self.done = False
        self._beams, self._length, self._ended = beams, length, ended
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
        count = self._beams.count
        for rank, (parent, token, total, log_probability) in enumerate(candidates):
            if len(running) == count:
                break
            before = self.running[parent]
            beam = Beam(
                [*before.tokens, token], [*before.log_probabilities, log_probability], total
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
        if not self.done and (len(running[0].tokens) == self._length or not left):
            for beam in running:
                self._finish(beam)
            self.done = True

    def best(self, count: int) -> list[Beam]:
        """Returns the best beams that have ended, best first."""
        return sorted(self._finished, key=lambda beam: -beam.score)[:count]

    def _finish(self, beam: Beam) -> None:
        if beam.total == REMOVED:
            return
        score = self._score(beam.total, len(beam.tokens))
        self._finished.append(dataclasses.replace(beam, score=score))
        self._finished = self.best(self._beams.count)

    def _score(self, total: float, length: int) -> float:
        return float(total / length**self._beams.length_penalty)

    def _settled(self, highest: float) -> bool:
        """Returns whether no running beam can be better than those that have ended."""
        if len(self._finished) < self._beams.count:
            return False
        if self._beams.early_stopping:
            return True
        reach = self._score(highest, len(self.running[0].tokens))
        return self._finished[-1].score >= reach


class BeamDecoder:
    """Continues prompts by beam search.

    Attributes:
        model: the model over its cache.
        beams: how many beams there are, and how they are followed.
    """

    def __init__(
        self,
        weights: Mapping[str, Any],
        hparams: HParams,
        sampling: Sampling,
        beams: Beams,
        *,
        xla: bool = True,
    ) -> None:
        """Takes the model, what filters candidates, how many beams, and whether XLA compiles."""
        self.model = CachedModel(weights, hparams, self._finish, xla=xla)
        self._n_ctx, self._sampling, self.beams = hparams.n_ctx, sampling, beams

    def search(
        self,
        prompts: Sequence[Row],
        draws: Sequence[Iterator[float]],
        groups: Sequence[Group],
        length: int,
    ) -> Iterator[None]:
        """Lets each prompt's beams go on until they are all done; yields after each step.

        Args:
            prompts: a row's tokens each, from 1 to n_ctx of them.
            draws: each prompt's random numbers.
            groups: each prompt's beams, which this advances.
            length: the most tokens that any of the groups may have.
        """
        count = self.beams.count
        rows = [list(prompt) for prompt in prompts]
        copies = [row for row in rows for _ in range(count)]
        self.model.make_room(len(copies), max(map(len, rows)), length)
        looks_back = self._sampling.looks_back
        history = History(copies, length, self.model.slots, wanted=looks_back)
        newest: list[int] = []
        parents: list[int] = []
        for number in range(length):
            inputs = (self._totals(groups), self._uniforms(draws), history.tensor())
            if number == 0 or max(map(len, rows)) > self._n_ctx:
                rows = [newer_half(row, self._n_ctx) for row in rows]
                found = self.model.prefill(rows, *inputs)
                rows = copies if number == 0 else rows
            else:
                found = self.model.step(newest, *inputs, parents=parents)
            self._advance(groups, [each.numpy() for each in found])
            newest = [beam.tokens[-1] for group in groups for beam in group.running]
            parents = [n * count + p for n, group in enumerate(groups) for p in group.parents]
            rows = [[*rows[p], token] for p, token in zip(parents, newest, strict=True)]
            history.add(newest, parents)
            yield
            if all(group.done for group in groups):
                return

    def pop_warnings(self) -> list[str]:
        """Returns a line for each thing that went otherwise than asked, once."""
        return self.model.compiler.pop_warnings()

    def _totals(self, groups: Sequence[Group]) -> Any:
        totals = [[beam.total for beam in group.running] for group in groups]
        return tf.constant(totals, tf.float32)

    def _uniforms(self, draws: Sequence[Iterator[float]]) -> Any:
        """Returns as many random numbers as there are candidates, float32 (prompts, candidates)."""
        count = self.beams.candidates if self.beams.sample else 0
        return tf.constant([[next(row) for _ in range(count)] for row in draws], tf.float32)

    def _advance(self, groups: Sequence[Group], found: Sequence[Any]) -> None:
        vocab = self.model.vocab
        for group, places, totals, own in zip(groups, *(f.tolist() for f in found), strict=True):
            if not group.done:
                pairs = (divmod(place, vocab) for place in places)
                zipped = zip(pairs, totals, own, strict=True)
                group.advance([(parent, token, t, o) for (parent, token), t, o in zipped])

    def _finish(
        self, hidden: Any, _first: Any, _place: Any, totals: Any, uniform: Any, history: Any
    ) -> tuple[Any, Any, Any]:
        """Returns each prompt's candidates, best first.

        Args:
            hidden: (rows, time, embed); of a prompt one row, or as many as it has beams.
            totals: float32 (prompts, beams), the log-probability of each beam so far.
            uniform: float32 (prompts, candidates), random numbers; (prompts, 0) for the likeliest.
            history: int32 (prompts * beams, slots), the tokens before.

        Returns:
            int32 (prompts, candidates): beam * vocab + token; float32 of that shape: the sum of
            log-probabilities; float32 of that shape: the token's own log-probability.
        """
        prompts, beams = totals.shape
        own = tf.nn.log_softmax(self.model.logits(hidden[:, -1]))  # (rows, vocab)
        own = tf.repeat(own, prompts * beams // own.shape[0], axis=0)  # (prompts * beams, vocab)
        look = self._sampling.filtered if self.beams.sample else self._sampling.without_repeats
        sums = look(own, history) + tf.reshape(totals, [-1, 1])
        sums = tf.reshape(sums, [prompts, -1])  # (prompts, beams * vocab)
        count = min(self.beams.candidates, sums.shape[1])
        if uniform.shape[1]:
            drawn, there = draw_several(tf.nn.softmax(sums), uniform)  # (prompts, candidates)
            totals = tf.where(there, tf.gather(sums, drawn, batch_dims=1), REMOVED)
            best, order = tf.math.top_k(totals, self.beams.candidates)
            places = tf.gather(drawn, order, batch_dims=1)
        else:
            best, places = tf.math.top_k(sums, count)
        return places, best, tf.gather(tf.reshape(own, [prompts, -1]), places, batch_dims=1)


def draw_several(shares: Any, uniform: Any) -> tuple[Any, Any]:
    """Returns columns that are drawn one after the other, none of them twice.

    Args:
        shares: float32 (batch, columns).
        uniform: float32 (batch, count), from 0 up to 1.

    Returns:
        int32 (batch, count), and bool (batch, count): whether there was anything left to draw.
    """
    columns = tf.range(shares.shape[1])[None, :]
    drawn, there = [], []
    for number in range(uniform.shape[1]):
        drawn.append(draw(shares, uniform[:, number]))
        there.append(tf.gather(shares, drawn[-1], batch_dims=1) > 0)
        shares = tf.where(columns == drawn[-1][:, None], 0.0, shares)
    return tf.stack(drawn, axis=1), tf.stack(there, axis=1)
