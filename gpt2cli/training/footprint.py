"""The memory that a run is expected to take, and the options with which it takes less."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gpt2cli.hparams import WIDE, HParams
from gpt2cli.runtime import hardware
from gpt2cli.runtime.hardware import Gpu
from gpt2cli.text.batches import LEAST

if TYPE_CHECKING:
    from gpt2cli.config.finetune import BatchOptions, MemoryOptions, OptimizerOptions

FLOAT_BYTES = 4
# TensorFlow itself and the programs that XLA makes (bytes).
PROGRAM_BYTES = 900_000_000
# Rows of logits held at once on a CPU and on a GPU, with and without gradient checkpointing, and in
# how many copies (network/loss.py).
LOGIT_ROWS, MORE_LOGIT_ROWS, LOGIT_COPIES = (256, 1024), (1024, 4096), 2
# What a block keeps for its backward pass, fitted to measured runs: hidden states of the width of
# the embedding for each position, and scores for each pair of positions, of which causality leaves
# half.
# The XLA clusters of a CPU (xla_clusters.py) keep less, and most of it for only one block;
# what positions attend to is kept for all, unless gradient checkpointing recomputes it.
KEPT_STATES, KEPT_SCORES = 22, 1.2
PARTIAL_STATES, PARTIAL_SCORES, PARTIAL_SHARES = 11, 2.0, 0.6
# On a GPU. Numbers of a position, in the type that is computed in, that a block holds while it is
# computed: inputs and results of both norms, c_attn's product, what attention gives, c_fc's
# product, what GELU makes of it, and the two that are added to x; if attention is not cuDNN's,
# heads laid out anew and probabilities too. Of these its input, three products, what attention
# gives and the probabilities are kept for the backward pass; without XLA all are. CUDA's context
# and cuBLAS's room to work in are taken beside TensorFlow. (Measured on an H100 beside CUDA's own,
# and reckoned: 124M, 8 x 1024, all kept, 5.45 and 5.8 GB; memory-saving, Adafactor, 1 x 1024, 774M
# 4.06 and 4.16 GB, 1558M 7.52 and 7.58 GB.)
GPU_STATES, GPU_HEADS, GPU_SHARES, GPU_KEPT_STATES = 18, 10, 0.6, 10
GPU_PROGRAM_BYTES = 1_000_000_000
SLOTS = {"adam": 2.0, "adamw": 2.0, "adafactor": 0.01, "sgd": 0.0}
SMALL_RANK = 8
# Compute capabilities: the first with fast float16, and the first with cuDNN's attention.
VOLTA, AMPERE = (7, 0), (8, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Footprint:
    """What a run's memory depends on.

    Attributes:
        window: tokens that an example predicts.
        batch_size: windows in a micro-batch.
        accumulate: micro-batches in a step.
        recompute: gradient checkpointing.
        blocks_only: whether embeddings and the last norm stay as they are.
        rank: of the adapters that are trained; 0: none.
        low_precision: whether weights that are not trained are held in 16 bits.
        partial: whether XLA compiles by blocks or in parts (modes BLOCKS and PARTIAL).
        devices: how many train together.
        waits: whether no weight changes before all gradients of a step are known.
        is_float32: whether it is computed in float32.
        fused: whether attention is cuDNN's.
    """

    hparams: HParams
    window: int
    batch_size: int
    accumulate: int
    optimizer: str
    recompute: bool
    blocks_only: bool
    rank: int
    low_precision: bool
    partial: bool
    devices: int
    waits: bool
    gpu: bool = False
    is_float32: bool = True
    fused: bool = False

    @property
    def trained(self) -> int:
        """How many weights are trained."""
        if self.rank:
            return sum(map(math.prod, self.hparams.lora_shapes(self.rank).values())) - 1
        trained = "model/h" if self.blocks_only else ""
        shapes = self.hparams.shapes().items()
        return sum(math.prod(shape) for name, shape in shapes if name.startswith(trained))

    @property
    def gathers(self) -> bool:
        """Whether all gradients of a micro-batch are held together (training/step.py)."""
        return not self.recompute or self.devices > 1 or (self.waits and self.accumulate == 1)

    def expected(self) -> float:
        """Returns the memory that the run takes at most (bytes), within about a fifth."""
        program = GPU_PROGRAM_BYTES if self.gpu else PROGRAM_BYTES
        return program + self._held() + max(self._activations(), self._update())

    def _held(self) -> float:
        """Returns the weights and what the optimiser and accumulation keep of them (bytes)."""
        copies = SLOTS[self.optimizer] + (1 if self.accumulate > 1 else 0)
        weights = self.hparams.count() * (2 if self.rank and self.low_precision else FLOAT_BYTES)
        adapters = self.trained if self.rank else 0
        return weights + FLOAT_BYTES * (adapters + copies * self.trained)

    def _activations(self) -> float:
        """Returns what the way forward and back holds at its widest (bytes)."""
        shape, rows = self.hparams, self.batch_size * self.window
        at_once = LOGIT_ROWS if self.recompute else MORE_LOGIT_ROWS
        logits = LOGIT_COPIES * min(rows, at_once[self.gpu]) * shape.n_vocab
        embeddings = shape.n_vocab * shape.n_embd
        blocks = self._blocks_on_gpu(rows) if self.gpu else self._blocks(rows)
        gradients = self.trained / 2 if self.gathers else 0
        wide = FLOAT_BYTES * ((1 if self.rank else 2) * embeddings + gradients)
        if self.gpu and not self.is_float32:
            return FLOAT_BYTES // 2 * (logits + blocks + embeddings) + wide
        return FLOAT_BYTES * (logits + blocks) + wide

    def _blocks_on_gpu(self, rows: int) -> float:
        """Returns what all blocks keep on a GPU for the backward pass (numbers)."""
        shape, states = self.hparams, rows * self.hparams.n_embd
        shares = 0 if self.fused else GPU_SHARES * (rows * self.window * shape.n_head)
        heads = 0 if self.fused else GPU_HEADS
        # Matrices are copied to the type that is computed in.
        matrices = 0 if self.is_float32 else 12 * shape.n_embd**2
        block = (GPU_STATES + heads) * states + shares + matrices
        if self.recompute:
            return shape.n_layer * states + block
        if self.partial:
            return shape.n_layer * (GPU_KEPT_STATES * states + shares) + block
        return shape.n_layer * block

    def _blocks(self, rows: int) -> float:
        """Returns what all blocks keep on a CPU for the backward pass (numbers)."""
        shape = self.hparams
        states, scores = rows * shape.n_embd, rows * self.window * shape.n_head
        kept, once = KEPT_STATES * states + KEPT_SCORES * scores, 0.0
        if self.partial:
            kept, once = PARTIAL_STATES * states, PARTIAL_SCORES * scores
        elif self.rank and self.low_precision:
            # XLA keeps the float32 form of cast matrices from the forward to the backward pass.
            kept += 12 * shape.n_embd**2
        if self.recompute:
            return shape.n_layer * states + kept + once
        shares = PARTIAL_SHARES * scores if self.partial else 0
        return shape.n_layer * (kept + shares) + once

    def _update(self) -> float:
        """Returns what the gradients take, and a copy of the largest one (bytes)."""
        largest = 0 if self.rank else self.hparams.n_vocab * self.hparams.n_embd
        return FLOAT_BYTES * ((self.trained if self.gathers else largest) + largest)


def footprint(
    hparams: HParams,
    rank: int,
    *,
    batch: BatchOptions,
    optimizer: OptimizerOptions,
    compute: MemoryOptions,
    machines: int = 1,
) -> Footprint:
    """Returns what a run takes on each device; the rank is that of its adapters."""
    gpus = gpus_for(compute.device)
    # The GPUs of this machine share what it takes of a micro-batch.
    sharers = max(1, min(len(gpus), batch.batch_size)) if compute.is_shared else 1
    devices = machines * sharers
    capability = gpus[0].capability if gpus else None
    precision: str = compute.precision
    if precision == "auto" and capability is not None:
        # As `devices.resolve_precision` chooses once TensorFlow is loaded.
        newer = "bfloat16" if capability >= AMPERE else "float16"
        precision = newer if capability >= VOLTA else "float32"
    return Footprint(
        hparams=hparams,
        window=batch.window or hparams.n_ctx,
        batch_size=-(-batch.batch_size // devices),
        accumulate=batch.accumulate_gradients,
        optimizer=optimizer.optimizer,
        recompute=compute.use_memory_saving_gradients,
        blocks_only=compute.only_train_transformer_layers,
        rank=rank,
        low_precision=compute.precision != "float32",
        partial=compute.xla and (hparams.n_embd >= WIDE or bool(gpus)),
        devices=devices,
        waits=optimizer.clip_norm > 0 or precision == "float16",
        gpu=bool(gpus),
        is_float32=precision == "float32",
        fused=precision != "float32" and (capability or (0, 0)) >= AMPERE and compute.xla,
    )


def gpus_for(device: str) -> list[Gpu]:
    """Returns the GPUs that a run on a device (auto, cpu or gpu) may use."""
    return [] if device == "cpu" else hardware.visible_gpus()


def leaner(run: Footprint) -> Iterator[tuple[str, Footprint]]:
    """Yields more and more options that make a run smaller, and the run with them."""
    half, in_full = run.window // 2, not run.rank
    adam = in_full and run.optimizer in ("adam", "adamw")
    changes: list[tuple[bool, str, dict[str, Any]]] = [
        (run.batch_size > 1, "--batch-size 1", {"batch_size": 1}),
        (not run.recompute, "--use-memory-saving-gradients", {"recompute": True}),
        (adam, "--optimizer adafactor", {"optimizer": "adafactor"}),
        (in_full, f"--lora-rank {SMALL_RANK}", {"rank": SMALL_RANK, "low_precision": True}),
        (half >= LEAST, f"--window {half}", {"window": half}),
    ]
    options: list[str] = []
    for helps, option, change in changes:
        if helps:
            options.append(option)
            run = dataclasses.replace(run, **change)
            yield " ".join(options), run
