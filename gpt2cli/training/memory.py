"""What memory a run is expected to take, what there is, and which options would fit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.config.shared import ComputeOptions
from gpt2cli.errors import Gpt2cliError
from gpt2cli.hparams import WIDE, HParams, element_count
from gpt2cli.runtime import hardware
from gpt2cli.text.batches import LEAST

FLOAT_BYTES = 4
# TensorFlow itself and the programs that XLA makes (bytes).
PROGRAM_BYTES = 900_000_000
# Rows of logits held at once, with and without gradient checkpointing, and in how many copies
# (network/loss.py).
LOGIT_ROWS, MORE_LOGIT_ROWS, LOGIT_COPIES = 256, 1024, 2
# What a block keeps for its way back, fitted to measured runs: hidden states of the embedding's
# width for each position, and scores for each pair of positions, of which causality leaves half.
# The pieces that a CPU computes (xla_clusters.py) keep less, and most of it for only one block;
# what positions attend to is kept for all, unless gradient checkpointing recomputes it.
KEPT_STATES, KEPT_SCORES = 22, 1.2
PIECES_STATES, PIECES_SCORES, PIECES_SHARES = 11, 2.0, 0.6
# On a GPU, reckoned from what the graph keeps and not yet measured on a card. Numbers that a block
# keeps for each position, in the type that is computed in: inputs and results of both norms,
# c_attn's product, what attention gives, c_fc's product, what GELU makes of it, and the two that
# are added to x. If attention is not cuDNN's, heads laid out anew and probabilities too. CUDA's
# context and cuBLAS's room to work in are taken beside TensorFlow.
GPU_STATES, GPU_HEADS, GPU_SHARES = 18, 10, 0.6
GPU_PROGRAM_BYTES, GPU_LOGIT_ROWS, GPU_MORE_LOGIT_ROWS = 1_000_000_000, 1024, 4096
# What the driver keeps for itself of a card that nobody uses (bytes).
GPU_RESERVED = 1_000_000_000
SLOTS = {"adam": 2.0, "adamw": 2.0, "adafactor": 0.01, "sgd": 0.0}
SMALL_RANK = 8
# Compute capabilities: the first with fast float16, and the first with cuDNN's attention.
VOLTA, AMPERE = (7, 0), (8, 0)
# A run that takes no more than this share of another one's memory has a chance to fit.
CLEARLY_LESS = 0.8


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run's memory depends on.

    Attributes:
        hparams: the model's shape.
        window: tokens that an example predicts.
        batch_size: windows in a micro-batch.
        accumulate: micro-batches in a step.
        optimizer: its name.
        recompute: whether blocks are computed twice.
        blocks_only: whether embeddings and the last norm stay as they are.
        rank: of the adapters that are trained; 0: none.
        narrow: whether what is not trained is held in half precision.
        pieces: whether the network is computed in pieces by XLA.
        gpu: whether on a GPU.
        wide: whether it is computed in float32.
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
    narrow: bool
    pieces: bool
    devices: int
    waits: bool
    gpu: bool = False
    wide: bool = True
    fused: bool = False

    @property
    def trained(self) -> int:
        """How many weights are trained."""
        if self.rank:
            return sum(map(element_count, self.hparams.lora_shapes(self.rank).values())) - 1
        shapes = self.hparams.shapes().items()
        return sum(
            element_count(s) for n, s in shapes if not self.blocks_only or n.startswith("model/h")
        )

    @property
    def gathers(self) -> bool:
        """Whether all gradients of a micro-batch are held together (training/step.py)."""
        return not self.recompute or self.devices > 1 or (self.waits and self.accumulate == 1)

    def expected(self) -> float:
        """Returns the memory that the run takes at most (bytes), within about a fifth."""
        program = GPU_PROGRAM_BYTES if self.gpu else PROGRAM_BYTES
        on_the_way = self._on_the_way_on_gpu() if self.gpu else self._on_the_way()
        return program + self._held() + max(on_the_way, self._update())

    def _held(self) -> float:
        """The weights and what the optimiser and accumulation keep of them (bytes)."""
        copies = SLOTS[self.optimizer] + (1 if self.accumulate > 1 else 0)
        weights = self.hparams.count() * (2 if self.rank and self.narrow else FLOAT_BYTES)
        adapters = self.trained if self.rank else 0
        return weights + FLOAT_BYTES * (adapters + copies * self.trained)

    def _on_the_way(self) -> float:
        """What the way forward and back holds at its widest (bytes)."""
        shape, rows = self.hparams, self.batch_size * self.window
        at_once = LOGIT_ROWS if self.recompute else MORE_LOGIT_ROWS
        logits = LOGIT_COPIES * min(rows, at_once) * shape.n_vocab
        embeddings = shape.n_vocab * shape.n_embd * (1 if self.rank else 2)
        gradients = self.trained / 2 if self.gathers else 0
        return FLOAT_BYTES * (logits + embeddings + self._blocks(rows) + gradients)

    def _on_the_way_on_gpu(self) -> float:
        """What the way forward and back holds at its widest on a GPU (bytes)."""
        shape, rows = self.hparams, self.batch_size * self.window
        width = FLOAT_BYTES if self.wide else FLOAT_BYTES // 2
        at_once = GPU_LOGIT_ROWS if self.recompute else GPU_MORE_LOGIT_ROWS
        embeddings, states = shape.n_vocab * shape.n_embd, rows * shape.n_embd
        kept = float(GPU_STATES * states)
        if not self.fused:
            scores = rows * self.window * shape.n_head
            kept += GPU_HEADS * states + GPU_SHARES * scores
        # Matrices are copied to the type that is computed in: all at once, or one block's.
        matrices = 0 if self.wide else 12 * shape.n_embd**2
        layers = shape.n_layer
        blocks = layers * states + kept + matrices if self.recompute else layers * (kept + matrices)
        logits = LOGIT_COPIES * min(rows, at_once) * shape.n_vocab
        gradients = self.trained / 2 if self.gathers else 0
        narrow = logits + blocks + (0 if self.wide else embeddings)
        return width * narrow + FLOAT_BYTES * ((1 if self.rank else 2) * embeddings + gradients)

    def _blocks(self, rows: int) -> float:
        """What all blocks keep for the backward pass over `rows` positions (numbers)."""
        shape = self.hparams
        states, scores = rows * shape.n_embd, rows * self.window * shape.n_head
        kept, once = KEPT_STATES * states + KEPT_SCORES * scores, 0.0
        if self.pieces:
            kept, once = PIECES_STATES * states, PIECES_SCORES * scores
        elif self.rank and self.narrow:
            # XLA keeps the wide form of narrow matrices from the way forward to the way back.
            kept += 12 * shape.n_embd**2
        if self.recompute:
            return shape.n_layer * states + kept + once
        shares = PIECES_SHARES * scores if self.pieces else 0
        return shape.n_layer * (kept + shares) + once

    def _update(self) -> float:
        """What the gradients take, and a copy of the largest one (bytes)."""
        largest = 0 if self.rank else self.hparams.n_vocab * self.hparams.n_embd
        return FLOAT_BYTES * ((self.trained if self.gathers else largest) + largest)


def run_of(config: FinetuneConfig, hparams: HParams, rank: int, machines: int = 1) -> Run:
    """Returns what the settings say of the memory that each device takes."""
    devices = machines * sharers(config)
    gpus = [] if config.device == "cpu" else hardware.visible_gpus()
    capability = gpus[0].capability if gpus else None
    wide = config.precision == "float32" if capability is None else not is_half(config, capability)
    fused = not wide and (capability or (0, 0)) >= AMPERE
    return Run(
        hparams,
        config.window or hparams.n_ctx,
        -(-config.batch_size // devices),
        config.accumulate_gradients,
        config.optimizer,
        config.use_memory_saving_gradients,
        config.only_train_transformer_layers,
        rank,
        config.precision != "float32",
        config.xla and (hparams.n_embd >= WIDE or bool(gpus)),
        devices,
        config.clip_norm > 0 or config.precision == "float16",
        gpu=bool(gpus),
        wide=wide,
        fused=fused and config.xla,
    )


def is_half(config: FinetuneConfig, capability: tuple[int, int]) -> bool:
    """Returns whether a GPU of a compute capability will compute in half precision."""
    return config.precision in ("bfloat16", "float16") or (
        config.precision == "auto" and capability >= VOLTA
    )


def sharers(config: FinetuneConfig) -> int:
    """Returns how many GPUs of this machine share what it takes of a micro-batch."""
    if not config.is_shared or config.device == "cpu":
        return 1
    return max(1, min(len(hardware.visible_gpus()), config.batch_size))


def devices(device: str) -> str:
    """Returns what a run will compute on, as far as it is known without TensorFlow."""
    return hardware.describe_gpus(0 if device == "cpu" else len(hardware.visible_gpus()))


def remedy(run: Run) -> str:
    """Returns what to type after a run took more memory than there was."""
    options: list[str] = []
    for option, smaller in leaner(run):
        options.append(option)
        if smaller.expected() < CLEARLY_LESS * run.expected():
            return f"Try {' '.join(options)}: it takes about {smaller.expected() / 1e9:.1f} GB."
    return "Take a smaller model."


def leaner(run: Run) -> Iterator[tuple[str, Run]]:
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
        run = dataclasses.replace(run, rank=SMALL_RANK, narrow=True)
        yield f"--lora-rank {SMALL_RANK}", run
    if run.window // 2 >= LEAST:
        run = dataclasses.replace(run, window=run.window // 2)
        yield f"--window {run.window}", run


def check(config: FinetuneConfig, run: Run) -> str:
    """Returns a line on what a run takes and what is free.

    Raises:
        Gpt2cliError: it will not fit, and the settings don't say to try all the same.
    """
    needed, free = run.expected(), free_bytes(config.device, config.gpu_bytes)
    there = f"{free / 1e9:.1f} GB free" if math.isfinite(free) else "what is free is not known here"
    there += of_gpu(config)
    line = f"memory: about {needed / 1e9:.1f} GB expected, {there}"
    if not config.memory_check or needed <= free:
        return line
    options: list[str] = []
    for option, smaller in leaner(run):
        options.append(option)
        if smaller.expected() <= free:
            raise Gpt2cliError(
                f"{line}. {' '.join(options)} would take about {smaller.expected() / 1e9:.1f} GB; "
                "--no-memory-check tries all the same."
            )
    raise Gpt2cliError(
        f"{line}. No option makes it fit; take a smaller model, or --no-memory-check to try."
    )


def of_gpu(config: ComputeOptions) -> str:
    """Returns what there is to say of the GPU's memory: of how much, and what others hold."""
    for gpu in hardware.visible_gpus() if config.device != "cpu" else []:
        held = gpu.total - gpu.free
        others = f"; other processes hold {held / 1e9:.1f} GB" if held > GPU_RESERVED else ""
        return f" of {gpu.total / 1e9:.1f} GB on the {gpu.name}{others}"
    return ""


def free_bytes(device: str, limit: int | None = None) -> float:
    """Returns the memory that is free for a run: the GPU's if there is one, else the machine's.

    Args:
        device: auto, cpu or gpu.
        limit: what may be taken of a GPU's memory (bytes); None: all.
    """
    for gpu in hardware.visible_gpus() if device != "cpu" else []:
        return gpu.free if limit is None else min(gpu.free, limit)
    return hardware.free_memory()
