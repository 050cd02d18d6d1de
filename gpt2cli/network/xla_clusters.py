"""XLA clusters: parts of a network that XLA compiles one by one, keeping only their inputs.

Products of matrices are left to TensorFlow: on a CPU its own (oneDNN) are faster than XLA's, and on
a GPU they are cuBLAS's (XLA would compile hundreds of variants of each to choose among them). What
stands between products and is marked as a cluster here becomes a small XLA program, compiled once
for all layers. Outside of `clustering` a cluster is a plain function; within a larger program that
XLA compiles (`program`) it is a part of that.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any

import tensorflow as tf

from gpt2cli.arrays import Tensor, Weights

Function = Callable[..., Any]

# The device whose clusters are compiled in what is traced now: cpu or gpu; empty: none are.
_DEVICE: ContextVar[str] = ContextVar("device", default="")
# Whether what is traced now becomes one XLA program, clusters and all.
_WHOLE: ContextVar[bool] = ContextVar("whole", default=False)
# What a function keeps of itself, as it comes; and what is left of that when it runs again.
_KEPT: ContextVar[list[list[Tensor]] | None] = ContextVar("kept", default=None)
_REPLAYED: ContextVar[Iterator[list[Tensor]] | None] = ContextVar("replayed", default=None)


@contextlib.contextmanager
def clustering(*, enabled: bool, gpu: bool = False) -> Iterator[None]:
    """Compiles the clusters of what is traced within the block one by one, if enabled.

    On a GPU, whose clusters differ, launches cost what memory costs on a CPU.
    """
    token = _DEVICE.set("" if not enabled else "gpu" if gpu else "cpu")
    try:
        yield
    finally:
        _DEVICE.reset(token)


def is_clustering(device: str = "") -> bool:
    """Returns whether what is traced now is compiled by clusters: for cpu, gpu, or any device."""
    return _DEVICE.get() == device if device else bool(_DEVICE.get())


def is_program() -> bool:
    """Returns whether what is traced now is a part of what `program` makes."""
    return _WHOLE.get()


def program(function: Function) -> Function:
    """Makes one XLA program of a function of tensors, with its products and its clusters."""

    def traced(*tensors: Tensor) -> Tensor:
        """Calls the function with its clusters left to the program."""
        token = _WHOLE.set(True)
        try:
            return function(*tensors)
        finally:
            _WHOLE.reset(token)

    made: Function = tf.function(traced, jit_compile=True, autograph=False)
    return made


def cluster(function: Function) -> Function:
    """Makes a cluster of a function of tensors; it has no gradient."""

    def alone(*tensors: Tensor) -> Tensor:
        """Calls the function without clusters in it."""
        with clustering(enabled=False):
            return function(*tensors)

    compiled = tf.function(alone, jit_compile=True, autograph=False)

    @functools.wraps(function)
    def run(*tensors: Tensor) -> Tensor:
        """Calls the function as a cluster, if there are any here."""
        if not is_clustering():
            return function(*tensors)
        return alone(*tensors) if is_program() else compiled(*tensors)

    return run


@contextlib.contextmanager
def keeping() -> Iterator[list[list[Tensor]]]:
    """Yields a list that receives what `keep` computes within the block."""
    kept: list[list[Tensor]] = []
    token = _KEPT.set(kept)
    try:
        yield kept
    finally:
        _KEPT.reset(token)


@contextlib.contextmanager
def replaying(kept: list[list[Tensor]]) -> Iterator[None]:
    """Makes `keep` return what it did the first time, as far as that was kept."""
    token = _REPLAYED.set(iter(kept) if kept else None)
    try:
        yield
    finally:
        _REPLAYED.reset(token)


def keep(function: Callable[[], list[Tensor]]) -> list[Tensor]:
    """Returns what a function computes, or within `replaying` what it computed before.

    The latter has no gradient.
    """
    replayed, kept = _REPLAYED.get(), _KEPT.get()
    found = next(replayed, None) if replayed is not None else None
    if found is None:
        found = function()
        if kept is not None:
            kept.append(found)
    return found


def product(left: Tensor, right: Tensor) -> Tensor:
    """Returns the product of two matrices, which `keeping` keeps."""

    def computed(left: Tensor, right: Tensor) -> tuple[Tensor, Function]:
        """Returns the product, and what gives its gradients."""
        (found,) = keep(lambda: [tf.matmul(left, right)])

        def gradients(upstream: Tensor) -> list[Tensor]:
            """Returns those of both matrices."""
            return [
                tf.matmul(upstream, right, transpose_b=True),
                tf.matmul(left, upstream, transpose_a=True),
            ]

        return found, gradients

    if _REPLAYED.get() is None:
        return keep(lambda: [tf.matmul(left, right)])[0]
    return custom_gradient(computed, left, right)


def custom_gradient(function: Function, *tensors: Tensor) -> Tensor:
    """Returns what a function of tensors does, which also returns the function of its gradients.

    The gradients may be traced later and elsewhere: their clusters are as those of the function.
    """

    def kept(*tensors: Tensor) -> tuple[Any, Function]:
        """Calls the function, and keeps its context for the gradients."""
        found, gradient = function(*tensors)
        here = contextvars.copy_context()
        return found, lambda *upstream: here.run(gradient, *upstream)

    return tf.custom_gradient(kept)(*tensors)


def recomputed_cluster(function: Function) -> Function:
    """Makes a cluster of a function of tensors; the backward pass recomputes it."""
    forward = cluster(function)
    backward = cluster(functools.partial(_gradients, function))

    @functools.wraps(function)
    def run(*tensors: Tensor) -> Tensor:
        """Calls the function as a cluster, if there are any here."""
        return _computed(forward, backward, tensors) if is_clustering() else function(*tensors)

    return run


def _computed(forward: Function, backward: Function, tensors: Iterable[Tensor]) -> Tensor:
    """Returns forward(*tensors), whose gradients are backward(upstream, *tensors)."""

    def kept(*tensors: Tensor) -> tuple[Any, Function]:
        """Returns what forward does, and what calls backward."""
        return forward(*tensors), lambda upstream: backward(upstream, *tensors)

    return custom_gradient(kept, *map(tf.convert_to_tensor, tensors))


def recompute(function: Function, x: Tensor, weights: Weights) -> Tensor:
    """Returns function(x, weights), and keeps only x and the weights for the backward pass.

    Gradient checkpointing for cheap clusters before a product: the backward pass recomputes the
    clusters, but not the product, whose result no gradient needs. On a GPU everything is kept.
    """
    if not is_clustering("cpu"):
        return function(x, weights)

    def of_tensors(x: Tensor, *tensors: Tensor) -> Tensor:
        """Calls the function with its weights by name again."""
        return function(x, dict(zip(weights, tensors, strict=True)))

    def backward(upstream: Tensor, *tensors: Tensor) -> Tensor:
        """Computes the function again, and its gradients."""
        return _gradients(of_tensors, upstream, *with_dependencies(tensors, upstream))

    return _computed(of_tensors, backward, [x, *weights.values()])


def add_bias(product: Tensor, bias: Tensor, *residual: Tensor) -> Tensor:
    """Returns a product (batch, time, width), with a float32 bias (width,) added to each row.

    A residual is added too, if it is given; it has the product's shape.
    """

    def backward(upstream: Tensor, *_given: Tensor) -> list[Tensor]:
        """Returns the gradients of the product, the bias and what else was added."""
        # Not a cluster: XLA would copy the upstream.
        return [upstream, _column_sums(upstream), *(upstream for _ in residual)]

    return _computed(_sum, backward, [product, bias, *residual])


@cluster
def _sum(product: Tensor, *others: Tensor) -> Tensor:
    first, *rest = (tf.cast(x, tf.float32) for x in (product, *others))
    return tf.cast(sum(rest, first), product.dtype)


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
