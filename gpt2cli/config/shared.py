"""The settings that several commands share: each option written once."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gpt2cli.errors import Gpt2cliError, UsageError, shortened
from gpt2cli.options import Config, argument, flag, option

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


@dataclass(frozen=True, kw_only=True)
class Shared(Config):
    """The options of every command."""

    quiet: bool = option(
        False, "Prints only results, errors, and warnings of lost work.", short="-q"
    )
    verbose: bool = option(False, "Shows TensorFlow's own log too.", short="-v")
    model_dir: str = option("models", "Folder that holds the base models.", group="Model and run")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("model_name", "draft_model", "model_dir", "run_name", "checkpoint_dir"):
            if (given := getattr(self, name, None)) is not None:
                check_name(flag(name), given)


@dataclass(frozen=True, kw_only=True)
class PlaceOptions(Shared):
    """Where runs are, and which of them is meant."""

    group = "Model and run"
    run_name: str | None = option(
        None, "Name of the run: a folder in --checkpoint-dir.", unset=DEFAULT_RUN
    )
    checkpoint_dir: str = option("checkpoint", "Folder that holds the runs.")

    def __post_init__(self) -> None:
        super().__post_init__()
        name = self.run_name or DEFAULT_RUN
        shown = shortened(name, 60)
        if name in (".", "..") or "/" in name:
            raise UsageError(f"--run-name must be the name of one folder, not a path: {shown}.")
        if len(name.encode()) > MOST_NAME_BYTES:
            raise UsageError(f"--run-name must have at most {MOST_NAME_BYTES} bytes: {shown}.")


@dataclass(frozen=True, kw_only=True)
class RunOptions(PlaceOptions):
    """Which run, and whether its model may be fetched."""

    offline: bool = option(
        False, "Never fetches a missing model (GPT2CLI_OFFLINE=1: nor does any command)."
    )

    @property
    def run_folder(self) -> Path:
        """The run's folder."""
        return Path(self.checkpoint_dir, self.run_name or DEFAULT_RUN)


@dataclass(frozen=True, kw_only=True)
class SourceOptions(RunOptions):
    """Which weights are read: a run's, or a base model's."""

    model_name: str | None = option(
        None,
        "Base model to read instead of a run: a folder in --model-dir, a path, or OWNER/NAME on "
        "the Hub.",
    )
    checkpoint: str = option(
        "latest", "Checkpoint of the run: latest, best (lowest validation loss), or a step."
    )

    def __post_init__(self) -> None:
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
                raise UsageError("--checkpoint needs a run, and --model-name is none; give one.")


@dataclass(frozen=True, kw_only=True)
class ComputeOptions(Config):
    """The device that computes."""

    group = "Memory and device"
    device: Literal["auto", "cpu", "gpu"] = option(
        "auto", "Device to compute on; auto: the GPU if there is one."
    )
    gpu_memory_limit: str | None = option(
        None,
        "Takes at most this much memory of each GPU, as 8GB or 6000MB.",
        unset="what is needed",
    )
    xla: bool = option(True, "Compiles with XLA: slower to start, faster from then on.")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.gpu_bytes  # noqa: B018

    def check_device(self) -> None:
        """Raises Gpt2cliError if the machine lacks the GPU asked for, or its memory."""
        # Loading it would slow the start of every command.
        from gpt2cli.runtime import hardware

        if self.device == "gpu" and not hardware.may_have_gpu():
            reason = hardware.HIDDEN if hardware.has_driver() else hardware.NO_DRIVER
            raise Gpt2cliError(f"{hardware.NO_GPU} {reason}")
        if self.device == "gpu" and (problem := hardware.gpu_problem()):
            raise Gpt2cliError(f"{hardware.NO_GPU} {problem}")
        if self.device != "cpu" and self.gpu_bytes is not None:
            for gpu in hardware.visible_gpus():
                if self.gpu_bytes > gpu.total:
                    raise UsageError(
                        f"--gpu-memory-limit {self.gpu_memory_limit} is more than the {gpu.name} "
                        f"has, {gpu.total / 1e9:.1f} GB."
                    )

    @property
    def gpu_bytes(self) -> int | None:
        """The most memory to take of each GPU (bytes), or None; raises UsageError."""
        if self.gpu_memory_limit is None:
            return None
        found = SIZE.fullmatch(self.gpu_memory_limit)
        size = int(float(found[1]) * UNITS[found[2].upper()]) if found else 0
        if size < LEAST_GPU_BYTES:
            raise UsageError(
                "--gpu-memory-limit must be a size from 64MB, as 8GB or 6000MB, not "
                f"'{shortened(self.gpu_memory_limit)}'."
            )
        return size


@dataclass(frozen=True, kw_only=True)
class ReadingOptions(ComputeOptions):
    """The precision of a model that is not trained."""

    precision: Literal["auto", "float32", "bfloat16", "float16", "int8"] = option(
        "auto",
        "Type of the weights in memory; int8 quantizes only them, with a scale for each row. auto: "
        "bfloat16 on a GPU from compute capability 8.0 on, float16 from 7.0 on, else float32.",
    )


@dataclass(frozen=True, kw_only=True)
class SeedOptions(Config):
    """The source of random numbers."""

    seed: int | None = option(
        None, "Seed of every random choice.", least=0, most=2**32 - 1, unset="a new one each time"
    )


@dataclass(frozen=True, kw_only=True)
class CorpusOptions(Config):
    """Which text is read, and how."""

    group = "Text"
    dataset: tuple[str, ...] = argument(
        "Text files, .csv, .tsv, .json, .jsonl, or .npy and .npz of tokens, any of them .gz; "
        "folders of them (recursive); globs; pipes; or - for stdin."
    )
    encoding: str = option("utf-8", "Encoding of text: utf-8, cp1252, shift-jis, …")
    keep_line_ends: bool = option(False, r"Keeps \r\n and \r in texts; else they become \n.")
    csv_column: str | None = option(
        None,
        "Column of a CSV file that holds the text: its name, or its number from 1.",
        unset="detected",
    )
    csv_header: bool | None = option(
        None, "Whether the first row of a CSV file names the columns.", unset="detected"
    )
    csv_delimiter: str | None = option(
        None, "Character between two cells of a CSV file, or the word tab.", unset="detected"
    )
    text_field: str | None = option(
        None,
        "Field of a JSON record that holds a text or a list of texts; a.b is b in a.",
        unset="text, else a field with a telling name",
    )
    loss_on: Literal["assistant", "all"] = option(
        "assistant", "Tokens of a conversation that count in the loss: the assistant's, or all."
    )

    @property
    def delimiter(self) -> str | None:
        """The character between two cells, or None."""
        return "\t" if self.csv_delimiter in TAB else self.csv_delimiter

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            "a".encode(self.encoding)
            codecs.getincrementaldecoder(self.encoding)
        except (LookupError, ValueError) as error:
            raise UsageError(
                f"--encoding: {shortened(error)}. Give one of Python's names, as cp1252."
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
