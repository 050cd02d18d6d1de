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

from gpt2cli.errors import BadDataError
from gpt2cli.storage import atomic, folders, huggingface
from gpt2cli.storage.lock import locked

FORMAT = 1
HASH_CHUNK_BYTES = 1 << 20
AVERAGE_DECAY = 0.99


class UnfitError(BadDataError):
    """The run is whole, but not for this gpt2cli or not with these files; no older step is."""


@dataclasses.dataclass(frozen=True)
class State:
    """What a step's checkpoint holds beside weights and optimiser state.

    Attributes:
        step: optimiser steps since the run began.
        seed: of the run's windows, samples and dropout.
        model_name: the base model that the run began with.
        corpus: hash of the token file that the run trains on.
        windows: windows already drawn from that corpus.
        loss_sum: sum of all losses, each times 0.99 for every step since.
        loss_weight: sum of those weights.
        optimizer: the optimiser whose state was saved.
        held_out: which windows the best validation loss is of.
        best_step: the step with the lowest validation loss.
        best_loss: that loss (nats per token), or None where nothing was validated.
        since_best: validations since then.
    """

    step: int
    seed: int
    model_name: str
    corpus: str = ""
    windows: int = 0
    loss_sum: float = 0.0
    loss_weight: float = 0.0
    optimizer: str = "adam"
    held_out: str = ""
    best_step: int = 0
    best_loss: float | None = None
    since_best: int = 0

    @property
    def average(self) -> float:
        """The moving average of the loss over all steps (nats per token)."""
        return self.loss_sum / self.loss_weight

    def after(self, loss: float, windows: int) -> State:
        """Returns the state one step later, which had this loss and drew so many windows."""
        return dataclasses.replace(
            self,
            step=self.step + 1,
            windows=self.windows + windows,
            loss_sum=self.loss_sum * AVERAGE_DECAY + loss,
            loss_weight=self.loss_weight * AVERAGE_DECAY + 1,
        )

    def validated(self, loss: float, held_out: str) -> State:
        """Returns the state after a validation; a best loss counts for the same windows alone."""
        known = self.best_loss if self.held_out == held_out else None
        if known is None or loss < known:
            return dataclasses.replace(
                self, held_out=held_out, best_step=self.step, best_loss=loss, since_best=0
            )
        return dataclasses.replace(self, since_best=self.since_best + 1)


@contextlib.contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Makes a run folder and keeps other processes from training in it within the block.

    If the block fails before anything was written, the folder is removed again.

    Raises:
        TryLaterError: another process trains in it.
        OutputError: it cannot be made.
    """
    lock_file = folder / "lock"
    with atomic.disk_errors(folder):
        made = atomic.make_folders(folder)
        stack = contextlib.ExitStack()
        stack.enter_context(locked(lock_file, f"The run {folder}"))
    with stack:
        try:
            yield
        except BaseException:
            if made and [path.name for path in folder.iterdir()] == [lock_file.name]:
                lock_file.unlink()
                atomic.remove_empty(made)
            raise


def prepare(folder: Path, source: Path) -> None:
    """Copies the model's description and vocabulary into a run folder that lacks them.

    Raises:
        OutputError: the folder cannot be written to.
        DiskError: the disk is full or fails.
    """
    with atomic.disk_errors(folder):
        sweep(folder)
        for name in folders.STATIC_FILES:
            if not (folder / name).exists():
                atomic.write_whole(folder / name, huggingface.static_file(source, name))


def sweep(folder: Path) -> None:
    """Removes what processes that were killed left of saves that they had not finished."""
    for path in (*folders.unfinished(folder), *folder.glob(f".*{atomic.PART}")):
        atomic.remove(path)
    atomic.remove_folder(folder / folders.SAVING)
    named = folders.newest(folder)
    if named is None or named.parent.name != folders.REPLACED:
        atomic.remove_folder(folder / folders.REPLACED)


def commit(
    folder: Path, state: State, write: Callable[[Path, Path], None], *, size: int = 0
) -> Path:
    """Makes a step's checkpoint the run's newest, all of it or nothing; returns its prefix.

    The files are written aside, synced and moved into place, the index of the weights last; and
    only then does `checkpoint` name the step.

    Args:
        folder: the run folder.
        state: the step's state.
        write: writes the weights and the optimiser state below the two prefixes it is given.
        size: what that will take on the disk (bytes); it is checked first.

    Raises:
        OutputError: the folder cannot be written to.
        DiskError: the disk is full or fails; the checkpoints before are untouched.
    """
    safe = folders.newest(folder)
    remark = f"The checkpoint {safe} is safe." if safe else "No checkpoint was saved yet."
    aside = folder / folders.SAVING
    prefix = folders.weights(folder, state.step)
    with atomic.disk_errors(folder, remark), swept(folder):
        atomic.need_room(folder, size, remark)
        atomic.make_folders(aside)
        write(folders.weights(aside, state.step), folders.optimizer(aside, state.step))
        seal(folder, aside, state)
        make_way(folder, prefix)
        for path in folders.files_by_step(aside)[state.step]:
            atomic.move(path, folder / path.name)
        point_to(folder, prefix)
        atomic.write_whole(folder / folders.COUNTER, f"{state.step}\n")
    return prefix


@contextlib.contextmanager
def swept(folder: Path) -> Iterator[None]:
    """Sweeps a run folder before the block, and again after it, as far as that is possible."""
    sweep(folder)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            sweep(folder)


def seal(folder: Path, aside: Path, state: State) -> None:
    """Writes the state file beside a step's other files: their sizes and hashes, and its own.

    While this thread hashes, another one waits for the disk.
    """
    written = sorted(aside.iterdir())
    with ThreadPoolExecutor(1) as disk:
        synced = [disk.submit(atomic.sync, path) for path in written]
        files = {path.name: fingerprint(path) for path in written}
        for waiting in synced:
            waiting.result()
    static = [folder / name for name in folders.STATIC_FILES if (folder / name).exists()]
    record = dataclasses.asdict(state) | {
        "format": FORMAT,
        "files": files,
        "static": {path.name: fingerprint(path) for path in static},
    }
    path = folders.state(aside, state.step)
    atomic.write(path, json.dumps(record | {"sha256": digest(record)}, indent=1))


def make_way(folder: Path, prefix: Path) -> None:
    """Removes the files in a new checkpoint's place, of a run that is overwritten or a lost save.

    Where they are the newest checkpoint, they go on being it under other names until they are
    replaced: `checkpoint` names something whole at every instant.
    """
    step = folders.step_of(prefix)
    old = folders.files_by_step(folder).get(step, [])
    if old and folders.newest(folder) == prefix:
        aside = folder / folders.REPLACED
        atomic.remove_folder(aside)
        atomic.make_folders(aside)
        for path in old:
            atomic.link(path, aside / path.name)
        atomic.sync(aside)
        point_to(folder, aside / prefix.name)
    for path in reversed(old):
        atomic.remove(path)


def point_to(folder: Path, prefix: Path) -> None:
    """Makes a checkpoint the one that the folder's `checkpoint` file names."""
    name = prefix.relative_to(folder).as_posix()
    atomic.write_whole(folder / folders.POINTER, folders.pointer_text(name))


def fingerprint(path: Path) -> dict[str, Any]:
    """Returns a file's size (bytes) and SHA-256."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(HASH_CHUNK_BYTES):
            digest.update(chunk)
    return {"size": path.stat().st_size, "sha256": digest.hexdigest()}


def digest(record: dict[str, Any]) -> str:
    """Returns the SHA-256 of a state file's content, its own hash left out."""
    rest = {key: value for key, value in record.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_record(folder: Path, step: int) -> dict[str, Any]:
    """Returns all that a step's state file says.

    Raises:
        UnfitError: it is of a newer format.
        BadDataError: it is damaged.
    """
    path = folders.state(folder, step)
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if record.get("sha256") not in (None, digest(record)):
            raise BadDataError(f"{path} is damaged: its hash is not the one it holds.")
        if record["format"] > FORMAT:
            raise UnfitError(
                f"{path} has format {record['format']}; this gpt2cli knows up to {FORMAT}. "
                "Upgrade gpt2cli, or give another --run-name."
            )
        if record["step"] != step:
            raise BadDataError(f"{path} is damaged: it is the state of step {record['step']}.")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadDataError(f"{path} is damaged: {error!r}.") from error
    return record


def read_state(folder: Path, step: int) -> State:
    """Returns a step's state.

    Raises:
        UnfitError: it is of a newer format.
        BadDataError: it is damaged.
    """
    record = read_record(folder, step)
    fields = {field.name for field in dataclasses.fields(State)}
    try:
        return State(**{name: value for name, value in record.items() if name in fields})
    except TypeError as error:
        raise BadDataError(f"{folders.state(folder, step)} is damaged: {error}.") from error


def rotate(folder: Path, keep: int, spare: frozenset[int] = frozenset()) -> None:
    """Removes a run's older checkpoints but the newest `keep` and those to spare.

    Files of steps beyond the newest are those of a run that was overwritten. What cannot be
    removed stays: an old file too many is no reason to stop training.
    """
    current = folders.newest(folder)
    newest = folders.step_of(current) if current else 0
    found = folders.files_by_step(folder)
    whole = [step for step in folders.checkpoint_steps(folder) if step < newest]
    kept = {newest, *whole[max(0, len(whole) - (keep - 1)) :], *spare}
    for step, paths in found.items():
        if any(path.suffix == ".meta" for path in paths):
            # Only gpt-2-simple writes those: it is not ours to remove.
            continue
        # The index of the weights goes first: what is half removed must not look whole.
        for path in reversed(paths if step not in kept else []):
            with contextlib.suppress(OSError):
                atomic.remove(path)
