"""Models that come with gpt2cli itself, put in their place without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gpt2cli.errors import DiskError, MissingInputError
from gpt2cli.fetching.manifest import DATA
from gpt2cli.files import atomic, paths, temporary
from gpt2cli.records import Notice, Progress, Record


def install(name: str, folder: Path, *, data: Path = DATA) -> Iterator[Record]:
    """Copies a bundled model's files to where they are missing or differ; yields what it did.

    Args:
        name: one of manifest.BUNDLED.
        folder: where the model is to be.
        data: the folder of gpt2cli's package that holds the bundled models.

    Raises:
        MissingInputError: this installation of gpt2cli came without the model.
        OutputError: the place cannot be written to.
        DiskError: the disk is full or fails.
    """
    source = data / name
    if not (source / paths.POINTER).is_file():
        raise MissingInputError(f"{source} is missing: install gpt2cli again to have {name}.")
    # `checkpoint` comes last: once it is there, the model is whole.
    files = sorted(source.iterdir(), key=lambda path: (path.name == paths.POINTER, path.name))
    wrong = [file for file in files if not same(file, folder / file.name)]
    if not wrong:
        yield Progress(f"{name} is already there: {folder}")
        return
    size = sum(file.stat().st_size for file in wrong)
    atomic.need_room(folder, size)
    for file in wrong:
        if (folder / file.name).exists():
            yield Notice(f"{folder / file.name} is not {name}'s; it is put right.")
        with atomic.disk_errors(folder / file.name):
            for left in temporary.names(folder / file.name) if folder.is_dir() else ():
                if temporary.is_abandoned(left):
                    atomic.remove(left)
            atomic.write_whole(folder / file.name, file.read_bytes())
    yield Progress(f"{name} is complete: {folder} ({size / 1e6:.1f} MB, bundled with gpt2cli)")


def same(source: Path, destination: Path) -> bool:
    """Returns whether two files hold the same bytes."""
    try:
        if not destination.is_file() or destination.stat().st_size != source.stat().st_size:
            return False
        return source.read_bytes() == destination.read_bytes()
    except OSError as error:
        raise DiskError(f"Cannot read {destination}: {error.strerror}.") from error
