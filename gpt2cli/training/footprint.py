"""The memory that a run is expected to take, and the options with which it takes less."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from gpt2cli.config.finetune import BatchOptions, MemoryOptions, OptimizerOptions
from gpt2cli.hparams import WIDE, HParams
from gpt2cli.runtime import hardware
from gpt2cli.text.batches import LEAST

FLOAT_BYTES = 4
# TensorFlow itself and the programs that XLA makes (bytes).
PROGRAM_BYTES = 900_000_000
# Rows of logits held at once, with and without gradient checkpointing, and in how many copies
# (network/loss.py).
LOGIT_ROWS, MORE_LOGIT_ROWS, LOGIT_COPIES = 256, 1024, 2
# What a block keeps for its backward pass, fitted to measured runs: hidden states of the width of
# the embedding for each position, and scores for each pair of positions, of which causality leaves
# half.
# The XLA clusters of a CPU (xla_clusters.py) keep less, and most of it for only one block;
# what positions attend to is kept for all, unless gradient checkpointing recomputes it.
KEPT_STATES, KEPT_SCORES = 22, 1.2
PARTIAL_STATES, PARTIAL_SCORES, PARTIAL_SHARES = 11, 2.0, 0.6
# On a GPU, reckoned from what the graph keeps and not yet measured on a card. Numbers that a block
# keeps for each position, in the type that is computed in: inputs and results of both norms,
# c_attn's product, what attention gives, c_fc's product, what GELU makes of it, and the two that
# are added to x. If attention is not cuDNN's, heads laid out anew and probabilities too. CUDA's
# context and cuBLAS's room to work in are taken beside TensorFlow.
GPU_STATES, GPU_HEADS, GPU_SHARES = 18, 10, 0.6
GPU_PROGRAM_BYTES, GPU_LOGIT_ROWS, GPU_MORE_LOGIT_ROWS = 1_000_000_000, 1024, 4096
SLOTS = {"adam": 2.0, "adamw": 2.0, "adafactor": 0.01, "sgd": 0.0}
SMALL_RANK = 8
# Compute capabilities: the first with fast float16, and the first with cuDNN's attention.
VOLTA, AMPERE = (7, 0), (8, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Footprint:
    """What a run's memory depends on.

    Attributes:
        hparams: the model's shape.
        window: tokens that an example predicts.
        batch_size: windows in a micro-batch.
        accumulate: micro-batches in a step.
        optimizer: its name.
        recompute: gradient checkpointing.
        blocks_only: whether embeddings and the last norm stay as they are.
        rank: of the adapters that are trained; 0: none.
        low_precision: whether weights that are not trained are held in 16 bits.
        partial: whether XLA compiles in the mode PARTIAL.
        gpu: whether on a GPU.
        is_float32: whether it is computed in float32.
        fused: whether attention is cuDNN's.
        devices: how many train together.
        waits: whether no weight changes before all gradients of a step are known.
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
        shapes = self.hparams.shapes().items()
        return sum(
            math.prod(s) for n, s in shapes if not self.blocks_only or n.startswith("model/h")
        )

    @property
    def gathers(self) -> bool:
        """Whether all gradients of a micro-batch are held together (training/step.py)."""
        return not self.recompute or self.devices > 1 or (self.waits and self.accumulate == 1)

    def expected(self) -> float:
        """Returns the memory that the run takes at most (bytes), within about a fifth."""
        program = GPU_PROGRAM_BYTES if self.gpu else PROGRAM_BYTES
        activations = self._activations_on_gpu() if self.gpu else self._activations()
        return program + self._held() + max(activations, self._update())

    def _held(self) -> float:
        """The weights and what the optimiser and accumulation keep of them (bytes)."""
        copies = SLOTS[self.optimizer] + (1 if self.accumulate > 1 else 0)
        weights = self.hparams.count() * (2 if self.rank and self.low_precision else FLOAT_BYTES)
        adapters = self.trained if self.rank else 0
        return weights + FLOAT_BYTES * (adapters + copies * self.trained)

    def _activations(self) -> float:
        """What the way forward and back holds at its widest (bytes)."""
        shape, rows = self.hparams, self.batch_size * self.window
        at_once = LOGIT_ROWS if self.recompute else MORE_LOGIT_ROWS
        logits = LOGIT_COPIES * min(rows, at_once) * shape.n_vocab
        embeddings = shape.n_vocab * shape.n_embd * (1 if self.rank else 2)
        gradients = self.trained / 2 if self.gathers else 0
        return FLOAT_BYTES * (logits + embeddings + self._blocks(rows) + gradients)

    def _activations_on_gpu(self) -> float:
        """What the way forward and back holds at its widest on a GPU (bytes)."""
        shape, rows = self.hparams, self.batch_size * self.window
        width = FLOAT_BYTES if self.is_float32 else FLOAT_BYTES // 2
        at_once = GPU_LOGIT_ROWS if self.recompute else GPU_MORE_LOGIT_ROWS
        embeddings, states = shape.n_vocab * shape.n_embd, rows * shape.n_embd
        kept = float(GPU_STATES * states)
        if not self.fused:
            scores = rows * self.window * shape.n_head
            kept += GPU_HEADS * states + GPU_SHARES * scores
        # Matrices are copied to the type that is computed in: all at once, or one block's.
        matrices = 0 if self.is_float32 else 12 * shape.n_embd**2
        layers = shape.n_layer
        blocks = layers * states + kept + matrices if self.recompute else layers * (kept + matrices)
        logits = LOGIT_COPIES * min(rows, at_once) * shape.n_vocab
        gradients = self.trained / 2 if self.gathers else 0
        computed = logits + blocks + (0 if self.is_float32 else embeddings)
        return width * computed + FLOAT_BYTES * ((1 if self.rank else 2) * embeddings + gradients)

    def _blocks(self, rows: int) -> float:
        """What all blocks keep for the backward pass over `rows` positions (numbers)."""
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
        """What the gradients take, and a copy of the largest one (bytes)."""
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
    gpus = [] if compute.device == "cpu" else hardware.visible_gpus()
    devices = machines * sharers(compute, batch.batch_size)
    capability, precision = gpus[0].capability if gpus else None, compute.precision
    is_old = capability is not None and capability < VOLTA
    is_float32 = precision == "float32" or (precision == "auto" and is_old)
    return Footprint(
        hparams=hparams,
        window=batch.window or hparams.n_ctx,
        batch_size=-(-batch.batch_size // devices),
        accumulate=batch.accumulate_gradients,
        optimizer=optimizer.optimizer,
        recompute=compute.use_memory_saving_gradients,
        blocks_only=compute.only_train_transformer_layers,
        rank=rank,
        low_precision=precision != "float32",
        partial=compute.xla and (hparams.n_embd >= WIDE or bool(gpus)),
        devices=devices,
        waits=optimizer.clip_norm > 0 or precision == "float16",
        gpu=bool(gpus),
        is_float32=is_float32,
        fused=not is_float32 and (capability or (0, 0)) >= AMPERE and compute.xla,
    )


def sharers(compute: MemoryOptions, batch_size: int) -> int:
    """Returns how many GPUs of this machine share what it takes of a micro-batch."""
    if not compute.is_shared or compute.device == "cpu":
        return 1
    return max(1, min(len(hardware.visible_gpus()), batch_size))


def leaner(run: Footprint) -> Iterator[tuple[str, Footprint]]:
    """Yields options that make a run smaller, and the run with them; each adds to those before."""
    if run.batch_size > 1:
        run = dataclasses.replace(run, batch_size=1)
        yield "--batch-size 1", run
    if not run.recompute:
        run = dataclasses.replace(run, recompute=True)
        yield "--use-memory-saving-gradients", run
    if not run.rank and run.optimizer in ("adam", "adamw"):
        run = dataclasses.replace(run, optimizer="adafactor")
        yield "--optimizer adafactor", run
    if not run.rank:
        run = dataclasses.replace(run, rank=SMALL_RANK, low_precision=True)
        yield f"--lora-rank {SMALL_RANK}", run
    if run.window // 2 >= LEAST:
        run = dataclasses.replace(run, window=run.window // 2)
        yield f"--window {run.window}", run
