"""The settings of `gpt2cli export`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gpt2cli.config.shared import SourceOptions
from gpt2cli.errors import UsageError, shortened
from gpt2cli.options import argument, option

# The precisions that each format has.
PRECISIONS: dict[str, tuple[str, ...]] = {
    "huggingface": ("float32", "float16"),
    "openai": ("float32",),
    "gguf": ("float32", "float16", "q8_0"),
    "savedmodel": ("float32",),
    "tar": ("float32",),
}
# The formats that the ending of a file's name gives.
ENDINGS = {".gguf": "gguf", ".tar": "tar", ".tar.gz": "tar", ".tgz": "tar"}
# The endings of files that other programs write, and no format here does.
FOREIGN = (
    *(".onnx", ".zip", ".safetensors", ".pt", ".pth", ".bin", ".h5", ".hdf5", ".keras", ".tflite"),
    *(".pb", ".ckpt", ".npz", ".npy", ".msgpack", ".pkl", ".pickle", ".ggml", ".mlmodel", ".ot"),
    *(".mlpackage", ".json", ".txt", ".gz", ".bz2", ".xz", ".zst", ".tbz2", ".txz", ".7z", ".rar"),
)


@dataclass(frozen=True, kw_only=True)
class ExportConfig(SourceOptions):
    """Write a run, or a base model, in the format of another program.

    An old export stays whole until the new one takes its place.

    Examples:
        gpt2cli export hub/tales
        gpt2cli export tales.gguf --precision q8_0
        gpt2cli export 124M.tar.gz --model-name 124M
    """

    group = "Output"
    destination: str = argument("Folder or file to write.")
    format: Literal["auto", "huggingface", "openai", "gguf", "savedmodel", "tar"] = option(
        "auto", "auto: gguf or tar if DESTINATION ends in .gguf, .tar or .tar.gz, else huggingface."
    )
    precision: Literal["float32", "float16", "q8_0"] = option(
        "float32",
        "Type of the weights. float16: half the size (huggingface, gguf); q8_0: a quarter (gguf).",
    )
    overwrite: bool = option(False, "Replaces an export at DESTINATION.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.destination.strip():
            raise UsageError("DESTINATION needs a path, not an empty one.")
        known = PRECISIONS[self.kind]
        if self.precision not in known:
            raise UsageError(
                f"--precision {self.precision} does not fit --format {self.kind}, which has "
                f"{' and '.join(known)}."
            )
        if self.kind == "tar" and not self.ending:
            raise UsageError(
                "DESTINATION of --format tar must end in .tar or .tar.gz, not "
                f"'{shortened(self.destination)}'."
            )
        foreign = next((end for end in FOREIGN if self.destination.lower().endswith(end)), "")
        if ENDINGS.get(self.ending) != self.kind and (foreign or self.ending):
            written = "another file" if self.kind == "gguf" else "a folder"
            raise UsageError(
                f"DESTINATION '{shortened(self.destination)}' ends in {self.ending or foreign}, "
                f"and --format {self.kind} writes {written}. Give another name; only .gguf, .tar, "
                ".tar.gz and .tgz name a format."
            )

    @property
    def ending(self) -> str:
        """The ending of the destination that gives the format, or nothing."""
        return next((end for end in ENDINGS if self.destination.lower().endswith(end)), "")

    @property
    def kind(self) -> str:
        """The format."""
        return ENDINGS.get(self.ending, "huggingface") if self.format == "auto" else self.format
