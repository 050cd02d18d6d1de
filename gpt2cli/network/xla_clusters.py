"""Parts of a network that XLA compiles one by one, and of which only what goes in is kept.

Products of matrices are left to TensorFlow: on a CPU its own (oneDNN) are faster than XLA's, and on
a GPU they are cuBLAS's, where XLA would compile hundreds of variants of each to choose among them.
What lies between products and is marked here as a piece becomes a small program of XLA's, compiled
once for all layers. Where a network is not traced apart, a piece is but a function.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import tensorflow as tf

Function = Callable[..., Any]

_APART: ContextVar[bool] = ContextVar("apart", default=False)
_ON_GPU: ContextVar[bool] = ContextVar("on_gpu", default=False)


@contextlib.contextmanager
def apart(*, apart: bool, gpu: bool = False) -> Iterator[None]:
    """What is traced within the block is compiled piece by piece, or not.

    Args:
        apart: whether it is.
        gpu: whether in the way that suits a GPU: launches cost there what memory costs on a CPU.
    """
    tokens = _APART.set(apart), _ON_GPU.set(gpu)
    try:
        yield
    finally:
        _APART.reset(tokens[0])
        _ON_GPU.reset(tokens[1])


def are_apart() -> bool:
    """Returns whether what is traced now is compiled piece by piece."""
    return _APART.get()


def on_gpu() -> bool:
    """Returns whether what is traced now is meant for a GPU."""
    return _ON_GPU.get()


def compiled(function: Function) -> Function:
    """Makes a piece of a function of tensors whose gradient nobody asks for."""

    def whole(*tensors: Any) -> Any:
        with apart(apart=False):
            return function(*tensors)

    program = tf.function(whole, jit_compile=True, autograph=False)

    @functools.wraps(function)
    def run(*tensors: Any) -> Any:
        return program(*tensors) if _APART.get() else function(*tensors)

    return run


def piece(function: Function) -> Function:
    """Makes a piece of a function of tensors, which is recomputed on the way back."""
    forward = compiled(function)
    backward = compiled(functools.partial(_gradients, function))

    @functools.wraps(function)
    def run(*tensors: Any) -> Any:
        if not _APART.get():
            return function(*tensors)

        def kept(*tensors: Any) -> tuple[Any, Function]:
            return forward(*tensors), lambda upstream: backward(upstream, *tensors)

        return tf.custom_gradient(kept)(*map(tf.convert_to_tensor, tensors))

    return run


def again(function: Function, x: Any, weights: Mapping[str, Any]) -> Any:
    """Returns function(x, weights), of which nothing but x and the weights is kept.

    What the gradient needs of it is recomputed on the way back: it is meant for cheap pieces
    before a product, which itself is not needed again, and so not done. On a GPU all is kept.
    """
    if not _APART.get() or _ON_GPU.get():
        return function(x, weights)

    def of_tensors(x: Any, *tensors: Any) -> Any:
        return function(x, dict(zip(weights, tensors, strict=True)))

    def kept(*tensors: Any) -> tuple[Any, Function]:
        def gradient(upstream: Any) -> Any:
            return _gradients(of_tensors, upstream, *later(tensors, upstream))

        return of_tensors(*tensors), gradient

    return tf.custom_gradient(kept)(x, *map(tf.convert_to_tensor, weights.values()))


def biased(product: Any, bias: Any) -> Any:
    """Returns a product, (batch, time, width), with a float32 bias (width,) added to each row."""

    def summed(product: Any, bias: Any) -> tuple[Any, Function]:
        return _sum(product, bias), lambda upstream: (upstream, _column_sums(upstream))

    # Not a piece: its gradient is the upstream itself, which XLA would copy.
    return tf.custom_gradient(summed)(product, tf.convert_to_tensor(bias))


def added(x: Any, product: Any, bias: Any) -> Any:
    """Returns x plus a product of the same shape, (batch, time, width), plus its bias (width,)."""

    def summed(x: Any, product: Any, bias: Any) -> tuple[Any, Function]:
        def gradient(upstream: Any) -> tuple[Any, Any, Any]:
            return upstream, upstream, _column_sums(upstream)

        return _sum(product, bias, x), gradient

    return tf.custom_gradient(summed)(x, product, tf.convert_to_tensor(bias))


@compiled
def _sum(product: Any, *others: Any) -> Any:
    return tf.cast(
        sum((tf.cast(x, tf.float32) for x in others), tf.cast(product, tf.float32)), product.dtype
    )


@compiled
def _column_sums(x: Any) -> Any:
    return tf.reduce_sum(tf.cast(x, tf.float32), axis=list(range(len(x.shape) - 1)))


def later(tensors: Any, others: Any) -> list[Any]:
    """Returns the same tensors, but not before others are there, or operations done.

    So what follows from them is neither begun while it takes but memory, nor taken for the same
    as what was computed of them before. XLA sees to both by itself.
    """
    with tf.control_dependencies(tf.nest.flatten(others)):
        return [tf.identity(tensor) for tensor in tensors]


def _gradients(function: Function, upstream: Any, *tensors: Any) -> Any:
    with tf.GradientTape() as tape:
        tape.watch([tensor for tensor in tensors if tensor.dtype.is_floating])
        result = function(*tensors)
    return tape.gradient(result, tensors, upstream)
