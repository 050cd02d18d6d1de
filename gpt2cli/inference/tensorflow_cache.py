"""The model over a cache: whole prompts are taken in, then a token a row at each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import tensorflow as tf
from tensorflow.compiler.tf2xla.python.xla import dynamic_update_slice

from gpt2cli.arrays import Weights
from gpt2cli.hparams import HParams
from gpt2cli.network import gpt2, low_precision, xla_clusters
from gpt2cli.network.attention import cached_attention, over_heads, padded_attention
from gpt2cli.network.compiling import CompileMode, Compiler, best_compile_mode
from gpt2cli.runtime import devices

# Prompts are padded to one of these lengths, so that few programs are compiled.
PROMPT_SIZES = (16, 64, 256, 512, 768, 1024)
SLOT_STEP = 64

# Keys and values of each layer, (rows, heads, slots, head).
Cache = list[tuple[Any, Any]]
# Hidden states, first slots, newest slot, and what else is given → what the caller wants of them.
Finish = Callable[..., Any]
# A layer's keys and values; query, key and value → what each position attends to.
Attend = Callable[..., Any]


class CachedModel:
    """The compiled prefill and step over one model's weights, and their cache.

    The rows of a batch are aligned at their ends: shorter ones are padded on the left. A slot is
    a place in the padded window; `first` is each row's first slot that holds a token.

    Attributes:
        compiler: what compiles it; it tells where XLA failed.
        slots: how many places the cache has.
        vocab: how many tokens there are to choose from.
    """

    def __init__(
        self,
        weights: Mapping[str, Any],
        hparams: HParams,
        finish: Finish,
        *,
        xla: bool = True,
        apart: bool = False,
    ) -> None:
        """Takes the model, and what is computed in the same program from its hidden states.

        Args:
            weights: by OpenAI's names.
            hparams: the model's shape.
            finish: called with hidden (batch, time, embed), first (batch,), the newest slot and
                the inputs that `prefill` and `step` are given.
            xla: whether XLA compiles it.
            apart: whether products in half precision are TensorFlow's if it has the faster
                ones; those of few rows in float32 and int8 are faster within one program.
        """
        # A GPU is given a token's step as one launch.
        split = apart and low_precision.is_half(weights) and not devices.has_gpu()
        self.compiler = Compiler(
            xla=xla,
            mode=best_compile_mode(xla=xla, width=hparams.n_embd) if split else CompileMode.FULL,
        )
        self.slots, self.vocab = 0, hparams.n_vocab
        self._weights, self._hparams, self._finish = weights, hparams, finish
        self._cache: Cache = []
        self._prefill = self.compiler(self._prefill_graph)
        self._step = self.compiler(self._step_graph)

    def make_room(self, rows: int, longest: int, length: int) -> None:
        """Makes a cache for rows of up to `longest` tokens and `length` more, unless one fits."""
        n_ctx = self._hparams.n_ctx
        slots = prompt_size(min(longest, n_ctx), n_ctx) + length
        if longest + length > n_ctx:
            # The window will slide; then a row may be padded from one size to the next.
            slots = n_ctx + widest_padding(n_ctx)
        slots = -(-slots // SLOT_STEP) * SLOT_STEP
        if self._cache and self._cache[0][0].shape[0] == rows and self.slots >= slots:
            return
        self.slots = slots
        shape = [rows, self._hparams.n_head, slots, self._hparams.n_embd // self._hparams.n_head]
        self._cache = [
            (tf.Variable(tf.zeros(shape)), tf.Variable(tf.zeros(shape)))
            for _ in range(self._hparams.n_layer)
        ]

    def prefill(self, rows: Sequence[Sequence[int]], *inputs: Any) -> Any:
        """Takes whole rows in, and returns what `finish` makes of their hidden states.

        If the cache has several times as many rows, each row fills as many of them.
        """
        place = prompt_size(max(map(len, rows)), self._hparams.n_ctx)
        self._place = place
        self._first = tf.constant([place - len(row) for row in rows], tf.int32)
        tokens = tf.constant([[0] * (place - len(row)) + list(row) for row in rows], tf.int32)
        found = self._prefill(tokens, self._first, self._cache, inputs)
        self._first = tf.repeat(self._first, self._copies(len(rows)))
        return found

    def step(self, tokens: Sequence[int], *inputs: Any, parents: Any = None) -> Any:
        """Takes a token a row in, and returns what `finish` makes of its hidden state.

        Args:
            tokens: one for each row of the cache.
            inputs: handed to `finish`.
            parents: the row that each row is to continue, or None: itself.
        """
        newest = tf.constant(tokens, tf.int32)[:, None]
        if parents is not None:
            parents = tf.constant(parents, tf.int32)
        place = tf.constant(self._place)
        found = self._step(newest, self._first, place, parents, self._cache, inputs)
        self._place += 1
        return found

    def logits(self, hidden: Any) -> Any:
        """(batch, embed) → float32 (batch, vocab): the scores of the tokens that may follow."""
        return gpt2.logits(self._weights, hidden)

    def put(self, whole: Any, new: Any, place: Any, axis: int) -> Any:
        """Returns a tensor with new values at one place of an axis."""
        if self._is_one_program():
            begin = [0] * len(whole.shape)
            return dynamic_update_slice(whole, new, [*begin[:axis], place, *begin[axis + 1 :]])
        here = tf.range(whole.shape[axis]) == place
        return tf.where(tf.reshape(here, [-1] + [1] * (len(whole.shape) - axis - 1)), new, whole)

    def _copies(self, rows: int) -> int:
        return int(self._cache[0][0].shape[0]) // rows

    def _prefill_graph(self, tokens: Any, first: Any, cache: Cache, inputs: Any) -> Any:
        """Fills the cache from whole rows.

        Args:
            tokens: int32 (batch, time), padded on the left.
            first: int32 (batch,).
            cache: of `batch` rows, or of a multiple of them.
            inputs: handed to `finish`.
        """
        time = tokens.shape[1]
        positions = tf.maximum(tf.range(time)[None, :] - first[:, None], 0)
        hidden = self._hidden(tokens, positions, partial(self._fill, first), cache)
        return self._finish(hidden, first, time - 1, *inputs)

    def _step_graph(
        self, tokens: Any, first: Any, place: Any, parents: Any, cache: Cache, inputs: Any
    ) -> Any:
        """Adds one token a row to the cache, in slot `place`.

        Args:
            tokens: int32 (batch, 1).
            first: int32 (batch,).
            place: int32.
            parents: int32 (batch,), which row's keys and values each row goes on from; or None.
            cache: of `batch` rows.
            inputs: handed to `finish`.
        """
        positions = (place - first)[:, None]
        hidden = self._hidden(
            tokens, positions, partial(self._extend, first, place, parents), cache
        )
        return self._finish(hidden, first, place, *inputs)

    def _hidden(self, tokens: Any, positions: Any, attend: Attend, cache: Cache) -> Any:
        """Returns the last hidden states, (batch, time, embed).

        The block is a function of its weights and its part of the cache, so that it is traced
        once and not once for each layer.
        """

        def block(x: Any, weights: Weights, pair: tuple[Any, Any]) -> Any:
            attention = over_heads(partial(attend, pair))
            return gpt2.block(x, weights, self._hparams.n_head, attention)

        traced = tf.function(block, autograph=False)
        x = gpt2.embed(self._weights, tokens, positions)  # (batch, time, embed)
        for layer, pair in enumerate(cache):
            x = traced(x, gpt2.block_weights(self._weights, layer), pair)
        return gpt2.norm(x, self._weights, "model/ln_f")

    def _fill(self, first: Any, pair: tuple[Any, Any], query: Any, key: Any, value: Any) -> Any:
        """Puts the keys and values of whole rows into a layer's cache, and attends to them."""
        for variable, new in zip(pair, (key, value), strict=True):
            copies = variable.shape[0] // new.shape[0]
            new = tf.repeat(new, copies, axis=0) if copies > 1 else new
            free = variable.shape[2] - new.shape[2]
            variable.assign(tf.pad(new, [[0, 0], [0, 0], [0, free], [0, 0]]))
        return padded_attention(query, key, value, first)

    def _extend(
        self, first: Any, place: Any, parents: Any, pair: tuple[Any, Any], *new: Any
    ) -> Any:
        """Adds the key and value of one position to a layer's cache, and attends to all."""
        query, *added = new
        for variable, one in zip(pair, added, strict=True):
            before = variable if parents is None else tf.gather(variable, parents)
            if self._is_one_program():
                variable.assign(self.put(before, one, place, 2))
                continue
            if parents is not None:
                variable.assign(before)
            variable[:, :, place : place + 1].assign(one)
        keys, values = (variable.read_value() for variable in pair)
        return cached_attention(query, keys, values, first, place)

    def _is_one_program(self) -> bool:
        """Returns whether what is traced now becomes one XLA program."""
        return self.compiler.xla and not xla_clusters.is_clustering()


def prompt_size(length: int, n_ctx: int) -> int:
    """Returns the padded length of a prompt: the smallest size that holds it."""
    return next(size for size in prompt_sizes(n_ctx) if size >= length)


def prompt_sizes(n_ctx: int) -> list[int]:
    """Returns the lengths that prompts are padded to, ascending; the window is the last."""
    return [*(size for size in PROMPT_SIZES if size < n_ctx), n_ctx]


def widest_padding(n_ctx: int) -> int:
    """Returns how many slots the padding of a prompt takes at most."""
    sizes = prompt_sizes(n_ctx)
    return max(after - before for before, after in zip([0, *sizes], sizes, strict=False))
