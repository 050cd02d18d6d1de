"""How a model is trained, apart from data and learning rate."""

from __future__ import annotations

import dataclasses

from gpt2cli.training.backend import DEFAULT_BACKEND, Backend


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a model is trained.

    Attributes:
        optimizer: adam, adamw, adafactor or sgd.
        accumulate: micro-batches in a step.
        clip_norm: largest global norm of a step's gradient (0: no limit).
        weight_decay: share of each matrix that decays at a learning rate of 1.
        dropout: share of activations to drop (0 to 1).
        precision: float32, bfloat16 or float16: the type of matrix products.
        recompute: gradient checkpointing: the backward pass computes each block's forward pass
            again, of which only the input was kept.
        blocks_only: whether embeddings and the last norm stay frozen.
        backend: what computes the network.
    """

    optimizer: str = "adam"
    accumulate: int = 1
    clip_norm: float = 0.0
    weight_decay: float = 0.0
    dropout: float = 0.0
    precision: str = "float32"
    recompute: bool = False
    blocks_only: bool = False
    backend: Backend = DEFAULT_BACKEND
