"""Causal attention by cuDNN's fused kernels: no (time, time) scores are ever held.

The kernels are those of cuDNN's scaled dot product attention (Dao 2023). They need compute
capability 8.0, bfloat16 or float16, and heads of a multiple of 8.

Here tensors are (batch, time, heads, head), as they stand in c_attn's product.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla

from gpt2cli.arrays import DType, Tensor
from gpt2cli.network import attention, compiling, cudnn, xla_clusters

LEAST_CAPABILITY = (8, 0)
# From Hopper on heads may be longer.
HOPPER, LONGEST_HEAD, LONGEST_HEAD_ON_HOPPER = (9, 0), 128, 256
# The version of the calling convention that modules are written in (XlaCallModule).
CONVENTION = 9
# How far cuDNN's results may be from those in float32 before they are taken for wrong ones.
MOST_ERROR = 0.02


def unsupported_reason(kind: DType, head: int, capability: tuple[int, int]) -> str:
    """Returns why cuDNN has no kernel for a type and a head's width on a card; empty: it has."""
    if kind not in cudnn.TYPES:
        return f"it has no {kind.name}"
    if capability < LEAST_CAPABILITY:
        return f"it needs compute capability 8.0, this card has {capability[0]}.{capability[1]}"
    longest = LONGEST_HEAD_ON_HOPPER if capability >= HOPPER else LONGEST_HEAD
    if head % 8 or head > longest:
        return f"its heads are multiples of 8 up to {longest} wide, the model's {head}"
    return ""


def causal(product: Tensor, bias: Tensor, n_head: int) -> Tensor:
    """Returns what `attention.causal` does, (batch, time, embed), by cuDNN; differentiable.

    c_attn's product is bfloat16 or float16 (batch, time, 3 * embed), its bias float32 (3 * embed,).
    """
    forward, backward = _programs(n_head)

    def attended(product: Tensor, bias: Tensor) -> tuple[Any, Callable[[Tensor], Tensor]]:
        """Returns the values attended to, and what gives their gradients."""
        found, statistics = xla_clusters.keep(lambda: forward(product, bias))
        return found, lambda upstream: backward(upstream, product, bias, found, statistics)

    return xla_clusters.custom_gradient(attended, product, tf.convert_to_tensor(bias))


@functools.cache
def _programs(n_head: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    compiled = xla_clusters.cluster
    forward, backward = (functools.partial(half, n_head) for half in (_forward, _backward))
    return compiled(forward), compiled(backward)


def _forward(n_head: int, product: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Returns (batch, time, embed), and the softmax's statistics, float32 (batch, heads, time)."""
    heads = _heads(product, bias, n_head)
    shape = tuple(heads[0].shape)
    batch, time, _, _ = shape
    results = [(shape, product.dtype), ((batch, n_head, time), tf.float32)]
    found, statistics = _call(heads, cudnn.forward(shape, product.dtype), results)
    return tf.reshape(found, [batch, time, -1]), statistics


def _backward(
    n_head: int, upstream: Tensor, product: Tensor, bias: Tensor, found: Tensor, statistics: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the gradients of the product, (batch, time, 3 * embed), and of its bias."""
    heads = _heads(product, bias, n_head)
    shape = tuple(heads[0].shape)
    given = [*heads, statistics, tf.reshape(upstream, shape), tf.reshape(found, shape)]
    gradients = _call(given, cudnn.backward(shape, product.dtype), [(shape, product.dtype)] * 3)
    batch, time, _, _ = shape
    whole = tf.concat([tf.reshape(gradient, [batch, time, -1]) for gradient in gradients], axis=-1)
    return whole, tf.reduce_sum(tf.cast(whole, tf.float32), axis=[0, 1])


def _heads(product: Tensor, bias: Tensor, n_head: int) -> list[Tensor]:
    """(batch, time, 3 * embed) → query, key and value, each (batch, time, heads, head)."""
    batch, time, width = product.shape
    wide = tf.cast(tf.cast(product, tf.float32) + bias, product.dtype)
    shape = [batch, time, n_head, width // 3 // n_head]
    return [tf.reshape(part, shape) for part in tf.split(wide, 3, axis=-1)]


def _call(tensors: Sequence[Tensor], module: str, results: Sequence[tuple[Any, Any]]) -> Tensor:
    return xla.call_module(
        list(tensors),
        version=CONVENTION,
        module=module,
        Tout=[kind for _, kind in results],
        Sout=[list(shape) for shape, _ in results],
        platforms=["CUDA"],
        # So that a machine without a GPU can look at the program, if not run it.
        disabled_checks=[xla.call_module_disable_check_platform()],
    )


def check_kernels(shape: cudnn.Shape, kind: DType) -> str:
    """Returns why cuDNN cannot be used here; empty: it can.

    Computes once forward and back, by cuDNN and by plain products. The programs are those that
    training will use, so that nothing is compiled twice.

    The shape, (batch, time, heads, head), is that which will be trained on; the kind is bfloat16 or
    float16.
    """
    batch, time, heads, head = shape
    width = 3 * heads * head
    product, upstream = (
        tf.random.stateless_normal([batch, time, columns], [0, columns], dtype=kind)
        for columns in (width, width // 3)
    )
    bias = tf.random.stateless_normal([width], [1, width])

    def by_cudnn(*tensors: Tensor) -> list[Tensor]:
        """Computes the values and gradients that are to be checked."""
        with xla_clusters.clustering(enabled=True, gpu=True):
            return _with_gradients(causal, heads, tensors[:2], tensors[2])

    try:
        found = tf.function(by_cudnn, autograph=False)(product, bias, upstream)
    except tf.errors.OpError as error:
        return compiling.error_summary(error)
    # One window is enough to judge by, and plain attention takes much memory.
    first = tf.cast(product[:1], tf.float32), bias
    exact = _with_gradients(_reference, heads, first, tf.cast(upstream[:1], tf.float32))
    for one, other in zip(found[:2], exact[:2], strict=True):
        far = tf.norm(tf.cast(one[:1], tf.float32) - other) / tf.norm(other)
        if not far < MOST_ERROR:
            return f"its results are wrong by {float(far):.1%}"
    return ""


def _with_gradients(
    attend: Callable[..., Any], heads: int, given: tuple[Any, ...], upstream: Tensor
) -> list[Tensor]:
    with tf.GradientTape() as tape:
        tape.watch(given)
        found = attend(*given, heads)
    return [found, *tape.gradient(found, given, upstream)]


def _reference(product: Tensor, bias: Tensor, heads: int) -> Tensor:
    """Returns what `causal` does, by products of whole matrices and a mask."""
    query, key, value = attention.split_qkv(product + bias, heads)
    seen = tf.linalg.band_part(tf.ones(2 * [product.shape[1]], tf.bool), -1, 0)  # (time, time)
    return attention.merge_heads(attention.attend(query, key, value, seen))
