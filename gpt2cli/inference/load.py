"""Which engine computes: Numba's on a CPU, else TensorFlow's; and a checkpoint's weights in it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from gpt2cli.hparams import HParams
from gpt2cli.inference.engine import Engine
from gpt2cli.runtime import numba
from gpt2cli.runtime.hardware import may_have_gpu
from gpt2cli.runtime.signals import signals_blocked


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineParams:
    """On what an engine computes, and in which precision.

    Attributes:
        device: auto, cpu or gpu.
        precision: auto, or what matrices are stored in.
        gpu_bytes: the most memory of a GPU to take; None: all.
        xla: whether XLA compiles TensorFlow's graphs.
    """

    device: str = "auto"
    precision: str = "auto"
    gpu_bytes: int | None = None
    xla: bool = True

    @property
    def needs_tensorflow(self) -> bool:
        """Whether TensorFlow computes: on a GPU, and on a CPU without Numba."""
        on_cpu = self.device == "cpu" or (self.device == "auto" and not may_have_gpu())
        return not on_cpu or not numba.is_available()


def load_engine(prefix: Path, hparams: HParams, *, params: EngineParams) -> Engine:
    """Returns an engine with a checkpoint's weights; raises BadDataError if they are damaged."""
    if params.needs_tensorflow:
        return load_on_tensorflow(prefix, hparams, params)
    precision = "float32" if params.precision == "auto" else params.precision
    with signals_blocked():
        from gpt2cli.inference.cpu import ops
        from gpt2cli.inference.cpu.engine import CPUEngine
        from gpt2cli.storage import checkpoint

        ops.prepare(precision)
    return CPUEngine(checkpoint.load(prefix, hparams.shapes()), hparams, precision)


def load_on_tensorflow(prefix: Path, hparams: HParams, params: EngineParams) -> Engine:
    """Returns TensorFlow's engine; see `load_engine`."""
    from gpt2cli.inference.tensorflow_engine import TensorFlowEngine
    from gpt2cli.network import low_precision
    from gpt2cli.runtime import devices
    from gpt2cli.storage import checkpoint

    devices.configure(params.device, params.gpu_bytes, params.precision)
    precision = devices.resolve_precision(params.precision)
    weights = low_precision.cast_weights(checkpoint.load(prefix, hparams.shapes()), precision)
    return TensorFlowEngine(weights, hparams, xla=params.xla)
