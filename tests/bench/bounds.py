"""How fast a GPT-2 could be at most: its matrix products alone, or its weights read once."""

from __future__ import annotations

from gpt2cli.hparams import HParams
from tests.bench import limits

# A product forward, and two backward: by what went in, and by the weights.
PRODUCTS = 3
FLOAT_BYTES = 4


def dense_flop(hparams: HParams, tokens: int) -> float:
    """Returns the operations of a step's products with the blocks' matrices."""
    sizes = [shape[1] * shape[2] for shape in hparams.shapes().values() if len(shape) == 3]
    return PRODUCTS * 2 * tokens * sum(sizes)


def head_flop(hparams: HParams, tokens: int) -> float:
    """Returns the operations of a step's products with the vocabulary."""
    return PRODUCTS * 2 * tokens * hparams.n_embd * hparams.n_vocab


def attention_flop(hparams: HParams, tokens: int, window: int) -> float:
    """Returns the operations of a step's attention, without its masked half."""
    pairs = tokens * (window + 1) / 2
    # Queries with keys, and what they find with values.
    return PRODUCTS * 2 * 2 * pairs * hparams.n_embd * hparams.n_layer


def step_seconds(hparams: HParams, tokens: int, window: int, machine: dict[str, float]) -> float:
    """Returns what the matrix products of a training step alone take at the measured rates."""
    blocks = dense_flop(hparams, tokens) + attention_flop(hparams, tokens, window)
    head = head_flop(hparams, tokens)
    return (blocks / machine[limits.MATRIX] + head / machine[limits.HEAD_MATRIX]) / 1e9


def token_bytes(hparams: HParams) -> float:
    """Returns the bytes of weights that a decoded token reads in float32: all but positions."""
    return FLOAT_BYTES * (hparams.count() - hparams.n_ctx * hparams.n_embd)


def token_seconds(hparams: HParams, machine: dict[str, float]) -> float:
    """Returns what reading the weights once takes at the best rate that was measured."""
    rate = max(machine[limits.READ], machine[limits.READ_WEIGHTS])
    return token_bytes(hparams) / rate / 1e9
