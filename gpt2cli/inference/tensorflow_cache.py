"""The TensorFlow engine's KV cache, and how positions attend to what is in it."""

from __future__ import annotations

import tensorflow as tf
from tensorflow.compiler.tf2xla.python.xla import dynamic_update_slice

from gpt2cli.arrays import Tensor
from gpt2cli.hparams import HParams
from gpt2cli.network.attention import Attend, cached_attention, over_heads, padded_attention

# Prompts are padded to one of these lengths, so that few programs are compiled.
PROMPT_SIZES = (16, 64, 256, 512, 768, 1024)
SLOT_STEP = 64

# A layer's keys and values, variables (rows, heads, slots, head).
Pair = tuple[Tensor, Tensor]


def make_cache(hparams: HParams, rows: int, slots: int) -> list[Pair]:
    """Returns an empty cache."""
    shape = [rows, hparams.n_head, slots, hparams.n_embd // hparams.n_head]
    return [
        (tf.Variable(tf.zeros(shape)), tf.Variable(tf.zeros(shape))) for _ in range(hparams.n_layer)
    ]


def slots_for(longest: int, length: int, n_ctx: int) -> int:
    """Returns how many slots rows of up to `longest` tokens and `length` more need."""
    slots = prompt_size(min(longest, n_ctx), n_ctx) + length
    if longest + length > n_ctx:
        # The window will slide; then a row may be padded from one size to the next.
        slots = n_ctx + widest_padding(n_ctx)
    return -(-slots // SLOT_STEP) * SLOT_STEP


def fill(pair: Pair, first: Tensor) -> Attend:
    """Returns an attention of whole rows, which puts their keys and values into a layer's cache.

    Args:
        pair: the layer's, of as many rows or a multiple.
        first: int32 (rows,), each row's first slot that holds a token.
    """

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attends within the rows, whose keys and values begin the cache."""
        for variable, new in zip(pair, (key, value), strict=True):
            copies = variable.shape[0] // new.shape[0]
            new = tf.repeat(new, copies, axis=0) if copies > 1 else new
            free = variable.shape[2] - new.shape[2]
            variable.assign(tf.pad(new, [[0, 0], [0, 0], [0, free], [0, 0]]))
        return padded_attention(query, key, value, first)

    return over_heads(attend)


def extend(
    pair: Pair, first: Tensor, place: Tensor, parents: Tensor, *, one_program: bool
) -> Attend:
    """Returns an attention of new positions of each row, which join a layer's cache.

    Args:
        pair: the layer's.
        first: int32 (rows,), each row's first slot that holds a token.
        place: int32, the slot of the first new position.
        parents: int32 (rows,), the row that each row goes on from; None: its own.
        one_program: whether the whole step becomes one XLA program.
    """

    def attend(query: Tensor, *added: Tensor) -> Tensor:
        """Attends to all positions, once the new ones are in the cache."""
        for variable, new in zip(pair, added, strict=True):
            before = variable if parents is None else tf.gather(variable, parents)
            if one_program:
                variable.assign(dynamic_update_slice(before, new, [0, 0, place, 0]))
                continue
            if parents is not None:
                variable.assign(before)
            variable[:, :, place : place + new.shape[2]].assign(new)
        keys, values = (variable.read_value() for variable in pair)
        return cached_attention(query, keys, values, first, place)

    return over_heads(attend)


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
