"""What several commands can be told: each option written once."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Literal

from gpt2cli import hardware
from gpt2cli.errors import Gpt2cliError, UsageError, shortened
from gpt2cli.options import Config, argument, flag, option

DEFAULT_MODEL = "124M"
DEFAULT_RUN = "run1"
LATEST = "latest"
BEST = "best"
SIZE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) *([MG]B?)", re.IGNORECASE)
STEP = re.compile(r"[0-9]{1,18}")
UNITS = {"M": 2**20, "MB": 2**20, "G": 2**30, "GB": 2**30}
LEAST_GPU_BYTES = 2**26


@dataclass(frozen=True, kw_only=True)
class Shared(Config):
    """What every command can be told."""

    model_dir: str = option("models", "Folder that holds the base models.")
    quiet: bool = option(False, "Print results, errors and lost work alone.", short="-q")
    verbose: bool = option(False, "Show TensorFlow's own log too.", short="-v")


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
            UsageError: a name is empty.
        """
        super().__post_init__()
        for name in ("run_name", "model_name"):
            given = getattr(self, name, None)
            if given is not None and not given.strip():
                raise UsageError(f"{flag(name)} needs a name, not an empty one.")


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
        """Raises Gpt2cliError where a GPU is asked for, and it takes no TensorFlow to see none."""
        if self.device == "gpu" and not hardware.may_have_gpu():
            reason = hardware.HIDDEN if hardware.has_driver() else hardware.NO_DRIVER
            raise Gpt2cliError(f"{hardware.NO_GPU} {reason}")

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
        "on a GPU that has it, else float32.",
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
                f"--encoding: {shortened(error)}. Python's names are meant, as latin-1."
            ) from error
        column = self.csv_column
        if self.csv_header is False and column is not None and not column.isdecimal():
            raise UsageError(
                f"--csv-column {shortened(column)} needs a header, and --no-csv-header says there "
                "is none; give the column's number, from 1."
            )
