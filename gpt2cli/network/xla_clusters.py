"""XLA clusters: parts of a network that XLA compiles one by one, keeping only their inputs.

Products of matrices are left to TensorFlow: on a CPU its own (oneDNN) are faster than XLA's, and on
a GPU they are cuBLAS's (XLA would compile hundreds of variants of each to choose among them). What
stands between products and is marked as a cluster here becomes a small XLA program, compiled once
for all layers. Outside of `clustering` a cluster is a plain function.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any

import tensorflow as tf

from gpt2cli.arrays import Tensor, Weights

Function = Callable[..., Any]

_CLUSTERING: ContextVar[bool] = ContextVar("clustering", default=False)
_ON_GPU: ContextVar[bool] = ContextVar("on_gpu", default=False)


@contextlib.contextmanager
def clustering(*, enabled: bool, gpu: bool = False) -> Iterator[None]:
    """Compiles the clusters of what is traced within the block one by one, or leaves them alone.

    Args:
        enabled: whether to compile them.
        gpu: whether for a GPU, on which launches cost what memory costs on a CPU.
    """
    tokens = _CLUSTERING.set(enabled), _ON_GPU.set(gpu)
    try:
        yield
    finally:
        _CLUSTERING.reset(tokens[0])
        _ON_GPU.reset(tokens[1])


def is_clustering() -> bool:
    """Returns whether what is traced now is compiled cluster by cluster."""
    return _CLUSTERING.get()


def on_gpu() -> bool:
    """Returns whether what is traced now is meant for a GPU."""
    return _ON_GPU.get()


def cluster(function: Function) -> Function:
    """Makes a cluster of a function of tensors; it has no gradient."""

    def whole(*tensors: Tensor) -> Tensor:
        with clustering(enabled=False):
            return function(*tensors)

    program = tf.function(whole, jit_compile=True, autograph=False)

    @functools.wraps(function)
    def run(*tensors: Tensor) -> Tensor:
        return program(*tensors) if _CLUSTERING.get() else function(*tensors)

    return run


def recomputed_cluster(function: Function) -> Function:
    """Makes a cluster of a function of tensors; the backward pass recomputes it."""
    forward = cluster(function)
    backward = cluster(functools.partial(_gradients, function))

    @functools.wraps(function)
    def run(*tensors: Tensor) -> Tensor:
        if not _CLUSTERING.get():
            return function(*tensors)

        def kept(*tensors: Tensor) -> tuple[Any, Function]:
            return forward(*tensors), lambda upstream: backward(upstream, *tensors)

        return tf.custom_gradient(kept)(*map(tf.convert_to_tensor, tensors))

    return run


def recompute(function: Function, x: Tensor, weights: Weights) -> Tensor:
    """Returns function(x, weights), and keeps only x and the weights for the backward pass.

    Gradient checkpointing for cheap clusters before a product: the backward pass recomputes the
    clusters, but not the product, whose result no gradient needs. On a GPU everything is kept.
    """
    if not _CLUSTERING.get() or _ON_GPU.get():
        return function(x, weights)

    def of_tensors(x: Tensor, *tensors: Tensor) -> Tensor:
        return function(x, dict(zip(weights, tensors, strict=True)))

    def kept(*tensors: Tensor) -> tuple[Any, Function]:
        def gradient(upstream: Tensor) -> Tensor:
            return _gradients(of_tensors, upstream, *with_dependencies(tensors, upstream))

        return of_tensors(*tensors), gradient

    return tf.custom_gradient(kept)(x, *map(tf.convert_to_tensor, weights.values()))


def add_bias(product: Tensor, bias: Tensor) -> Tensor:
    """Returns a product, (batch, time, width), with a float32 bias (width,) added to each row."""

    def summed(product: Tensor, bias: Tensor) -> tuple[Any, Function]:
        return _sum(product, bias), lambda upstream: (upstream, _column_sums(upstream))

    # Not a cluster: its gradient is the upstream itself, which XLA would copy.
    return tf.custom_gradient(summed)(product, tf.convert_to_tensor(bias))


def add_residual(x: Tensor, product: Tensor, bias: Tensor) -> Tensor:
    """Returns x plus a product of the same shape, (batch, time, width), plus its bias (width,)."""

    def summed(x: Tensor, product: Tensor, bias: Tensor) -> tuple[Any, Function]:
        def gradient(upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return upstream, upstream, _column_sums(upstream)

        return _sum(product, bias, x), gradient

    return tf.custom_gradient(summed)(x, product, tf.convert_to_tensor(bias))


@cluster
def _sum(product: Tensor, *others: Tensor) -> Tensor:
    return tf.cast(
        sum((tf.cast(x, tf.float32) for x in others), tf.cast(product, tf.float32)), product.dtype
    )


@cluster
def _column_sums(x: Tensor) -> Tensor:
    return tf.reduce_sum(tf.cast(x, tf.float32), axis=list(range(len(x.shape) - 1)))


def with_dependencies(tensors: Iterable[Tensor], others: Tensor) -> list[Tensor]:
    """Returns the same tensors, but not before other tensors or operations are done.

    So TensorFlow neither computes from them too early, which takes memory, nor merges the result
    with an equal one of the forward pass. XLA sees to both by itself.
    """
    with tf.control_dependencies(tf.nest.flatten(others)):
        return [tf.identity(tensor) for tensor in tensors]


def _gradients(function: Function, upstream: Tensor, *tensors: Tensor) -> Tensor:
    with tf.GradientTape() as tape:
        tape.watch([tensor for tensor in tensors if tensor.dtype.is_floating])
        result = function(*tensors)
    return tape.gradient(result, tensors, upstream)
