"""A SavedModel in TensorFlow Serving's layout, which needs nothing of gpt2cli to run.

It can be asked for the logits of the next token, and for tokens that follow.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from gpt2cli.arrays import Tensor
from gpt2cli.files import atomic, paths
from gpt2cli.formats.model import Model, write_files
from gpt2cli.hparams import HParams
from gpt2cli.network import gpt2, logit_filters
from gpt2cli.network.attention import Attend, attend, over_heads, shape_of
from gpt2cli.network.logit_filters import keep_top_k, keep_top_p
from gpt2cli.storage import bundle, bundle_writer, checkpoint

VERSION = "1"
# Where TensorFlow Serving leaves files alone.
EXTRA = "assets.extra"
ATTRIBUTE = "/.ATTRIBUTES/VARIABLE_VALUE"
# Keys and values of each layer, (batch, heads, slots, head).
Pair = tuple[Tensor, Tensor]
Cache = list[Pair]


class Settings(NamedTuple):
    """How what follows is chosen; a signature's inputs have the names of the fields.

    Attributes:
        length: int32, new tokens; with a row's own at most n_ctx.
        temperature: float32; 0 takes the likeliest token.
        top_k: int32; 0: all.
        top_p: float32; 0: all.
        seed: int32; the same seed gives the same tokens.
    """

    length: Tensor = tf.TensorSpec([], tf.int32, "length")
    temperature: Tensor = tf.TensorSpec([], tf.float32, "temperature")
    top_k: Tensor = tf.TensorSpec([], tf.int32, "top_k")
    top_p: Tensor = tf.TensorSpec([], tf.float32, "top_p")
    seed: Tensor = tf.TensorSpec([], tf.int32, "seed")


class Served(tf.Module):  # type: ignore[misc]
    """A GPT-2 whose graphs, `logits` and `generate`, take batches of any size and length.

    Its `weights`, by OpenAI's names, have open shapes and hold next to nothing: what they are to
    hold is written to the files that they are restored from.
    """

    def __init__(self, hparams: HParams, ends: Sequence[int]) -> None:
        super().__init__(name="gpt2")
        self._hparams = hparams
        self._ends = list(ends)
        self.weights = {
            name: tf.Variable(tf.zeros([1] * len(shape)), shape=[None] * len(shape))
            for name, shape in hparams.shapes().items()
        }
        rows = [tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None], tf.int32)]
        asked = [*rows, Settings()]
        self.logits = tf.function(self._logits_graph, input_signature=rows, autograph=False)
        self.generate = tf.function(self._generate_graph, input_signature=asked, autograph=False)

    def _logits_graph(self, tokens: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Returns the scores of the token that follows each row.

        Args:
            tokens: int32 (batch, time), up to n_ctx; what follows a row's length is padding.
            lengths: int32 (batch,), from 1 to time.

        Returns:
            logits: float32 (batch, vocab).
        """
        time = tf.shape(tokens)[1]
        check_lengths(lengths, time, time, self._hparams.n_ctx)
        return {"logits": self._prefill(tokens, time - lengths, 0)[0]}

    def _generate_graph(
        self, tokens: Tensor, lengths: Tensor, settings: Settings
    ) -> dict[str, Tensor]:
        """Returns what follows each row.

        Args:
            tokens: int32 (batch, time); what follows a row's length is padding.
            lengths: int32 (batch,), from 1 to time.
            settings: how it is chosen.

        Returns:
            tokens: int32 (batch, length); after the end of a text comes nothing but its token.
        """
        choose, length = partial(self._choose, settings=settings), settings.length
        time = tf.shape(tokens)[1]
        check_lengths(lengths, time, self._hparams.n_ctx - length, self._hparams.n_ctx)
        first = time - lengths
        logits, cache = self._prefill(tokens, first, length)
        chosen = choose(logits, 0)
        everything = tf.fill([tf.shape(tokens)[0], length], self._ends[0])

        def unfinished(number: Tensor, chosen: Tensor, *_: Tensor) -> Tensor:
            """Returns whether another token is to follow a row."""
            return (number < length) & tf.reduce_any(~self._ended(chosen))

        def advance(number: Tensor, chosen: Tensor, written: Tensor, cache: Cache) -> Tensor:
            """Returns the loop's variables after one more token of each row."""
            written = tf.where(tf.range(length)[None, :] == number, chosen[:, None], written)
            logits, cache = self._step(chosen, first, time + number, cache)
            chosen = tf.where(self._ended(chosen), chosen, choose(logits, number + 1))
            return number + 1, chosen, written, cache

        loop = (tf.constant(0), chosen, everything, cache)
        return {"tokens": tf.while_loop(unfinished, advance, loop)[2]}

    def _last_logits(self, tokens: Tensor, positions: Tensor, attends: Sequence[Attend]) -> Tensor:
        shapes = self._hparams.shapes()
        weights = {name: tf.ensure_shape(self.weights[name], shapes[name]) for name in shapes}
        x = gpt2.embed(weights, tokens, positions)  # (batch, time, embed)
        hidden = gpt2.hidden_states(weights, self._hparams, x, attends=attends)
        return gpt2.logits(weights, hidden[:, -1])  # (batch, vocab)

    def _prefill(self, tokens: Tensor, first: Tensor, length: Tensor) -> tuple[Tensor, Cache]:
        """Returns the logits of the first new token, and the cache with room for all of them.

        The rows are moved to the right, so that all of them end at the same slot.
        """
        time = tf.shape(tokens)[1]
        slots = tf.range(time)
        positions = tf.clip_by_value(slots[None, :] - first[:, None], 0, time - 1)  # (batch, time)
        moved = tf.gather(tokens, positions, batch_dims=1)  # (batch, time)
        causal = slots[None, :] <= slots[:, None]  # (time, time)
        begun = slots[None, :] >= first[:, None]  # (batch, time)
        cache: Cache = []
        keep = partial(attend_and_keep, seen=causal[None, None] & begun[:, None, None], cache=cache)
        logits = self._last_logits(moved, positions, [over_heads(keep)] * self._hparams.n_layer)
        room = [[0, 0], [0, 0], [0, length], [0, 0]]
        padded = [(tf.pad(key, room), tf.pad(value, room)) for key, value in cache]
        return logits, padded

    def _step(
        self, chosen: Tensor, first: Tensor, place: Tensor, cache: Cache
    ) -> tuple[Tensor, Cache]:
        """Returns the logits of the next token, and the cache with one more slot filled."""
        slots = tf.range(tf.shape(cache[0][0])[2])
        seen = (slots[None, :] >= first[:, None]) & (slots[None, :] <= place)  # (batch, slots)
        here = (slots == place)[:, None]  # (slots, 1)
        new: Cache = []

        def recall(pair: Pair, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            """Returns what is attended to in a layer's cache, its new slot filled."""
            key, value = tf.where(here, key, pair[0]), tf.where(here, value, pair[1])
            return attend_and_keep(query, key, value, seen=seen[:, None, None], cache=new)

        attends = [over_heads(partial(recall, pair)) for pair in cache]
        return self._last_logits(chosen[:, None], (place - first)[:, None], attends), new

    def _ended(self, chosen: Tensor) -> Tensor:
        return tf.reduce_any(chosen[:, None] == self._ends, axis=-1)  # (batch,)

    def _choose(self, logits: Tensor, number: Tensor, *, settings: Settings) -> Tensor:
        """Returns each row's next token, int32 (batch,); the number is of tokens before."""
        _, temperature, top_k, top_p, seed = settings

        def draw() -> Tensor:
            """Returns tokens drawn from what top-k and top-p leave."""
            batch, vocab = shape_of(logits)
            left = keep_top_k(logits / temperature, tf.where(top_k > 0, top_k, vocab))
            # No sum of probabilities reaches 2, so that all are left.
            left = keep_top_p(left, tf.where((top_p > 0) & (top_p < 1), top_p, 2.0))
            uniforms = tf.random.stateless_uniform([batch], [seed, number])
            return logit_filters.draw(tf.nn.softmax(left), uniforms)

        likeliest = tf.argmax(logits, axis=-1, output_type=tf.int32)
        return tf.cond(temperature > 0, draw, lambda: likeliest)


def check_lengths(lengths: Tensor, time: Tensor, most: Tensor, n_ctx: int) -> None:
    """Lets a graph refuse lengths that are not those of rows, or leave no room for what follows."""
    tf.debugging.assert_greater(lengths, 0, "lengths must be at least 1")
    tf.debugging.assert_less_equal(lengths, time, "lengths must not exceed the tokens given")
    window = f"a row and what follows it must fit {n_ctx} tokens"
    tf.debugging.assert_less_equal(lengths, most, window)
    tf.debugging.assert_less_equal(most, n_ctx, window)


def attend_and_keep(
    query: Tensor, key: Tensor, value: Tensor, *, seen: Tensor, cache: Cache
) -> Tensor:
    """Returns what is attended to; adds the layer's keys and values to the cache."""
    cache.append((key, value))
    return attend(query, key, value, seen)


def write_savedmodel(model: Model, path: Path) -> None:
    """Writes the folder.

    TensorFlow would hold the whole model and write it: it is given variables of one element, and
    their files are written anew with the weights, one at a time.
    """
    place = path / VERSION
    served = Served(model.hparams, model.specials.ends)
    atomic.before("write", place)
    with checkpoint.system_errors(place):
        tf.saved_model.save(
            served,
            str(place),
            signatures={"serving_default": served.logits, "generate": served.generate},
        )
    write_weights(model, place / "variables" / "variables")
    # It is a hash of the variables that were there before.
    atomic.remove(place / "fingerprint.pb")
    shape = json.dumps(dataclasses.asdict(model.hparams)) + "\n"
    write_files(place / EXTRA, {paths.HPARAMS: shape, **model.vocabulary.files()})


def write_weights(model: Model, prefix: Path) -> None:
    """Writes a checkpoint with the weights in the place of one that holds their stand-ins."""
    entries, _ = bundle.read_index(prefix)
    old = paths.data_file(prefix).read_bytes()
    raw = {
        name: (found, old[found.offset : found.offset + found.size])
        for name, found in entries.items()
        if not name.endswith(ATTRIBUTE)
    }
    named = ((variable_name(name), array) for name, array in model.weights())
    bundle_writer.write(prefix, named, raw)


def variable_name(name: str) -> str:
    """Returns what a weight is called in TensorFlow's object graph."""
    return f"weights/{name.replace('.', '..').replace('/', '.S')}{ATTRIBUTE}"
