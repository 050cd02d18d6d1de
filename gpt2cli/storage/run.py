"""A run folder: what a step's checkpoint consists of, and the one moment when it counts."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gpt2cli import reading
from gpt2cli.files import atomic, paths, temporary
from gpt2cli.files.lock import locked
from gpt2cli.storage import huggingface
from gpt2cli.storage.state import FORMAT, State, digest

HASH_CHUNK_BYTES = 1 << 20


@contextlib.contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Makes a run folder and keeps other processes from training in it within the block.

    If the block fails before anything was written, the folder is removed again. Raises
    TryLaterError if another process trains in it, OutputError if it cannot be made.
    """
    lock_file = folder / "lock"
    with contextlib.ExitStack() as stack:
        with atomic.disk_errors(folder):
            stack.enter_context(atomic.made_folders(folder))
            there = set(folder.iterdir())
            stack.enter_context(locked(lock_file, f"The run {folder}"))
        try:
            yield
        except BaseException:
            # Nothing but the lock has come, which was not there before: it goes too.
            if set(folder.iterdir()) - there == {lock_file}:
                atomic.remove(lock_file)
            raise


def prepare(folder: Path, source: Path) -> None:
    """Copies the model's description and vocabulary into a run folder that lacks them.

    What a start left that was killed before the first checkpoint may be another model's.
    """
    with atomic.disk_errors(folder):
        clean_up(folder)
        keeps = paths.has_checkpoints(folder)
        if keeps and all((folder / name).exists() for name in paths.STATIC_FILES):
            return
        files = huggingface.static_files(source, trained=True)
        # First the one that may be missing in a folder that is whole.
        for name in (paths.TOKENS, *paths.STATIC_FILES):
            if name in files and not (keeps and (folder / name).exists()):
                atomic.write_whole(folder / name, files[name])
            elif name not in files and not keeps and (folder / name).exists():
                atomic.remove(folder / name)


def place_base(folder: Path, prefix: Path) -> None:
    """Gives a run the weights that its adapters are trained beside, unless it has them already."""
    base = folder / paths.BASE
    index, source = paths.index_file(base), paths.index_file(prefix)
    if index.exists():
        if index.read_bytes() == source.read_bytes():
            return
        remove_base(folder)
    for path in (*sorted(prefix.parent.glob(f"{prefix.name}.data-*")), source):
        with atomic.whole_file(folder / path.name.replace(prefix.name, base.name, 1)) as aside:
            atomic.link(path, aside)


def remove_base(folder: Path) -> None:
    """Removes the weights of a run that no adapters belong to any more, the index first."""
    atomic.remove(paths.index_file(folder / paths.BASE))
    for path in folder.glob(f"{paths.BASE}.data-*"):
        atomic.remove(path)


def clean_up(folder: Path) -> None:
    """Removes what processes that were killed left of saves that they had not finished."""
    left = filter(temporary.is_abandoned, folder.glob(f".*{temporary.PART}"))
    for path in (*paths.unfinished(folder), *left):
        atomic.remove(path)
    atomic.remove_folder(folder / paths.SAVING)
    named = paths.newest(folder)
    if named is None or named.parent.name != paths.REPLACED:
        atomic.remove_folder(folder / paths.REPLACED)


def commit(
    folder: Path, state: State, write: Callable[[Path, Path], None], *, size: int = 0
) -> Path:
    """Makes a step's checkpoint the run's newest, all of it or nothing; returns its prefix.

    The files are written aside, synced and moved into place, the index of the weights last; and
    only then does `checkpoint` name the step. `write` writes the weights and the optimiser state
    below the two prefixes it is given; that they will take `size` bytes is checked first. If
    OutputError or DiskError is raised, the checkpoints before are untouched.
    """
    safe = paths.newest(folder)
    remark = f"The checkpoint {safe} is safe." if safe else "No checkpoint was saved yet."
    aside = folder / paths.SAVING
    prefix = paths.weights(folder, state.step)
    with atomic.disk_errors(folder, remark):
        clean_up(folder)
        try:
            atomic.need_room(folder, size, remark)
            atomic.empty_folder(aside)
            write(paths.weights(aside, state.step), paths.optimizer(aside, state.step))
            seal(folder, aside, state)
            make_way(folder, prefix)
            for path in paths.files_by_step(aside)[state.step]:
                atomic.move(path, folder / path.name)
            # gpt-2-simple reads it.
            atomic.write_whole(folder / paths.COUNTER, f"{state.step}\n")
            point_to(folder, prefix)
        finally:
            with contextlib.suppress(OSError):
                clean_up(folder)
    return prefix


def seal(folder: Path, aside: Path, state: State) -> None:
    """Writes the state file beside a step's other files: their sizes and hashes, and its own.

    While this thread hashes, another one waits for the disk.
    """
    written = sorted(aside.iterdir())
    with ThreadPoolExecutor(1) as disk:
        synced = disk.map(atomic.sync, written)
        files = {path.name: fingerprint(path) for path in written}
        # It raises what one of them did.
        list(synced)
    names = [*paths.STATIC_FILES, paths.TOKENS]
    if state.lora_rank:
        # Its index holds the checksums of all the weights.
        names.append(paths.index_file(Path(paths.BASE)).name)
    static = {name: fingerprint(folder / name) for name in names if (folder / name).exists()}
    record = dataclasses.asdict(state) | {"format": FORMAT, "files": files, "static": static}
    text = json.dumps(record | {"sha256": digest(record)}, indent=1)
    atomic.write(paths.state(aside, state.step), text)


def make_way(folder: Path, prefix: Path) -> None:
    """Removes the files in a new checkpoint's place, of a run that is overwritten or a lost save.

    If they are the newest checkpoint, they stay so under other names until they are replaced:
    `checkpoint` names an intact one at every instant.
    """
    step = paths.step_of(prefix)
    old = paths.files_by_step(folder).get(step, [])
    if old and paths.newest(folder) == prefix:
        aside = folder / paths.REPLACED
        atomic.empty_folder(aside)
        for path in old:
            atomic.link(path, aside / path.name)
        atomic.sync(aside)
        point_to(folder, aside / prefix.name)
    for path in reversed(old):
        atomic.remove(path)


def point_to(folder: Path, prefix: Path) -> None:
    """Makes a checkpoint the one that the folder's `checkpoint` file names."""
    name = prefix.relative_to(folder).as_posix()
    atomic.write_whole(folder / paths.POINTER, paths.pointer_text(name))


def fingerprint(path: Path) -> dict[str, Any]:
    """Returns a file's size (bytes) and SHA-256."""
    digest = hashlib.sha256()
    with reading.opened(path) as file:
        while chunk := file.read(HASH_CHUNK_BYTES):
            digest.update(chunk)
    return {"size": path.stat().st_size, "sha256": digest.hexdigest()}


def rotate(folder: Path, keep: int, spare: frozenset[int] = frozenset()) -> None:
    """Removes a run's older checkpoints but the newest `keep` and those to spare.

    Files of steps beyond the newest are those of a run that was overwritten. What cannot be
    removed stays: an old file too many does not stop training.
    """
    current = paths.newest(folder)
    newest = paths.step_of(current) if current else 0
    found = paths.files_by_step(folder)
    whole = [step for step in paths.checkpoint_steps(folder) if step < newest]
    kept = {newest, *whole[max(0, len(whole) - (keep - 1)) :], *spare}
    for step, files in found.items():
        if any(path.suffix == ".meta" for path in files):
            # Only gpt-2-simple writes those: it is not ours to remove.
            continue
        # The index of the weights goes first: what is half removed must not look whole.
        for path in reversed(files if step not in kept else []):
            with contextlib.suppress(OSError):
                atomic.remove(path)
