"""How a network is computed: compiled by XLA whole or in pieces, or without it."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from gpt2cli.errors import shortened
from gpt2cli.hparams import WIDE
from gpt2cli.network import pieces

# What TensorFlow raises where XLA knows an operation not, or lacks a piece of itself.
UNCOMPILED = (
    tf.errors.InvalidArgumentError,
    tf.errors.UnimplementedError,
    tf.errors.InternalError,
    tf.errors.NotFoundError,
    tf.errors.FailedPreconditionError,
    tf.errors.OutOfRangeError,
)
# The disk may be full where XLA keeps what it has compiled.
KEPT = "xla_compile_cache"


class Way(enum.Enum):
    """How a network is computed."""

    WHOLE = "one program of XLA's"
    PIECES = "products by TensorFlow, what lies between them by XLA"
    PLAIN = "without XLA"


def fastest(*, xla: bool, width: int) -> Way:
    """Returns how the device in force computes a network of a width fastest, with XLA or not."""
    if not xla:
        return Way.PLAIN
    whole = width < WIDE or tf.config.get_visible_devices("GPU")
    return Way.WHOLE if whole else Way.PIECES


def program(function: Callable[..., Any], way: Way) -> Any:
    """Returns a TensorFlow function that computes what a Python function of tensors does."""

    def traced(*arguments: Any) -> Any:
        with pieces.apart(apart=way is Way.PIECES):
            return function(*arguments)

    return tf.function(traced, jit_compile=way is Way.WHOLE, autograph=False)


class Compiler:
    """Compiles graphs, and gives up XLA for all of them once it has failed for one.

    Attributes:
        xla: whether XLA is in use.
    """

    def __init__(self, *, xla: bool, way: Way = Way.WHOLE) -> None:
        """Takes whether to use XLA, and how if so."""
        self.xla = xla
        self._way = way
        self._remarks: list[str] = []

    def __call__(self, graph: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a function that computes what the graph does, faster.

        While it is traced, `xla` tells the graph how it is to be compiled.
        """
        compiled = {True: program(graph, self._way), False: program(graph, Way.PLAIN)}

        def run(*arguments: Any) -> Any:
            try:
                return compiled[self.xla](*arguments)
            except tf.errors.OpError as error:
                if not self.xla or not (isinstance(error, UNCOMPILED) or KEPT in error.message):
                    raise
                reason = shortened(str(error.message).strip().split("\n")[0], 200)
                self._remarks.append(f"XLA cannot compile this ({reason}); going on without it.")
                self.xla = False
                return compiled[False](*arguments)

        return run

    def told(self) -> list[str]:
        """Returns a line for each thing that went otherwise than asked, the first time."""
        remarks, self._remarks = self._remarks, []
        return remarks
