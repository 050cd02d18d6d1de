"""What each command can be told: one frozen dataclass a command, each option written once."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Literal

from gpt2cli.errors import UsageError
from gpt2cli.options import Config, argument, option

DEFAULT_MODEL = "124M"
DEFAULT_RUN = "run1"
DEFAULT_STEPS = 1000
DEFAULT_VAL_FRACTION = 0.05


@dataclass(frozen=True, kw_only=True)
class Shared(Config):
    """What every command can be told."""

    model_dir: str = option("models", "Folder that holds the base models.")
    quiet: bool = option(False, "Print results and errors alone.", short="-q", switch=True)
    verbose: bool = option(False, "Show TensorFlow's own log too.", short="-v", switch=True)


@dataclass(frozen=True, kw_only=True)
class DownloadConfig(Shared):
    """Fetch OpenAI's GPT-2 models, checked and resumable.

    MODEL is 124M (the default), 355M, 774M or 1558M, or tiny, which comes with gpt2cli and needs
    no network. What is there and good is left alone. GPT2CLI_TIMEOUT_SECONDS (30) and
    GPT2CLI_RETRY_SECONDS (1; the waits between tries grow from it) set the patience with a host.
    """

    models: tuple[str, ...] = argument("Models to fetch.", default=(DEFAULT_MODEL,))
    mirror: tuple[str, ...] = option(
        (), "Address to look for MODEL/FILE under, before the default hosts (repeatable)."
    )
    verify: bool = option(False, "Hash again what is there, and fetch what is wrong.", switch=True)

    def __post_init__(self) -> None:
        """Checks the mirrors' addresses.

        Raises:
            UsageError: one of them is no address of HTTP's.
        """
        super().__post_init__()
        for url in self.mirror:
            if not url.startswith(("http://", "https://")):
                raise UsageError(f"--mirror must begin with http:// or https://, not {url!r}.")


@dataclass(frozen=True, kw_only=True)
class RunOptions(Shared):
    """Which run or which base model."""

    offline: bool = option(
        False,
        "Never fetch a missing model (GPT2CLI_OFFLINE=1 says so for every command).",
        switch=True,
    )
    run_name: str | None = option(None, f"Run: a folder in --checkpoint-dir [{DEFAULT_RUN}].")
    checkpoint_dir: str = option("checkpoint", "Folder that holds the runs.")
    xla: bool = option(True, "Compile by XLA: slower to start, faster from then on.")
    seed: int | None = option(
        None,
        "Seed of every random choice; drawn anew where none is given.",
        least=0,
        most=2**32 - 1,
    )

    @property
    def run(self) -> str:
        """The run's name, its default filled in."""
        return self.run_name or DEFAULT_RUN


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(RunOptions):
    """Fine-tune a GPT-2 on text, and keep its checkpoints in a run folder.

    A run that has checkpoints is continued. Stopped by a signal, it saves the step and can be
    continued by the same command.
    """

    dataset: tuple[str, ...] = argument(
        "Text files, .csv, .jsonl, or .npy and .npz of tokens, any of them .gz; folders of them "
        "(recursive); globs; or - for stdin."
    )
    encoding: str = option("utf-8", "How text is written: utf-8, latin-1, shift-jis, …")
    csv_column: str | None = option(
        None, "Column of a csv that is text: its name, or its number from 1 [the first]."
    )
    csv_header: bool | None = option(
        None, "Whether a csv's first row is the columns' names [as it looks]."
    )
    text_field: str = option("text", "Field of a record of JSON that is text.")
    model_name: str | None = option(
        None, f"Base model: a folder in --model-dir [the run's own, else {DEFAULT_MODEL}]."
    )
    restore_from: str = option(
        "latest",
        "latest: the run's newest checkpoint, else the base model; fresh: the base model; "
        "scratch: random weights; or the path of a model folder, run folder or checkpoint.",
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
    batch_size: int = option(1, "Windows in a micro-batch.", least=1)
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
    precision: Literal["float32", "bfloat16", "float16"] = option(
        "float32", "What the network computes in; weights and optimiser stay float32."
    )
    use_memory_saving_gradients: bool = option(
        False, "Compute each block twice and keep its input alone."
    )
    only_train_transformer_layers: bool = option(
        False, "Leave the embeddings and the last norm as they are."
    )
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

    def __post_init__(self) -> None:
        """Checks what no single option shows.

        Raises:
            UsageError: options contradict each other.
        """
        super().__post_init__()
        check_corpus(self)
        lengths = {"--steps": self.steps, "--until-step": self.until_step, "--epochs": self.epochs}
        given = [name for name, value in lengths.items() if value is not None]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} contradict each other; give one of them.")
        if self.steps == 0:
            raise UsageError("--steps must be -1 or at least 1, not 0.")
        if self.schedule != "constant" and self.steps == -1:
            raise UsageError(
                f"--schedule {self.schedule} needs an end: give --until-step or --steps above 0."
            )


def check_corpus(config: FinetuneConfig) -> None:
    """Checks what the options on text and validation ask of each other.

    Raises:
        UsageError: they contradict each other, or name an encoding that Python does not know.
    """
    try:
        "a".encode(config.encoding)
        codecs.getincrementaldecoder(config.encoding)
    except (LookupError, ValueError) as error:
        raise UsageError(f"--encoding: {error}. Python's names are meant, as latin-1.") from error
    column = config.csv_column
    if config.csv_header is False and column is not None and not column.isdecimal():
        raise UsageError(
            f"--csv-column {column} needs a header, and --no-csv-header says there is none; "
            "give the column's number, from 1."
        )
    if config.val_dataset and config.val_fraction:
        raise UsageError("--val-dataset and --val-fraction contradict each other; give one.")


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(RunOptions):
    """Write text from a run, or from a base model.

    The text goes to stdout and everything else to stderr.
    """

    model_name: str | None = option(None, "Base model to generate from, in place of a run.")
    prefix: tuple[str, ...] = option((), "Text to continue (repeatable).")
    length: int | None = option(None, "New tokens at most [what is left of the window].", least=1)
    temperature: float = option(0.7, "Lower is tamer; 0 takes the likeliest token.", least=0)
    top_k: int = option(0, "Draw from the k likeliest tokens; 0: from all.", least=0)
    top_p: float = option(
        0.0,
        "Draw from the likeliest tokens that reach this probability; 0: from all.",
        least=0,
        most=1,
    )
    nsamples: int = option(1, "Samples for each prefix.", least=1)
    batch_size: int = option(1, "Samples decoded at once.", least=1)
    stop: tuple[str, ...] = option((), "A sample ends before this text (repeatable).")
    truncate: str | None = option(None, "The same as --stop.")
    include_prefix: bool = option(True, "Whether a sample begins with its prefix.")
    sample_delim: str = option("=" * 20 + "\n", "Stands between two samples.")
    ignore_eos: bool = option(False, "Go on beyond the end-of-text token.")

    def __post_init__(self) -> None:
        """Checks what no single option shows.

        Raises:
            UsageError: options contradict each other.
        """
        super().__post_init__()
        if self.model_name is not None and self.run_name is not None:
            raise UsageError("--model-name and --run-name contradict each other; give one.")
        if "" in self.stops:
            raise UsageError("--stop and --truncate need a text, not an empty one.")

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end a sample."""
        return self.stop if self.truncate is None else (*self.stop, self.truncate)
