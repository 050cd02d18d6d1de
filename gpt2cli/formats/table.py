"""The formats that `gpt2cli export` writes, and what writes each of them."""

from __future__ import annotations

from pathlib import Path

from gpt2cli.formats.model import Model


def write_model(model: Model, path: Path, kind: str) -> None:
    """Writes a model in the format that is asked for; only its module is loaded.

    Raises BadDataError if the checkpoint is damaged, OSError if the disk refuses.
    """
    if kind == "huggingface":
        from gpt2cli.formats.huggingface import write_huggingface as write
    elif kind == "openai":
        from gpt2cli.formats.openai import write_openai as write
    elif kind == "gguf":
        from gpt2cli.formats.gguf import write_gguf as write
    elif kind == "savedmodel":
        from gpt2cli.formats.savedmodel import write_savedmodel as write
    elif kind == "tar":
        from gpt2cli.formats.archive import write_archive as write
    else:
        raise ValueError(kind)
    write(model, path)
