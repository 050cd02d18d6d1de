"""GPT-2: tokens in, hidden states out, logits on request.

Weights are a mapping from the names in OpenAI's checkpoints to tensors or variables, and the
names below spell them out (openai/gpt-2, src/model.py; Radford et al. 2019).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import tensorflow as tf

from gpt2cli.arrays import DType, Tensor, Weights
from gpt2cli.hparams import LORA_SCALE, HParams
from gpt2cli.network import lora, low_precision, xla_clusters
from gpt2cli.network.attention import Attend, causal, shape_of

NORM_EPSILON = 1e-5
# The standard deviations of Radford et al. 2018 and 2019 for weights that start at random.
EMBEDDING_DEVIATION = 0.02
POSITION_DEVIATION = 0.01
# The generator of random numbers that TensorFlow knows by this number (Salmon et al. 2011).
PHILOX = 1


@dataclasses.dataclass(frozen=True)
class Dropout:
    """Sets a share of activations, `rate`, to 0; the same seed, int32 (2,), drops the same."""

    rate: float
    seed: Tensor

    def at(self, place: Tensor) -> Dropout:
        """Returns the dropout of another place in the network, which drops other activations."""
        return dataclasses.replace(self, seed=self.seed + tf.stack([0, place]))

    def __call__(self, x: Tensor) -> Tensor:
        """Returns x with a share of it dropped, and the rest scaled up."""
        return drop(x, self.rate, self.seed) if self.rate else x


@xla_clusters.recomputed_cluster
def drop(x: Tensor, rate: Tensor, seed: Tensor) -> Tensor:
    """Returns x with a share of it set to 0, which follows from the seed, and the rest scaled."""
    # Of the same key TensorFlow and XLA make the same integers, but of a seed other keys, and of
    # the integers other fractions.
    key = tf.reshape(tf.bitcast(seed, tf.uint64), [1])
    integers = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=tf.shape(x), key=key, counter=tf.zeros([2], tf.uint64), alg=PHILOX, dtype=tf.uint32
    )
    drawn = tf.cast(tf.bitwise.right_shift(integers, 8), tf.float32) * 2.0**-24
    rest = tf.stop_gradient(tf.cast(1 - rate, x.dtype))
    return tf.where(drawn >= rate, x / rest, tf.zeros([], x.dtype))


NO_DROPOUT = Dropout(0.0, None)


def hidden_states(
    weights: Weights, hparams: HParams, x: Tensor, attends: Sequence[Attend] | None = None
) -> Tensor:
    """Returns the last hidden state of each position, normalised: (batch, time, embed).

    So is x, from `embed`; all is computed in its precision. `attends` says for each layer how
    positions look at each other; None: causal, without padding.
    """
    for layer, attend in enumerate(attends or [causal] * hparams.n_layer):
        x = block(x, block_weights(weights, layer), hparams.n_head, attend)
    return norm(x, weights, "model/ln_f")


def block_weights(weights: Weights, layer: int) -> dict[str, Tensor]:
    """Returns the weights of one block by their names below `model/hN/`, adapters included."""
    place = f"model/h{layer}/"
    block = {n.removeprefix(place): weight for n, weight in weights.items() if n.startswith(place)}
    if LORA_SCALE in weights:
        block[LORA_SCALE] = weights[LORA_SCALE]
    return block


def logits(weights: Weights, hidden: Tensor) -> Tensor:
    """(…, embed) → (…, vocab): the scores of the tokens that may come next."""
    return low_precision.matmul(hidden, weights, low_precision.EMBEDDING)


def embed(
    weights: Weights,
    tokens: Tensor,
    positions: Tensor = None,
    *,
    dropout: Dropout = NO_DROPOUT,
    precision: DType = tf.float32,
) -> Tensor:
    """int32 (batch, time) → (batch, time, embed): what the first block sees.

    The shape of the tokens is static. Positions in the window, int32, are broadcast to it (None: 0,
    1, 2, …). Precision is the type that matrices are multiplied in; norms and softmax stay float32.
    """
    if positions is None:
        positions = tf.range(tokens.shape[1])
    x = low_precision.dequantize(weights, "model/wte", tokens)  # (batch, time, embed)
    x += low_precision.dequantize(weights, "model/wpe", positions)
    return tf.cast(dropout(x), precision)


def block(
    x: Tensor, weights: Weights, n_head: int, attend: Attend = causal, dropout: Dropout = NO_DROPOUT
) -> Tensor:
    """(batch, time, embed) → the same: attention, then the MLP, both added to x.

    The weights are the block's, by their names below `model/hN/`.
    """
    x = add_residual(x, attn(x, weights, n_head, attend), weights["attn/c_proj/b"], dropout)
    later = dropout.at(1) if dropout.rate else dropout
    return add_residual(x, mlp(x, weights), weights["mlp/c_proj/b"], later)


def add_residual(x: Tensor, product: Tensor, bias: Tensor, dropout: Dropout) -> Tensor:
    """Returns x with a product and its bias added, of which a share is dropped in training."""
    if dropout.rate:
        return x + dropout(xla_clusters.add_bias(product, bias))
    return xla_clusters.add_bias(product, bias, x)


def attn(x: Tensor, weights: Weights, n_head: int, attend: Attend) -> Tensor:
    """(batch, time, embed) → the same, each from the positions before it; without c_proj's bias."""
    mixed = normed_conv1d(x, weights, "ln_1", "attn/c_attn")  # (batch, time, 3 * embed)
    found = attend(mixed, weights["attn/c_attn/b"], n_head)  # (batch, time, embed)
    return recompute(partial(conv1d, name="attn/c_proj"), found, weights, "attn/c_proj/w")


def mlp(x: Tensor, weights: Weights) -> Tensor:
    """(batch, time, embed) → the same, each position for itself; without c_proj's bias."""

    def project(x: Tensor, weights: Weights) -> Tensor:
        """(batch, time, 4 * embed) → (batch, time, embed), the product of c_proj."""
        return conv1d(gelu(x, weights["mlp/c_fc/b"]), weights, "mlp/c_proj")

    wide = normed_conv1d(x, weights, "ln_2", "mlp/c_fc")  # (batch, time, 4 * embed)
    return recompute(project, wide, weights, "mlp/c_fc/b", "mlp/c_proj/w")


def normed_conv1d(x: Tensor, weights: Weights, of_norm: str, name: str) -> Tensor:
    """(batch, time, embed) → (batch, time, columns): the product with x, normalised first."""

    def product(x: Tensor, weights: Weights) -> Tensor:
        """Normalises, then multiplies."""
        return conv1d(norm(x, weights, of_norm), weights, name)

    return recompute(product, x, weights, of_norm, f"{name}/w")


def recompute(
    function: Callable[[Tensor, Weights], Tensor], x: Tensor, weights: Weights, *names: str
) -> Tensor:
    """Returns what `xla_clusters.recompute` does, of x and the block's weights of some names.

    Matrices of a wider type than x are cast to x's: the backward pass then keeps them as such.
    """
    picked = {
        name: tf.cast(weight, x.dtype)
        if name.endswith("/w") and tf.as_dtype(weight.dtype).size > x.dtype.size
        else weight
        for name, weight in weights.items()
        if name == LORA_SCALE or name.startswith(names)
    }
    return xla_clusters.recompute(function, x, picked)


def conv1d(x: Tensor, weights: Weights, name: str) -> Tensor:
    """(batch, time, width) → (batch, time, columns), in the precision of x, without the bias."""
    batch, time, width = shape_of(x)
    rows = tf.reshape(x, [batch * time, width])
    if f"{name}/w" in weights:
        # Not before it is needed, lest the wide forms of all narrow matrices be made at the start.
        (held,) = xla_clusters.with_dependencies([weights[f"{name}/w"]], x)  # (1, width, columns)
        matrix = tf.cast(tf.squeeze(held, 0), x.dtype)  # (width, columns)
        flat = xla_clusters.product(rows, matrix)  # (batch * time, columns)
    else:
        flat = low_precision.matmul(rows, weights, f"{name}/w{low_precision.ROWS}")
    if LORA_SCALE in weights:
        flat += lora.correction(rows, weights, f"{name}/w")
    return tf.reshape(flat, [batch, time, flat.shape[-1]])


def norm(x: Tensor, weights: Weights, name: str) -> Tensor:
    """Normalises the last axis to mean 0 and variance 1, then scales and shifts it, in float32."""
    return layer_norm(x, weights[f"{name}/g"], weights[f"{name}/b"])


@xla_clusters.recomputed_cluster
def layer_norm(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """Returns what `norm` does, from its own two weights."""
    wide = tf.cast(x, tf.float32)
    centred = wide - tf.reduce_mean(wide, axis=-1, keepdims=True)
    variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
    scaled = centred * tf.math.rsqrt(variance + NORM_EPSILON)
    return tf.cast(scaled * gain + bias, x.dtype)


@xla_clusters.recomputed_cluster
def gelu(product: Tensor, bias: Tensor) -> Tensor:
    """(batch, time, width) → the same: GELU of its sum with a bias (width,), approximated by tanh.

    GPT-2 was trained with it (Hendrycks & Gimpel 2016).
    """
    wide = tf.cast(product, tf.float32) + bias
    inner = math.sqrt(2 / math.pi) * (wide + 0.044715 * wide * wide * wide)
    return tf.cast(0.5 * wide * (1 + tf.tanh(inner)), product.dtype)


def initial_weights(hparams: HParams, seed: int) -> Iterator[tuple[str, Tensor]]:
    """Yields weights to train from scratch, float32, by name; the same seed gives the same.

    Matrices are drawn from a normal distribution; those that write to the residual stream are
    scaled by 1/√(2 · n_layer) (Radford et al. 2019, section 2.3).
    """
    for number, (name, shape) in enumerate(hparams.shapes().items()):
        if name.endswith(("/g", "/b")):
            yield name, tf.fill(shape, 1.0 if name.endswith("/g") else 0.0)
            continue
        deviation = POSITION_DEVIATION if name == "model/wpe" else EMBEDDING_DEVIATION
        if name.endswith("c_proj/w"):
            deviation /= math.sqrt(2 * hparams.n_layer)
        yield name, tf.random.stateless_normal(shape, [seed, number], stddev=deviation)


def to_variables(
    arrays: Iterable[tuple[str, Tensor]], *, trainable: bool = True
) -> dict[str, Tensor]:
    """Returns a variable for each named array, under the same name."""
    return {name: tf.Variable(array, trainable=trainable, name=name) for name, array in arrays}
