"""How a network in training is computed, and why: the one place that chooses."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from gpt2cli.hparams import HParams
from gpt2cli.network import attention, compiling, fused_attention, loss
from gpt2cli.network.compiling import CompileMode
from gpt2cli.runtime import devices


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """How a network in training is computed.

    Attributes:
        mode: how it is compiled.
        gpu: whether its pieces are those that suit a GPU.
        fused: whether attention is cuDNN's.
        why: the reason, for the user; empty where there was nothing to choose.
    """

    mode: CompileMode = CompileMode.FULL
    gpu: bool = False
    fused: bool = False
    why: str = ""

    def attend(self, *, lean: bool) -> attention.Attend:
        """Returns how positions look at each other; `lean` recomputes probabilities."""
        if self.fused:
            return fused_attention.causal
        return attention.lean_causal if lean else attention.causal

    def loss_rows(self, *, lean: bool) -> int:
        """Returns for how many positions logits are held at once."""
        usual, few = loss.GPU_BLOCK_ROWS if self.gpu else loss.CPU_BLOCK_ROWS
        return few if lean else usual


WHOLE = Method()


def chosen(hparams: HParams, precision: str, *, xla: bool, batch: int, window: int) -> Method:
    """Returns how a network is trained fastest on the device in force, after a trial on a GPU.

    Products are cuBLAS's, and XLA compiles but what lies between them: a program with products in
    it would take minutes, as XLA tries hundreds of variants of each.

    Args:
        hparams: the model's shape.
        precision: the type that matrices are multiplied in.
        xla: whether XLA may compile anything.
        batch: windows that the device computes at once.
        window: tokens that a window predicts.
    """
    mode = compiling.fastest(xla=xla, width=hparams.n_embd)
    if not devices.has_gpu():
        return Method(mode=mode)
    if failure := compiling.failure() if xla else "":
        return Method(
            mode=CompileMode.OFF, gpu=True, why=f"without XLA, which fails here: {failure}"
        )
    if mode is CompileMode.OFF:
        return Method(mode=mode, gpu=True, why="without XLA, as asked")
    head = hparams.n_embd // hparams.n_head
    kind = tf.as_dtype(precision)
    refusal = fused_attention.refusal(kind, head, devices.capability())
    refusal = refusal or fused_attention.trial((batch, window, hparams.n_head, head), kind)
    if refusal:
        why = f"products by cuBLAS, attention in pieces by XLA (not by cuDNN: {refusal})"
        return Method(mode=mode, gpu=True, why=why)
    return Method(mode=mode, gpu=True, fused=True, why="products by cuBLAS, attention by cuDNN")
