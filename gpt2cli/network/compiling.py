"""How a network is computed: compiled by XLA whole, by blocks or in pieces, or without it."""

from __future__ import annotations

import enum
from collections.abc import Callable

import tensorflow as tf

from gpt2cli.arrays import Tensor
from gpt2cli.errors import shortened
from gpt2cli.hparams import WIDE
from gpt2cli.network import xla_clusters
from gpt2cli.runtime import devices

# What TensorFlow raises if XLA does not know an operation, or lacks a piece of itself.
COMPILE_ERRORS = (
    tf.errors.InvalidArgumentError,
    tf.errors.UnimplementedError,
    tf.errors.InternalError,
    tf.errors.NotFoundError,
    tf.errors.FailedPreconditionError,
    tf.errors.OutOfRangeError,
)
# The disk on which XLA keeps what it has compiled may be full.
CACHE_NAME = "xla_compile_cache"
REASON_CHARACTERS = 200


class CompileMode(enum.Enum):
    """How a network is computed."""

    FULL = "one XLA program"
    BLOCKS = "each block one XLA program, what is around them as in PARTIAL"
    PARTIAL = "products by TensorFlow, what is between them by XLA"
    OFF = "without XLA"


def best_compile_mode(*, xla: bool, width: int) -> CompileMode:
    """Returns how the device in force computes a network of a width fastest, with XLA or not."""
    if not xla:
        return CompileMode.OFF
    return CompileMode.PARTIAL if devices.has_gpu() or width >= WIDE else CompileMode.FULL


def xla_failure() -> str:
    """Compiles a small program for the device in force; returns why XLA cannot, or nothing.

    On a GPU it needs ptxas and libdevice, which are parts of CUDA's compiler.
    """
    try:
        tf.function(tf.tanh, jit_compile=True, autograph=False)(tf.ones([2])).numpy()
    except tf.errors.OpError as error:
        return error_summary(error)
    return ""


def error_summary(error: tf.errors.OpError) -> str:
    """Returns the line of a TensorFlow error that says what is wrong, shortened.

    The lines above it say where in the graph it happened, and those below say it again.
    """
    lines = [line.strip() for line in str(error.message).splitlines()]
    said = [line for line in lines if line and not line.startswith(("File ", "[["))]
    return shortened(said[-1], REASON_CHARACTERS) if said else type(error).__name__


def compile_function(
    function: Callable[..., Tensor], mode: CompileMode, *, gpu: bool | None = None
) -> Callable[..., Tensor]:
    """Returns a TensorFlow function that computes what a Python function of tensors does.

    Its clusters suit a GPU, or a CPU; None: the device in force.
    """
    gpu = devices.has_gpu() if gpu is None else gpu

    def traced(*arguments: Tensor) -> Tensor:
        """Computes what the function does, in clusters if the mode has them."""
        parts = mode in (CompileMode.BLOCKS, CompileMode.PARTIAL)
        with xla_clusters.clustering(enabled=parts, gpu=gpu):
            return function(*arguments)

    compiled: Callable[..., Tensor] = tf.function(
        traced, jit_compile=mode is CompileMode.FULL, autograph=False
    )
    return compiled


def compile_block(
    function: Callable[..., Tensor], mode: CompileMode, *, gpu: bool
) -> Callable[..., Tensor]:
    """Returns what `compile_function` does, of a function that computes one block of the network.

    A mode of BLOCKS makes one program of it.
    """
    part = xla_clusters.program(function) if mode is CompileMode.BLOCKS else function
    return compile_function(part, mode, gpu=gpu)


def traced_once(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Returns what a TensorFlow function computes of tensors whose shapes never change.

    It does not look for the trace that suits them: two such searches were a fifth of the time that
    the host takes for a token.
    """
    traces: list[Callable[..., Tensor]] = []

    def run(*tensors: Tensor) -> Tensor:
        """Traces the function the first time, and calls the trace."""
        if not traces:
            traces.append(function.get_concrete_function(*tensors))  # type: ignore[attr-defined]
        return traces[0](*tensors)

    return run


class Compiler:
    """Compiles graphs by XLA, if `xla`; gives it up for all of them once it has failed for one."""

    def __init__(self, *, xla: bool, mode: CompileMode = CompileMode.FULL) -> None:
        self.xla, self._mode = xla, mode
        self._remarks: list[str] = []

    def __call__(
        self, graph: Callable[..., Tensor], *, steady: bool = False
    ) -> Callable[..., Tensor]:
        """Returns a function that computes what the graph does, faster.

        While it is traced, `xla` tells the graph how it is to be compiled. If `steady`, the shapes
        of its tensors never change.
        """
        fast, plain = compile_function(graph, self._mode), compile_function(graph, CompileMode.OFF)
        fast = traced_once(fast) if steady else fast

        def run(*arguments: Tensor) -> Tensor:
            """Computes compiled, or without if that fails."""
            if self.xla:
                try:
                    return fast(*arguments)
                except tf.errors.OpError as error:
                    if not (isinstance(error, COMPILE_ERRORS) or CACHE_NAME in error.message):
                        raise
                    why = error_summary(error)
                    self._remarks.append(f"XLA cannot compile this ({why}); going on without it.")
                    self.xla = False
            return plain(*arguments)

        return run

    def pop_warnings(self) -> list[str]:
        """Returns a line for each thing that went otherwise than asked, the first time."""
        remarks, self._remarks = self._remarks, []
        return remarks
