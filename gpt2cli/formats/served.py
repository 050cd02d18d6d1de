"""What a SavedModel can be asked for: the logits of the next token, and tokens that follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import tensorflow as tf

from gpt2cli.hparams import HParams
from gpt2cli.network import gpt2
from gpt2cli.network.attention import Attend, attend, over_heads, shape_of

ROWS = tf.TensorSpec([None, None], tf.int32)
EACH = tf.TensorSpec([None], tf.int32)
WHOLE = tf.TensorSpec([], tf.int32)
REAL = tf.TensorSpec([], tf.float32)
REMOVED = float("-inf")
# Keys and values of each layer, (batch, heads, slots, head).
Cache = list[tuple[Any, Any]]


class Served(tf.Module):  # type: ignore[misc]
    """A GPT-2 whose graphs take batches of any size and length.

    Attributes:
        weights: its variables by OpenAI's names. Their shapes are open and they hold next to
            nothing: what they are to hold is written to the files that they are restored from.
        logits: the graph of `_logits_graph`.
        generate: the graph of `_generate_graph`.
    """

    def __init__(self, hparams: HParams, ends: Sequence[int]) -> None:
        super().__init__(name="gpt2")
        self._shapes = hparams.shapes()
        self._hparams = hparams
        self._ends = list(ends)
        self.weights = {
            name: tf.Variable(tf.zeros([1] * len(shape)), shape=[None] * len(shape))
            for name, shape in self._shapes.items()
        }
        self.logits = tf.function(self._logits_graph, input_signature=[ROWS, EACH])
        self.generate = tf.function(
            self._generate_graph, input_signature=[ROWS, EACH, WHOLE, REAL, WHOLE, REAL, WHOLE]
        )

    def _logits_graph(self, tokens: Any, lengths: Any) -> dict[str, Any]:
        """Returns the scores of the token that follows each row.

        Args:
            tokens: int32 (batch, time), up to n_ctx; what follows a row's length is padding.
            lengths: int32 (batch,), from 1 to time.

        Returns:
            logits: float32 (batch, vocab).
        """
        time = tf.shape(tokens)[1]
        self._check(lengths, time, time)
        seen = tf.range(time)[None, :] <= tf.range(time)[:, None]  # (time, time)
        attends = [over_heads(partial(attend, seen=seen))] * self._hparams.n_layer
        hidden = self._hidden(tokens, tf.range(time)[None, :], attends)
        last = tf.gather(hidden, lengths - 1, batch_dims=1)  # (batch, embed)
        return {"logits": gpt2.logits(self._known(), last)}

    def _generate_graph(  # noqa: PLR0913
        self,
        tokens: Any,
        lengths: Any,
        length: Any,
        temperature: Any,
        top_k: Any,
        top_p: Any,
        seed: Any,
    ) -> dict[str, Any]:
        """Returns what follows each row.

        Args:
            tokens: int32 (batch, time); what follows a row's length is padding.
            lengths: int32 (batch,), from 1 to time.
            length: int32, new tokens; with a row's own at most n_ctx.
            temperature: float32; 0 takes the likeliest token.
            top_k: int32; 0: all.
            top_p: float32; 0: all.
            seed: int32; the same seed gives the same tokens.

        Returns:
            tokens: int32 (batch, length); after the end of a text comes nothing but its token.
        """
        choose = partial(self._choose, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
        time = tf.shape(tokens)[1]
        self._check(lengths, time, self._hparams.n_ctx - length)
        first = time - lengths
        logits, cache = self._prefill(tokens, first, length)
        chosen = choose(logits, 0)
        everything = tf.fill([tf.shape(tokens)[0], length], self._ends[0])

        def unfinished(number: Any, chosen: Any, *_: Any) -> Any:
            return (number < length) & tf.reduce_any(~self._ended(chosen))

        def advance(number: Any, chosen: Any, written: Any, cache: Cache) -> Any:
            written = tf.where(tf.range(length)[None, :] == number, chosen[:, None], written)
            logits, cache = self._step(chosen, first, time + number, cache)
            chosen = tf.where(self._ended(chosen), chosen, choose(logits, number + 1))
            return number + 1, chosen, written, cache

        loop = (tf.constant(0), chosen, everything, cache)
        return {"tokens": tf.while_loop(unfinished, advance, loop)[2]}

    def _check(self, lengths: Any, time: Any, most: Any) -> None:
        tf.debugging.assert_greater(lengths, 0, "lengths must be at least 1")
        tf.debugging.assert_less_equal(lengths, time, "lengths must not exceed the tokens given")
        window = f"a row and what follows it must fit {self._hparams.n_ctx} tokens"
        tf.debugging.assert_less_equal(lengths, most, window)
        tf.debugging.assert_less_equal(most, self._hparams.n_ctx, window)

    def _known(self) -> dict[str, Any]:
        return {name: tf.ensure_shape(self.weights[name], s) for name, s in self._shapes.items()}

    def _hidden(self, tokens: Any, positions: Any, attends: Sequence[Attend]) -> Any:
        weights = self._known()
        x = gpt2.embed(weights, tokens, positions)  # (batch, time, embed)
        return gpt2.hidden_states(weights, self._hparams, x, attends=attends)

    def _prefill(self, tokens: Any, first: Any, length: Any) -> tuple[Any, Cache]:
        """Returns the logits of the first new token, and the cache with room for all of them.

        The rows are moved to the right, so that all of them end at the same slot.
        """
        time = tf.shape(tokens)[1]
        slots = tf.range(time)
        positions = tf.maximum(slots[None, :] - first[:, None], 0)  # (batch, time)
        moved = tf.gather(tokens, positions, batch_dims=1)  # (batch, time)
        causal = slots[None, :] <= slots[:, None]  # (time, time)
        begun = slots[None, :] >= first[:, None]  # (batch, time)
        cache: Cache = []
        keep = partial(self._keep, seen=causal[None, None] & begun[:, None, None], cache=cache)
        hidden = self._hidden(moved, positions, [over_heads(keep)] * self._hparams.n_layer)
        room = [[0, 0], [0, 0], [0, length], [0, 0]]
        padded = [(tf.pad(key, room), tf.pad(value, room)) for key, value in cache]
        return gpt2.logits(self._known(), hidden[:, -1]), padded

    def _step(self, chosen: Any, first: Any, place: Any, cache: Cache) -> tuple[Any, Cache]:
        """Returns the logits of the next token, and the cache with one more slot filled."""
        slots = tf.range(tf.shape(cache[0][0])[2])
        seen = (slots[None, :] >= first[:, None]) & (slots[None, :] <= place)  # (batch, slots)
        here = (slots == place)[:, None]  # (slots, 1)
        new: Cache = []

        def recall(pair: tuple[Any, Any], query: Any, key: Any, value: Any) -> Any:
            key, value = tf.where(here, key, pair[0]), tf.where(here, value, pair[1])
            return self._keep(query, key, value, seen=seen[:, None, None], cache=new)

        attends = [over_heads(partial(recall, pair)) for pair in cache]
        hidden = self._hidden(chosen[:, None], (place - first)[:, None], attends)
        return gpt2.logits(self._known(), hidden[:, -1]), new

    def _ended(self, chosen: Any) -> Any:
        return tf.reduce_any(chosen[:, None] == self._ends, axis=-1)  # (batch,)

    @staticmethod
    def _keep(query: Any, key: Any, value: Any, *, seen: Any, cache: Cache) -> Any:
        cache.append((key, value))
        return attend(query, key, value, seen)

    def _choose(self, logits: Any, number: Any, **options: Any) -> Any:
        likeliest = tf.argmax(logits, axis=-1, output_type=tf.int32)
        drawn: Callable[[], Any] = partial(draw, logits, number, **options)
        return tf.cond(options["temperature"] > 0, drawn, lambda: likeliest)


def draw(logits: Any, number: Any, *, temperature: Any, top_k: Any, top_p: Any, seed: Any) -> Any:
    """Returns a random next token for each row: temperature, then top-k, then top-p.

    Args:
        logits: float32 (batch, vocab).
        number: int32, how many tokens were drawn before.
        temperature: float32, above 0.
        top_k: int32; 0: all.
        top_p: float32; 0: all.
        seed: int32.

    Returns:
        int32 (batch,).
    """
    logits = logits / temperature
    vocab = shape_of(logits)[-1]
    best = tf.range(vocab) < tf.where(top_k > 0, top_k, vocab)  # (vocab,)
    ordered = tf.where(best, tf.sort(logits, axis=-1, direction="DESCENDING"), REMOVED)
    before = tf.cumsum(tf.nn.softmax(ordered), axis=-1, exclusive=True)  # (batch, vocab)
    # Rounding may bring the sum beyond 1, even if nothing is to be removed.
    share = tf.where((top_p > 0) & (top_p < 1), top_p, 2.0)
    kept = tf.where((before < share) & best, ordered, float("inf"))
    lowest = tf.reduce_min(kept, axis=-1, keepdims=True)  # (batch, 1)
    left = tf.where(logits >= lowest, logits, REMOVED)
    return tf.random.stateless_categorical(left, 1, [seed, number], tf.int32)[:, 0]
