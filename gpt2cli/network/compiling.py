"""Functions compiled by XLA, or run without it where XLA cannot compile them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

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


class Compiler:
    """Compiles graphs, and gives up XLA for all of them once it has failed for one.

    Attributes:
        xla: whether XLA is in use.
    """

    def __init__(self, *, xla: bool) -> None:
        self.xla = xla
        self._remarks: list[str] = []

    def __call__(self, graph: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a function that computes what the graph does, faster.

        While it is traced, `xla` tells the graph how it is to be compiled.
        """
        compiled = {
            xla: tf.function(graph, jit_compile=xla, autograph=False) for xla in (True, False)
        }

        def run(*arguments: Any) -> Any:
            try:
                return compiled[self.xla](*arguments)
            except tf.errors.OpError as error:
                if not self.xla or not (isinstance(error, UNCOMPILED) or KEPT in error.message):
                    raise
                reason = str(error.message).strip().split("\n")[0][:200]
                self._remarks.append(f"XLA cannot compile this ({reason}); going on without it.")
                self.xla = False
                return compiled[False](*arguments)

        return run

    def told(self) -> list[str]:
        """Returns a line for each thing that went otherwise than asked, the first time."""
        remarks, self._remarks = self._remarks, []
        return remarks
