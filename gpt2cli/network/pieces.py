"""Parts of a network that XLA compiles one by one, and of which only what goes in is kept.

On a CPU, TensorFlow's own matrix products are faster than XLA's, while XLA is the better one at
what lies between them. So there the network is traced apart: products stay TensorFlow's, and what
is marked here as a piece becomes a small program of XLA's. Elsewhere a piece is but a function.
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


@contextlib.contextmanager
def apart(*, apart: bool) -> Iterator[None]:
    """What is traced within the block is compiled piece by piece, or not."""
    token = _APART.set(apart)
    try:
        yield
    finally:
        _APART.reset(token)


def are_apart() -> bool:
    """Returns whether what is traced now is compiled piece by piece."""
    return _APART.get()


def compiled(function: Function) -> Function:
    """Makes a piece of a function of tensors whose gradient nobody asks for."""
    program = tf.function(function, jit_compile=True, autograph=False)

    @functools.wraps(function)
    def run(*tensors: Any) -> Any:
        return program(*tensors) if _APART.get() else function(*tensors)

    return run


def piece(function: Function) -> Function:
    """Makes a piece of a function of tensors, which is computed once more on the way back."""
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

    What the gradient needs of it is computed again on the way back: it is meant for cheap pieces
    before a product, which itself is not needed again, and so not done.
    """
    if not _APART.get():
        return function(x, weights)

    def of_tensors(x: Any, *tensors: Any) -> Any:
        return function(x, dict(zip(weights, tensors, strict=True)))

    def kept(*tensors: Any) -> tuple[Any, Function]:
        def gradient(upstream: Any) -> Any:
            return _gradients(of_tensors, upstream, *later(tensors, upstream))

        return of_tensors(*tensors), gradient

    return tf.custom_gradient(kept)(x, *map(tf.convert_to_tensor, weights.values()))


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
