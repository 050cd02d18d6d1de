"""How a network is trained, and what computes it: compile mode, device, attention kernel."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from gpt2cli.hparams import HParams
from gpt2cli.network import attention, compiling, fused_attention, loss
from gpt2cli.network.compiling import CompileMode
from gpt2cli.runtime import devices


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backend:
    """What computes a network in training.

    Attributes:
        gpu: whether its XLA clusters are those that suit a GPU.
        fused: whether cuDNN computes attention.
        reason: why, for the user; empty if there was nothing to choose.
    """

    mode: CompileMode = CompileMode.FULL
    gpu: bool = False
    fused: bool = False
    reason: str = ""

    def attention(self, *, recompute: bool) -> attention.Attend:
        """Returns the attention function; with `recompute` it keeps no probabilities."""
        if self.fused:
            return fused_attention.causal
        return attention.recomputed_causal if recompute else attention.causal

    def loss_rows(self, *, recompute: bool) -> int:
        """Returns for how many positions logits are in memory at a time."""
        usual, few = loss.GPU_BLOCK_ROWS if self.gpu else loss.CPU_BLOCK_ROWS
        return few if recompute else usual


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a network is trained, apart from data and learning rate.

    Attributes:
        accumulate: micro-batches in a step.
        clip_norm: largest global norm of a step's gradient (0: no limit).
        weight_decay: share of each matrix that decays at a learning rate of 1.
        dropout: share of activations to drop (0 to 1).
        precision: float32, bfloat16 or float16: the type of matrix products.
        recompute: gradient checkpointing.
        blocks_only: whether embeddings and the last norm stay frozen.
    """

    optimizer: str = "adam"
    accumulate: int = 1
    clip_norm: float = 0.0
    weight_decay: float = 0.0
    dropout: float = 0.0
    precision: str = "float32"
    recompute: bool = False
    blocks_only: bool = False
    backend: Backend = Backend()


def choose_backend(
    hparams: HParams, precision: str, *, xla: bool, batch: int, window: int
) -> Backend:
    """Returns the fastest backend on the device in use; a GPU runs a trial first.

    The batch is that of the device, in windows.
    """
    mode = compiling.best_compile_mode(xla=xla, width=hparams.n_embd)
    if not devices.has_gpu():
        return Backend(mode=mode)
    if not xla:
        return Backend(mode=mode, gpu=True, reason="without XLA, as asked")
    if failure := compiling.xla_failure():
        reason = f"without XLA, which fails here: {failure}"
        return Backend(mode=CompileMode.OFF, gpu=True, reason=reason)
    head = hparams.n_embd // hparams.n_head
    dtype = tf.as_dtype(precision)
    refusal = fused_attention.unsupported_reason(dtype, head, devices.capability())
    refusal = refusal or fused_attention.check_kernels((batch, window, hparams.n_head, head), dtype)
    how = f"in pieces by XLA (not by cuDNN: {refusal})" if refusal else "by cuDNN"
    reason = f"products by cuBLAS, attention {how}"
    return Backend(mode=CompileMode.BLOCKS, gpu=True, fused=not refusal, reason=reason)
