"""Contrastive search: of the likeliest candidates the one least like the text before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from gpt2cli.hparams import HParams
from gpt2cli.inference.streams import Chosen, Row, newer_half
from gpt2cli.inference.tensorflow_cache import CachedModel
from gpt2cli.inference.tensorflow_engine import History
from gpt2cli.inference.tensorflow_sampling import Sampling

# Tokens, their probabilities after the filters, and their log-probabilities without them; all
# (batch, candidates).
Candidates = tuple[Any, Any, Any]


class ContrastiveDecoder:
    """Continues prompts by contrastive search (Su et al. 2022).

    Each candidate is shown to the model; its score is (1 - alpha) times its probability, less
    alpha times the highest cosine between its hidden state and one of the text before.

    Attributes:
        model: the model over its cache; each prompt has as many rows as it has candidates.
    """

    def __init__(
        self,
        weights: Mapping[str, Any],
        hparams: HParams,
        sampling: Sampling,
        alpha: float,
        *,
        xla: bool = True,
    ) -> None:
        """Takes the model, its top-k and what else filters, alpha, and whether XLA compiles it."""
        self.model = CachedModel(weights, hparams, self._finish, xla=xla)
        self._hparams, self._sampling, self._alpha = hparams, sampling, alpha
        self._count = min(sampling.top_k, hparams.n_vocab)
        # The directions of the hidden states so far, (batch, slots, embed).
        self._context: Any = None

    def tokens(
        self, prompts: Sequence[Row], draws: Sequence[Iterator[float]], length: int
    ) -> Iterator[Chosen]:
        """Yields each row's next token, `length` times.

        Args:
            prompts: a row's tokens each, from 1 to n_ctx of them.
            draws: each row's random numbers; none is needed.
            length: tokens to yield a row.
        """
        rows, n_ctx = [list(prompt) for prompt in prompts], self._hparams.n_ctx
        self._make_room(rows, length)
        looks_back = self._sampling.looks_back
        history = History(prompts, length, self.model.slots, wanted=looks_back)
        parents = None
        for number in range(length):
            # A candidate comes behind the row, and must have its place in the window.
            if number == 0 or max(map(len, rows)) >= n_ctx:
                rows = [newer_half(row, n_ctx, 1) for row in rows]
                candidates = self.model.prefill(rows, None, history.tensor(), self._context)
                parents = None
            newest = candidates[0].numpy()
            inputs = (candidates, history.tensor(), self._context)
            found = self.model.step(newest.ravel(), *inputs, parents=parents)
            winners, candidates = found[0].numpy(), found[2:]
            tokens = [int(newest[row, winner]) for row, winner in enumerate(winners)]
            parents = [
                n * self._count + w for n, w in enumerate(winners) for _ in range(self._count)
            ]
            for row, token in zip(rows, tokens, strict=True):
                row.append(token)
            history.add(tokens)
            yield Chosen(tokens, found[1].numpy().tolist())

    def pop_warnings(self) -> list[str]:
        """Returns a line for each thing that went otherwise than asked, once."""
        return self.model.compiler.pop_warnings()

    def _make_room(self, rows: Sequence[Row], length: int) -> None:
        self.model.make_room(len(rows) * self._count, max(map(len, rows)), length)
        shape = [len(rows), self.model.slots, self._hparams.n_embd]
        if self._context is None or self._context.shape != shape:
            self._context = tf.Variable(tf.zeros(shape))

    def _finish(
        self, hidden: Any, first: Any, place: Any, candidates: Any, history: Any, context: Any
    ) -> Any:
        """Returns the candidates for the next token; in a step first those that win now.

        Args:
            hidden: (batch, time, embed) of whole rows, or (batch * candidates, 1, embed).
            first: int32, each row's first slot that holds a token.
            place: the newest slot.
            candidates: those that the hidden states are of; None for whole rows.
            history: int32 (batch, slots), the tokens before the candidates.
            context: variable (batch, slots, embed), which this updates.

        Returns:
            The next candidates; before them in a step int32 (batch,), which of the candidates
            win, and float32 (batch,), their log-probabilities.
        """
        batch, _, embed = context.shape
        if candidates is None:
            free = context.shape[1] - hidden.shape[1]
            context.assign(tf.pad(direction(hidden), [[0, 0], [0, free], [0, 0]]))
            return self._candidates(hidden[:, -1], history)
        own = tf.reshape(hidden, [batch, -1, embed])  # (batch, candidates, embed)
        winners = self._winners(
            direction(own), first[:: self._count], place, candidates[1], context
        )
        hidden = tf.gather(own, winners, batch_dims=1)  # (batch, embed)
        context.assign(self.model.put(context, direction(hidden)[:, None], place, 1))
        tokens = tf.gather(candidates[0], winners, batch_dims=1)  # (batch,)
        if history.shape[1]:
            history = tf.concat([history[:, 1:], tokens[:, None]], axis=1)
        chosen = tf.gather(candidates[2], winners, batch_dims=1)  # (batch,)
        return winners, chosen, *self._candidates(hidden, history)

    def _winners(self, own: Any, first: Any, place: Any, shares: Any, context: Any) -> Any:
        """Returns which candidate of each row has the highest score, int32 (batch,)."""
        slots = tf.range(context.shape[1])
        seen = (slots[None, :] >= first[:, None]) & (slots[None, :] < place)  # (batch, slots)
        cosines = tf.matmul(own, context, transpose_b=True)  # (batch, candidates, slots)
        cosines = tf.where(seen[:, None, :], cosines, -1.0)
        likeness = tf.reduce_max(cosines, axis=-1)  # (batch, candidates)
        scores = (1 - self._alpha) * shares - self._alpha * likeness
        return tf.argmax(scores, axis=-1, output_type=tf.int32)

    def _candidates(self, hidden: Any, history: Any) -> Candidates:
        logits = self.model.logits(hidden)  # (batch, vocab)
        left = tf.nn.softmax(self._sampling.without_repeats(logits, history))
        shares, tokens = tf.math.top_k(left, self._count)
        own = tf.gather(tf.nn.log_softmax(logits), tokens, batch_dims=1)
        return tokens, shares, own


def direction(hidden: Any) -> Any:
    """(…, embed) → the same, each vector scaled to length 1."""
    return hidden / tf.norm(hidden, axis=-1, keepdims=True)
