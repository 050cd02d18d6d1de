"""What several commands can be told: each option written once."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Literal

from gpt2cli.errors import Gpt2cliError, UsageError, shortened
from gpt2cli.options import Config, argument, flag, option
from gpt2cli.runtime import hardware

DEFAULT_MODEL = "124M"
DEFAULT_RUN = "run1"
LATEST = "latest"
BEST = "best"
# What file systems allow.
MOST_NAME_BYTES = 255
SIZE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) *([MG]B?)", re.IGNORECASE)
STEP = re.compile(r"[0-9]{1,18}")
UNITS = {"M": 2**20, "MB": 2**20, "G": 2**30, "GB": 2**30}
LEAST_GPU_BYTES = 2**26
# What is written for a tabulator, which is hard to type.
TAB = ("tab", "\\t")


def check_name(name: str, given: str) -> None:
    """Raises UsageError unless a name is text, which runs, logs and messages can hold."""
    if not given.strip():
        raise UsageError(f"{name} needs a name, not an empty one.")
    shown = shortened(given, 60)
    if "\0" in given:
        raise UsageError(f"{name} must not hold a NUL: {shown}.")
    try:
        given.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{name} must be UTF-8, which {shown} is not. Rename it.") from None


def check_component(name: str, given: str) -> None:
    """Raises UsageError unless a name is that of a folder in another one, and no path."""
    shown = shortened(given, 60)
    if given in (".", "..") or "/" in given:
        raise UsageError(f"{name} must be the name of one folder, not a path: {shown}.")
    if len(given.encode()) > MOST_NAME_BYTES:
        raise UsageError(f"{name} must have at most {MOST_NAME_BYTES} bytes: {shown}.")


@dataclass(frozen=True, kw_only=True)
class Shared(Config):
    """What every command can be told."""

    model_dir: str = option("models", "Folder that holds the base models.")
    quiet: bool = option(False, "Print results, errors and lost work alone.", short="-q")
    verbose: bool = option(False, "Show TensorFlow's own log too.", short="-v")

    def __post_init__(self) -> None:
        """Checks what no range shows.

        Raises:
            UsageError: a name is empty, or is no text.
        """
        super().__post_init__()
        for name in ("model_name", "model_dir", "run_name", "checkpoint_dir"):
            if (given := getattr(self, name, None)) is not None:
                check_name(flag(name), given)


@dataclass(frozen=True, kw_only=True)
class RunOptions(Shared):
    """Which run."""

    offline: bool = option(
        False,
        "Never fetch a missing model (GPT2CLI_OFFLINE=1 says so for every command).",
    )
    run_name: str | None = option(None, f"Run: a folder in --checkpoint-dir [{DEFAULT_RUN}].")
    checkpoint_dir: str = option("checkpoint", "Folder that holds the runs.")

    @property
    def run(self) -> str:
        """The run's name, its default filled in."""
        return self.run_name or DEFAULT_RUN

    def __post_init__(self) -> None:
        """Checks what no range shows.

        Raises:
            UsageError: the run's name is not that of a folder in another one.
        """
        super().__post_init__()
        if self.run_name is not None:
            check_component("--run-name", self.run_name)


@dataclass(frozen=True, kw_only=True)
class SourceOptions(RunOptions):
    """Which weights are read: a run's, or a base model's."""

    model_name: str | None = option(
        None, "Base model to take, in place of a run: a folder in --model-dir, or a path."
    )
    checkpoint: str = option(
        "latest", "Which checkpoint of the run: latest, best (by validation), or a step's number."
    )

    def __post_init__(self) -> None:
        """Checks what no single option shows.

        Raises:
            UsageError: options contradict each other, or --checkpoint is no step.
        """
        super().__post_init__()
        if self.model_name is not None and self.run_name is not None:
            raise UsageError("--model-name and --run-name contradict each other; give one.")
        if self.checkpoint not in (LATEST, BEST):
            if not STEP.fullmatch(self.checkpoint):
                raise UsageError(
                    f"--checkpoint must be {LATEST}, {BEST} or a step, not "
                    f"'{shortened(self.checkpoint)}'."
                )
            if self.model_name is not None:
                raise UsageError("--checkpoint is of a run, and --model-name has none; give one.")


@dataclass(frozen=True, kw_only=True)
class ComputeOptions(Config):
    """What the work runs on."""

    device: Literal["auto", "cpu", "gpu"] = option(
        "auto", "What to compute on; auto: the GPU where there is one."
    )
    gpu_memory_limit: str | None = option(
        None, "What may be taken of each GPU's memory, as 8GB or 6000MB [what is needed]."
    )
    xla: bool = option(True, "Compile by XLA: slower to start, faster from then on.")

    def __post_init__(self) -> None:
        """Checks what no single option shows.

        Raises:
            UsageError: --gpu-memory-limit is no size.
        """
        super().__post_init__()
        self.gpu_bytes  # noqa: B018

    def check_device(self) -> None:
        """Checks what is asked of a GPU, as far as it can be known without TensorFlow.

        Raises:
            Gpt2cliError: a GPU is asked for, and there is none that TensorFlow could use.
            UsageError: --gpu-memory-limit is more than the GPU has.
        """
        if self.device == "gpu" and not hardware.may_have_gpu():
            reason = hardware.HIDDEN if hardware.has_driver() else hardware.NO_DRIVER
            raise Gpt2cliError(f"{hardware.NO_GPU} {reason}")
        if self.device == "gpu" and (problem := hardware.problem()):
            raise Gpt2cliError(f"{hardware.NO_GPU} {problem}")
        if self.device != "cpu" and self.gpu_bytes is not None:
            for gpu in hardware.visible():
                if self.gpu_bytes > gpu.total:
                    raise UsageError(
                        f"--gpu-memory-limit {self.gpu_memory_limit} is more than the {gpu.name} "
                        f"has, {gpu.total / 1e9:.1f} GB."
                    )

    @property
    def gpu_bytes(self) -> int | None:
        """What may be taken of each GPU's memory (bytes), or None.

        Raises:
            UsageError: --gpu-memory-limit is no size.
        """
        asked = self.gpu_memory_limit
        if asked is None:
            return None
        found = SIZE.fullmatch(asked)
        if found is None or float(found[1]) * UNITS[found[2].upper()] < LEAST_GPU_BYTES:
            raise UsageError(
                "--gpu-memory-limit must be a size from 64MB, as 8GB or 6000MB, not "
                f"'{shortened(asked)}'."
            )
        return int(float(found[1]) * UNITS[found[2].upper()])


@dataclass(frozen=True, kw_only=True)
class ReadingOptions(ComputeOptions):
    """How a model is held that is read and not trained."""

    precision: Literal["auto", "float32", "bfloat16", "float16", "int8"] = option(
        "auto",
        "What the weights are held in; int8: the weights alone, with a scale a row. auto: bfloat16 "
        "on a GPU from compute capability 8.0 on, float16 from 7.0 on, else float32.",
    )


@dataclass(frozen=True, kw_only=True)
class SeedOptions(Config):
    """What random choices follow from."""

    seed: int | None = option(
        None,
        "Seed of every random choice; drawn anew where none is given.",
        least=0,
        most=2**32 - 1,
    )


@dataclass(frozen=True, kw_only=True)
class CorpusOptions(Config):
    """Which text is read, and how."""

    dataset: tuple[str, ...] = argument(
        "Text files, .csv, .tsv, .json, .jsonl, or .npy and .npz of tokens, any of them .gz; "
        "folders of them (recursive); globs; pipes; or - for stdin."
    )
    encoding: str = option("utf-8", "How text is written: utf-8, cp1252, shift-jis, …")
    keep_line_ends: bool = option(False, r"Keep \r\n and \r in texts; else they become \n.")
    csv_column: str | None = option(
        None, "Column of a csv that is text: its name, or its number from 1 [as it looks]."
    )
    csv_header: bool | None = option(
        None, "Whether a csv's first row is the columns' names [as it looks]."
    )
    csv_delimiter: str | None = option(
        None, "Character between two cells of a csv, or the word tab [as it looks]."
    )
    text_field: str | None = option(
        None,
        "Field of a record of JSON that is text or a list of texts; a.b is b in a [text, else one "
        "of a telling name].",
    )

    @property
    def delimiter(self) -> str | None:
        """The character between two cells, or None."""
        return "\t" if self.csv_delimiter in TAB else self.csv_delimiter

    def __post_init__(self) -> None:
        """Checks what no single option shows.

        Raises:
            UsageError: options contradict each other, or Python does not know the encoding.
        """
        super().__post_init__()
        try:
            "a".encode(self.encoding)
            codecs.getincrementaldecoder(self.encoding)
        except (LookupError, ValueError) as error:
            raise UsageError(
                f"--encoding: {shortened(error)}. Python's names are meant, as cp1252."
            ) from error
        delimiter = self.delimiter
        if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n\0'):
            raise UsageError(
                f"--csv-delimiter must be one character, or the word tab, not {delimiter!r}."
            )
        column = self.csv_column
        if self.csv_header is False and column is not None and not column.isdecimal():
            raise UsageError(
                f"--csv-column {shortened(column)} needs a header, and --no-csv-header says there "
                "is none; give the column's number, from 1."
            )
