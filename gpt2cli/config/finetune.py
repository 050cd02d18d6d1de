"""The settings of `gpt2cli finetune`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from gpt2cli.config.shared import (
    DEFAULT_MODEL,
    ComputeOptions,
    CorpusOptions,
    RunOptions,
    SeedOptions,
)
from gpt2cli.errors import UsageError
from gpt2cli.options import Config, option

DEFAULT_STEPS = 1000
DEFAULT_VAL_FRACTION = 0.05


@dataclass(frozen=True, kw_only=True)
class LengthOptions(Config):
    """How long a run trains."""

    group = "Length"
    steps: int | None = option(
        None, "Trains N steps from here (-1: until stopped).", least=-1, unset=DEFAULT_STEPS
    )
    until_step: int | None = option(
        None,
        "Trains until the run has N steps in all; does nothing if it has them already.",
        least=1,
    )
    epochs: float | None = option(None, "Trains until the run has seen the text N times.", least=0)
    max_minutes: float = option(
        0, "Saves and stops after N minutes of training (0: no limit).", least=0
    )

    def last_step(self, step: int, windows: int, *, per_step: int, per_epoch: int) -> int | None:
        """Returns the step at which training ends, or None if only a signal ends it.

        The run is at `step` and has seen `windows` of the text.
        """
        if self.until_step is not None:
            return self.until_step
        if self.epochs is not None:
            left = self.epochs * per_epoch - windows
            return step + max(0, math.ceil(left / per_step))
        if self.steps == -1:
            return None
        return step + (DEFAULT_STEPS if self.steps is None else self.steps)


@dataclass(frozen=True, kw_only=True)
class BatchOptions(Config):
    """What a step trains on."""

    group = "Batch"
    batch_size: int = option(1, "Windows in a micro-batch, all devices together.", least=1)
    accumulate_gradients: int = option(
        5, "Micro-batches in a step, which averages their gradients.", least=1
    )
    window: int | None = option(
        None, "Tokens that a window predicts.", least=1, unset="the model's n_ctx"
    )


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions(Config):
    """How a step changes the weights."""

    group = "Optimiser"
    optimizer: Literal["adam", "adamw", "adafactor", "sgd"] = option(
        "adam",
        "adam and adamw are the same, with decoupled weight decay; adafactor needs far less "
        "memory.",
    )
    learning_rate: float = option(1e-4, "Learning rate at its peak.", least=0)
    schedule: Literal["constant", "linear", "cosine"] = option(
        "constant",
        "How the learning rate falls until the last step: linear to 0, cosine to a tenth of the "
        "peak.",
    )
    warmup_steps: int = option(0, "Raises the learning rate from 0 over N steps.", least=0)
    weight_decay: float = option(
        0.0,
        "Weight decay, times the learning rate, of all weights but biases and norms.",
        least=0,
        most=1,
    )
    clip_norm: float = option(
        1.0, "Clips the gradient of a step to this global norm (0: no limit).", least=0
    )
    dropout: float = option(0.0, "Share of activations that dropout zeroes.", least=0, most=0.9)


@dataclass(frozen=True, kw_only=True)
class MemoryOptions(ComputeOptions):
    """What is computed and kept, in which precision, on which devices."""

    precision: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto",
        "Type that the network computes in; trained weights and the optimiser stay float32. "
        "auto: bfloat16 on a GPU from compute capability 8.0 on, float16 (with a loss scale) from "
        "7.0 on, else float32.",
    )
    use_memory_saving_gradients: bool = option(
        False, "Gradient checkpointing: keeps only the input of each block and recomputes the rest."
    )
    only_train_transformer_layers: bool = option(
        False, "Leaves the embeddings and the last norm as they are."
    )
    lora_rank: int | None = option(
        None,
        "Trains LoRA adapters of this rank and leaves the blocks' matrices as they are (0: trains "
        "the weights themselves).",
        least=0,
        unset="0, or as the run began",
    )
    lora_alpha: float | None = option(
        None, "Multiplies the adapters by N / rank.", least=0, unset="twice the rank"
    )
    memory_check: bool = option(True, "Refuses a run that will not fit in memory.")
    multi_gpu: bool = option(
        False,
        "Splits each micro-batch between all GPUs of the machine, and between the machines that "
        "TF_CONFIG or --cluster names.",
    )
    cluster: Literal["auto", "slurm"] = option(
        "auto",
        "Machines that train together. auto: those that TF_CONFIG names; slurm: the tasks of the "
        "job step (implies --multi-gpu).",
    )
    wait_minutes: float = option(10.0, "Waits N minutes for the other machines.", least=0)

    @property
    def is_shared(self) -> bool:
        """Whether several devices are to train together."""
        return self.multi_gpu or self.cluster != "auto"


@dataclass(frozen=True, kw_only=True)
class ValidationOptions(Config):
    """What the validation loss is computed on, and when."""

    group = "Validation"
    val_dataset: tuple[str, ...] = option((), "Text to validate on (repeatable).")
    val_fraction: float | None = option(
        None,
        "Share of the text that is held out to validate on: its last documents, or its end "
        "(0: none).",
        least=0,
        most=1,
        unset=f"{DEFAULT_VAL_FRACTION} if the text is long enough",
    )
    val_every: int = option(100, "Validates every N steps (0: never).", least=0)
    val_batches: int = option(40, "Batches in a validation, always the same ones.", least=1)
    patience: int = option(0, "Stops after N validations without a lower loss (0: never).", least=0)


@dataclass(frozen=True, kw_only=True)
class SampleOptions(Config):
    """The samples that show what the model has learned."""

    group = "Samples"
    sample_every: int = option(100, "Prints samples every N steps (0: never).", least=0)
    sample_length: int = option(256, "Tokens in a sample.", least=1)
    sample_num: int = option(1, "Samples each time.", least=1)
    sample_prefix: str = option("", "Text that samples begin with.")


@dataclass(frozen=True, kw_only=True)
class SavingOptions(Config):
    """When checkpoints are saved, and how many are kept."""

    group = "Saving"
    save_every: int = option(
        1000, "Saves a checkpoint every N steps (0: only at the end).", least=0
    )
    save_minutes: float = option(10.0, "Saves at least every N minutes (0: no limit).", least=0)
    max_checkpoints: int = option(2, "Keeps the N newest checkpoints, and the best one.", least=1)


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(
    CorpusOptions,
    LengthOptions,
    BatchOptions,
    OptimizerOptions,
    MemoryOptions,
    ValidationOptions,
    SampleOptions,
    SavingOptions,
    SeedOptions,
    RunOptions,
):
    """Fine-tune a GPT-2 on text, and keep its checkpoints in a run folder.

    A run that has checkpoints is continued. If a signal stops it, it saves the step, and the same
    command continues it.

    Examples:
        gpt2cli finetune tales.txt --steps 500
        gpt2cli finetune chats.jsonl --model-name 355M --run-name chats --lora-rank 8
        gpt2cli finetune books/ --epochs 3 --val-fraction 0.1 --schedule cosine
    """

    group = "Model and run"
    model_name: str | None = option(
        None,
        "Base model, in OpenAI's or Hugging Face's format: a folder in --model-dir, a path, or "
        "OWNER/NAME on the Hub.",
        unset=f"the run's own, else {DEFAULT_MODEL}",
    )
    restore_from: str = option(
        "latest",
        "Weights to start from. latest: the run's newest checkpoint, else the base model; fresh: "
        "the base model; scratch: random weights; or the path of a model folder, run folder or "
        "checkpoint.",
    )
    overwrite: bool = option(
        False, "Lets fresh, scratch and a path replace the checkpoints of the run."
    )
    print_every: int = option(
        1, "Prints the loss every N steps (0: never).", least=0, group="Reporting"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.val_dataset and self.val_fraction:
            raise UsageError("--val-dataset and --val-fraction contradict each other; give one.")
        lengths = {"--steps": self.steps, "--until-step": self.until_step, "--epochs": self.epochs}
        given = [name for name, value in lengths.items() if value is not None]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} contradict each other; give one of them.")
        if self.lora_rank and self.restore_from == "scratch":
            raise UsageError(
                "--lora-rank needs trained weights, and --restore-from scratch has none; leave "
                "out one of them."
            )
        if self.steps == 0:
            raise UsageError("--steps must be -1 or at least 1, not 0.")
        if self.schedule != "constant" and self.steps == -1:
            raise UsageError(
                f"--schedule {self.schedule} needs an end: give --until-step or --steps above 0."
            )
