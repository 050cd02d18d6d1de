"""What the checksums in a checkpoint say of files whose hash nobody has published."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from gpt2cli.errors import BadDataError, MissingInputError, shortened
from gpt2cli.fetching.manifest import Model, ModelFile
from gpt2cli.fetching.verification import content_fault, index_fault
from gpt2cli.files import atomic, paths
from gpt2cli.hparams import HParams
from gpt2cli.storage.bundle_reader import Reader

CHECK_FOLDER = ".check"


@contextlib.contextmanager
def under_final_names(folder: Path, named: Mapping[str, Path]) -> Iterator[Path]:
    """Yields a folder in which files stand under their final names, as links.

    A checkpoint's index and data are one only by their names, and neither may have its final
    name before it is known to be good.
    """
    aside = folder / CHECK_FOLDER
    with atomic.disk_errors(aside):
        atomic.remove_folder(aside)
        atomic.new_folder(aside)
        for name, path in named.items():
            (aside / name).symlink_to(path.absolute())
    try:
        yield aside
    finally:
        with contextlib.suppress(OSError):
            atomic.remove_folder(aside)


def checksum_fault(model: Model, file: ModelFile, prefix: Path) -> str:
    """Returns what is wrong with a file that has no pin; ``""`` if it is good.

    Args:
        model: the model that it belongs to.
        file: which of the model's files.
        prefix: the checkpoint's prefix in the file's folder, such as `model.ckpt`.
    """
    if model.hparams is not None and file.name == paths.index_file(prefix).name:
        return index_checksum_fault(model.name, model.hparams, prefix)
    if model.hparams is not None and file.name == paths.data_file(prefix).name:
        return data_checksum_fault(model.hparams, prefix)
    return content_fault(model, file, prefix.with_name(file.name))


def index_checksum_fault(name: str, hparams: HParams, prefix: Path) -> str:
    """Returns what is wrong with an index, its own checksums included; ``""`` if it is good."""
    try:
        return index_fault(name, hparams, paths.index_file(prefix))
    except BadDataError as error:
        return f"is damaged: {shortened(error, 240)}"


def data_checksum_fault(hparams: HParams, prefix: Path) -> str:
    """Returns which tensor of a checkpoint is damaged; ``""`` if all are good."""
    try:
        for _ in Reader(prefix).tensors(hparams.shapes()):
            pass
    except (BadDataError, MissingInputError) as error:
        return f"is damaged: {shortened(error, 240)}"
    return ""
