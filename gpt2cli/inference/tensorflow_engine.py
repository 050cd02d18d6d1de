"""TensorFlow's engine: for GPUs, and for CPUs without Numba.

The rows of a batch are aligned at their ends: shorter ones are padded on the left. A slot is a
place in the padded window; `first` is each row's first slot that holds a token.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import tensorflow as tf

from gpt2cli.arrays import Array, Tensor, Weights
from gpt2cli.hparams import HParams
from gpt2cli.inference import tensorflow_cache
from gpt2cli.inference.engine import Hidden, Row
from gpt2cli.inference.tensorflow_cache import Pair
from gpt2cli.inference.tensorflow_heads import TensorFlowHeads
from gpt2cli.network import gpt2, low_precision, xla_clusters
from gpt2cli.network.attention import Attend
from gpt2cli.network.compiling import CompileMode, Compiler, best_compile_mode
from gpt2cli.runtime import devices

# New tokens of a row are padded to one of these numbers, so that few programs are compiled.
EXTEND_SIZES = (4, 16)
# See Engine. Measured on two cores, GPT-2 124M, 200 tokens before; on a GPU an estimate.
PASS_COSTS, INT8_COSTS = (1.0, *2 * [1.65], *6 * [2.2]), (1.0, *2 * [3.1], *6 * [3.9])
GPU_COSTS = (1.0, *2 * [1.1], *6 * [1.2])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Room:
    """A KV cache, and the programs that it is a part of.

    To hand over its dozens of variables with each token would take longer than the token.
    """

    slots: int
    cache: list[Pair]
    prefill: Callable[..., Tensor]
    prefill_whole: Callable[..., Tensor]
    step: Callable[..., Tensor]
    step_from: Callable[..., Tensor]
    extend: Callable[..., Tensor]


class TensorFlowEngine(TensorFlowHeads):
    """The compiled prefill and step over one model's weights, and their KV cache.

    Attributes:
        hparams: the model's shape.
        compiler: what compiles it; it says if XLA failed.
        pass_costs: how long passes over several tokens take, see Engine.
    """

    fixed_rows = True

    def __init__(self, weights: Weights, hparams: HParams, *, xla: bool = True) -> None:
        """Takes the model, its matrices in any precision, and whether XLA compiles it."""
        # Products in half precision are faster as TensorFlow's; those of few rows in float32 and
        # int8 within one program, and a GPU is given a token's step as one launch.
        split = low_precision.is_half(weights) and not devices.has_gpu()
        mode = best_compile_mode(xla=xla, width=hparams.n_embd) if split else CompileMode.FULL
        super().__init__(weights, Compiler(xla=xla, mode=mode))
        self.hparams = hparams
        int8 = low_precision.EMBEDDING + low_precision.SCALE in weights
        costs = INT8_COSTS if int8 else PASS_COSTS
        self.pass_costs: tuple[float, ...] = GPU_COSTS if devices.has_gpu() else costs
        # By their number of rows: a search and plain texts may take turns.
        self._rooms: dict[int, Room] = {}

    def make_room(self, rows: int, longest: int, length: int) -> None:
        """Makes a cache for rows of up to `longest` tokens and `length` more, unless one fits."""
        slots = tensorflow_cache.slots_for(longest, length, self.hparams.n_ctx)
        if rows not in self._rooms or self._rooms[rows].slots < slots:
            # The old one goes first: there may not be memory for both.
            self._rooms.pop(rows, None)
            compiled, cache = self.compiler, tensorflow_cache.make_cache(self.hparams, rows, slots)
            step = partial(self._step_graph, cache=cache)
            self._rooms[rows] = Room(
                slots=slots,
                cache=cache,
                prefill=compiled(partial(self._prefill_graph, cache=cache)),
                prefill_whole=compiled(partial(self._prefill_whole_graph, cache=cache)),
                step=compiled(partial(step, parents=None), steady=True),
                step_from=compiled(step, steady=True),
                extend=compiled(partial(self._extend_graph, parents=None, cache=cache)),
            )
        self._rows = rows

    def prefill(self, rows: Sequence[Row]) -> Hidden:
        """Takes whole rows in; returns (rows of the cache, embed), of each row's last token."""
        return tf.repeat(self._take_in(rows, self._room.prefill), self._rows // len(rows), axis=0)

    def hidden_states(self, rows: Sequence[Row]) -> list[Array]:
        """Takes whole rows in as `prefill`; returns each row's (tokens, embed), float32."""
        hidden = self._take_in(rows, self._room.prefill_whole).numpy()  # (rows, time, embed)
        return [states[-len(row) :] for states, row in zip(hidden, rows, strict=True)]

    def step(self, tokens: Sequence[int], parents: Sequence[int] | None = None) -> Hidden:
        """Takes a token a row in; returns (rows, embed)."""
        newest = tf.constant(np.array(tokens, np.int32)[:, None])
        place = tf.constant(self._place)
        self._place += 1
        if parents is None:
            return self._room.step(newest, self._first, place)
        return self._room.step_from(newest, self._first, place, tf.constant(parents, tf.int32))

    def extend(self, rows: Sequence[Row]) -> Hidden:
        """Takes some tokens of a single row in; returns (at least as many, embed)."""
        (row,) = rows
        size = next((size for size in EXTEND_SIZES if size >= len(row)), len(row))
        if len(row) == 1 or self._place + size > self._room.slots:
            return tf.concat([self.step([token]) for token in row], axis=0)
        tokens = tf.constant([[*row, *[0] * (size - len(row))]], tf.int32)
        place = tf.constant(self._place)
        self._place += len(row)
        return self._room.extend(tokens, self._first, place)[0]

    def drop(self, counts: Sequence[int]) -> None:
        """Takes back the row's last tokens, as many as are said for it."""
        self._place -= counts[0]

    def pop_warnings(self) -> list[str]:
        """Returns a line for each thing that went otherwise than asked, once."""
        return self.compiler.pop_warnings()

    @property
    def _room(self) -> Room:
        return self._rooms[self._rows]

    def _take_in(self, rows: Sequence[Row], prefill: Callable[..., Tensor]) -> Tensor:
        """Fills the cache from whole rows, padded on the left; returns what the prefill does."""
        place = tensorflow_cache.prompt_size(max(map(len, rows)), self.hparams.n_ctx)
        first = tf.constant([place - len(row) for row in rows], tf.int32)
        tokens = tf.constant([[0] * (place - len(row)) + list(row) for row in rows], tf.int32)
        self._place, self._first = place, tf.repeat(first, self._rows // len(rows))
        return prefill(tokens, first)

    def _prefill_graph(self, tokens: Tensor, first: Tensor, cache: list[Pair]) -> Tensor:
        """Fills the cache from whole rows; returns (rows, embed), of the last tokens."""
        return self._prefill_whole_graph(tokens, first, cache)[:, -1]

    def _prefill_whole_graph(self, tokens: Tensor, first: Tensor, cache: list[Pair]) -> Tensor:
        """Fills the cache from whole rows; returns (rows, time, embed).

        Args:
            tokens: int32 (rows, time), padded on the left.
            first: int32 (rows,).
            cache: of `rows` rows, or of a multiple of them.
        """
        positions = tf.maximum(tf.range(tokens.shape[1])[None, :] - first[:, None], 0)
        return self._hidden(tokens, positions, partial(tensorflow_cache.fill, first=first), cache)

    def _step_graph(
        self, tokens: Tensor, first: Tensor, place: Tensor, parents: Tensor, cache: list[Pair]
    ) -> Tensor:
        """Adds a token a row to the cache; returns (rows, embed)."""
        return self._extend_graph(tokens, first, place, parents, cache)[:, -1]

    def _extend_graph(
        self, tokens: Tensor, first: Tensor, place: Tensor, parents: Tensor, cache: list[Pair]
    ) -> Tensor:
        """Adds new tokens of each row to the cache; returns (rows, new, embed).

        Args:
            tokens: int32 (rows, new).
            first: int32 (rows,).
            place: int32, the slot of the first new tokens.
            parents: int32 (rows,), the row that each row goes on from; None: its own.
            cache: of `rows` rows.
        """
        one_program = self.compiler.xla and not xla_clusters.is_clustering()
        extend = partial(
            tensorflow_cache.extend,
            first=first,
            place=place,
            parents=parents,
            one_program=one_program,
        )
        positions = (place - first)[:, None] + tf.range(tokens.shape[1])  # (rows, new)
        # Padding may be beyond the window.
        positions = tf.minimum(positions, self.hparams.n_ctx - 1)
        return self._hidden(tokens, positions, extend, cache)

    def _hidden(
        self,
        tokens: Tensor,
        positions: Tensor,
        attention: Callable[[Pair], Attend],
        cache: list[Pair],
    ) -> Tensor:
        """Returns the last hidden states, (rows, time, embed)."""
        x = gpt2.embed(self._weights, tokens, positions)  # (rows, time, embed)
        x = blocks(x, self._weights, self.hparams.n_head, cache, attention)
        return gpt2.norm(x, self._weights, "model/ln_f")


def blocks(
    x: Tensor,
    weights: Weights,
    n_head: int,
    cache: list[Pair],
    attention: Callable[[Pair], Attend],
) -> Tensor:
    """(rows, time, embed) → the same after all blocks, each with its part of the cache.

    A block is a function of its weights and its part of the cache, so that it is traced once and
    not once for each layer.
    """

    def block(x: Tensor, weights: Weights, pair: Pair) -> Tensor:
        """Computes one block, with its part of the cache."""
        return gpt2.block(x, weights, n_head, attention(pair))

    traced = tf.function(block, autograph=False)
    for layer, pair in enumerate(cache):
        x = traced(x, gpt2.block_weights(weights, layer), pair)
    return x
