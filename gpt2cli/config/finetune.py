"""What `gpt2cli finetune` can be told."""

from __future__ import annotations

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
from gpt2cli.options import option

DEFAULT_STEPS = 1000
DEFAULT_VAL_FRACTION = 0.05


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(CorpusOptions, ComputeOptions, SeedOptions, RunOptions):
    """Fine-tune a GPT-2 on text, and keep its checkpoints in a run folder.

    A run that has checkpoints is continued. Stopped by a signal, it saves the step and can be
    continued by the same command.
    """

    model_name: str | None = option(
        None,
        "Base model: a folder in --model-dir, or a path, OpenAI's or Hugging Face's "
        f"[the run's own, else {DEFAULT_MODEL}].",
    )
    restore_from: str = option(
        "latest",
        "latest: the run's newest checkpoint, else the base model; fresh: the base model; "
        "scratch: random weights; or the path of a model folder (OpenAI's or Hugging Face's), run "
        "folder or checkpoint.",
    )
    overwrite: bool = option(
        False, "Let fresh, scratch and a path replace the checkpoints that the run has."
    )
    steps: int | None = option(
        None, f"Steps to train from here; -1: until stopped [{DEFAULT_STEPS}].", least=-1
    )
    until_step: int | None = option(
        None, "Train until the run has this many steps in all; nothing is done if it has.", least=1
    )
    epochs: float | None = option(
        None, "Train until the run has seen this text so many times.", least=0
    )
    max_minutes: float = option(
        0, "Stop, saved, after so many minutes of training; 0: no limit.", least=0
    )
    batch_size: int = option(1, "Windows in a micro-batch, of all devices together.", least=1)
    accumulate_gradients: int = option(
        5, "Micro-batches in a step; their gradients are averaged.", least=1
    )
    window: int | None = option(None, "Tokens that an example predicts [n_ctx].", least=1)
    optimizer: Literal["adam", "adamw", "adafactor", "sgd"] = option(
        "adam", "adamw is adam with --weight-decay; adafactor keeps far less in memory."
    )
    learning_rate: float = option(1e-4, "Learning rate, at its highest.", least=0)
    schedule: Literal["constant", "linear", "cosine"] = option(
        "constant", "How the learning rate falls, to 0 at the last step (cosine: to a tenth)."
    )
    warmup_steps: int = option(0, "Steps over which the learning rate rises from 0.", least=0)
    weight_decay: float = option(
        0.0, "Decay of the weights but biases and norms, times the learning rate.", least=0, most=1
    )
    clip_norm: float = option(1.0, "Largest global norm of a step's gradient; 0: any.", least=0)
    dropout: float = option(0.0, "Share of activations dropped in training.", least=0, most=0.9)
    precision: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto",
        "What the network computes in; weights that are trained and the optimiser stay float32. "
        "auto: bfloat16 on a GPU from compute capability 8.0 on, float16 (with a loss scale) from "
        "7.0 on, else float32.",
    )
    use_memory_saving_gradients: bool = option(
        False, "Compute each block twice and keep its input alone."
    )
    only_train_transformer_layers: bool = option(
        False, "Leave the embeddings and the last norm as they are."
    )
    lora_rank: int | None = option(
        None,
        "Train adapters of this rank beside the blocks' matrices, which stay as they are; 0: train "
        "the weights themselves [0, or as the run began].",
        least=0,
    )
    lora_alpha: float | None = option(
        None, "Adapters count alpha / rank [twice the rank].", least=0
    )
    multi_gpu: bool = option(
        False,
        "Share each micro-batch between all GPUs of the machine, and between machines where "
        "TF_CONFIG or --cluster says which.",
    )
    cluster: Literal["auto", "slurm"] = option(
        "auto",
        "Which machines train together. auto: those that TF_CONFIG names; slurm: the tasks of the "
        "job step (implies --multi-gpu).",
    )
    wait_minutes: float = option(10.0, "Minutes to wait for the other machines.", least=0)
    memory_check: bool = option(True, "Refuse a run that will not fit in memory.")
    val_dataset: tuple[str, ...] = option((), "Text to validate on (repeatable).")
    val_fraction: float | None = option(
        None,
        "Share of the text held out to validate on, its last documents or its tail; 0: none "
        f"[{DEFAULT_VAL_FRACTION} where the text is long enough].",
        least=0,
        most=1,
    )
    val_every: int = option(100, "Steps between validations; 0: none.", least=0)
    val_batches: int = option(40, "Batches in a validation, always the same ones.", least=1)
    patience: int = option(
        0, "Stop after so many validations without a lower loss; 0: never.", least=0
    )
    sample_every: int = option(100, "Steps between samples; 0: none.", least=0)
    sample_length: int = option(256, "Length of a sample (tokens).", least=1)
    sample_num: int = option(1, "Samples each time.", least=1)
    sample_prefix: str = option("", "Text that samples begin with.")
    save_every: int = option(1000, "Steps between checkpoints; 0: at the end alone.", least=0)
    save_minutes: float = option(10.0, "Minutes between checkpoints at most; 0: any.", least=0)
    max_checkpoints: int = option(2, "Checkpoints to keep.", least=1)
    print_every: int = option(1, "Steps between printed lines; 0: none.", least=0)

    @property
    def is_shared(self) -> bool:
        """Whether several devices are to train together."""
        return self.multi_gpu or self.cluster != "auto"

    def __post_init__(self) -> None:
        """Checks what no single option shows.

        Raises:
            UsageError: options contradict each other.
        """
        super().__post_init__()
        if self.val_dataset and self.val_fraction:
            raise UsageError("--val-dataset and --val-fraction contradict each other; give one.")
        lengths = {"--steps": self.steps, "--until-step": self.until_step, "--epochs": self.epochs}
        given = [name for name, value in lengths.items() if value is not None]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} contradict each other; give one of them.")
        if self.lora_rank and self.restore_from == "scratch":
            raise UsageError(
                "--lora-rank needs weights to start from; --restore-from scratch: none."
            )
        if self.steps == 0:
            raise UsageError("--steps must be -1 or at least 1, not 0.")
        if self.schedule != "constant" and self.steps == -1:
            raise UsageError(
                f"--schedule {self.schedule} needs an end: give --until-step or --steps above 0."
            )
