"""A model's folder: which of its files are missing or wrong, and how they come to be right."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2cli.errors import (
    BadDataError,
    DiskError,
    RefusedError,
    TryLaterError,
    UsageError,
    shortened,
)
from gpt2cli.fetching import manifest, verification
from gpt2cli.fetching.manifest import Model, ModelFile
from gpt2cli.fetching.partial_file import PartialFile, hashing, size_of
from gpt2cli.files import atomic, paths
from gpt2cli.files.lock import BusyError, locked
from gpt2cli.progress import Received, amount, told
from gpt2cli.records import Notice, Progress, Record
from gpt2cli.runtime.signals import Interrupted

if TYPE_CHECKING:
    from gpt2cli.fetching.transfer import Connection

Faults = dict[ModelFile, str]


@dataclass(frozen=True, kw_only=True)
class FetchOptions:
    """How a model is fetched.

    Attributes:
        mirrors: addresses below which MODEL/FILE is looked for, before the model's own hosts.
        verify: whether to hash again what is there.
        bars: whether to draw bars, and not to tell a line now and then.
    """

    mirrors: tuple[str, ...] = ()
    verify: bool = False
    bars: bool = False


def complete(model: Model, folder: Path, options: FetchOptions) -> Iterator[Record]:
    """Makes a model's folder complete; raises as `fetch_model`."""
    faults = yield from inspect(model, folder, options)
    with contextlib.ExitStack() as stack:
        if faults:
            waited = yield from enter(stack, model.name, folder)
            if waited or not options.verify:
                faults = yield from inspect(model, folder, options)
        if faults:
            yield from repair(model, folder, faults, options)
        else:
            good = "complete, every file verified" if options.verify else "already there"
            yield Progress(f"{model.name} is {good}: {folder}")


def inspect(model: Model, folder: Path, options: FetchOptions) -> Generator[Record, None, Faults]:
    """Returns which files of a model are missing or wrong, and why."""
    faults: Faults = {}
    for file in model.files:
        path = folder / file.name
        try:
            reason = verification.quick_fault(model, file, path)
            reason = reason or (yield from thorough_fault(model, file, path, options))
        except OSError as error:
            raise DiskError(f"Cannot read {path}: {error.strerror}.") from error
        if reason:
            faults[file] = reason
    return faults


def thorough_fault(
    model: Model, file: ModelFile, path: Path, options: FetchOptions
) -> Generator[Record, None, str]:
    """Returns what is wrong with the bytes of a file that is there; ``""`` if they are right."""
    total = path.stat().st_size
    if not options.verify and (not file.hashes or total >= verification.SMALL_BYTES):
        return ""
    if not file.hashes:
        return verification.content_fault(model, file, path, thorough=True)
    digest = file.new_hash()
    if options.verify:
        with path.open("rb") as opened:
            events = (Received(n, total) for n in hashing(opened, digest))
            yield from told(events, f"verifying {path}", options.bars)
    else:
        digest.update(path.read_bytes())
    return verification.hash_fault(file, digest.hexdigest())


def enter(stack: contextlib.ExitStack, name: str, folder: Path) -> Generator[Record, None, bool]:
    """Makes the folder and locks it until the stack ends; returns whether that took a wait."""
    with atomic.disk_errors(folder):
        stack.enter_context(atomic.made_folders(folder))
    path, what = folder.with_name(f".{folder.name}.lock"), f"{folder}"
    try:
        with atomic.disk_errors(path):
            stack.enter_context(locked(path, what))
    except BusyError as busy:
        yield Notice(f"{name} is being fetched by {busy.holder}; waiting for it.")
        stack.enter_context(locked(path, what, wait=lambda _holder: None))
        return True
    return False


def repair(model: Model, folder: Path, faults: Faults, options: FetchOptions) -> Iterator[Record]:
    """Fetches the files that are missing or wrong."""
    # The libraries for the network take a while to load.
    from gpt2cli.fetching.hub_api import new_connection

    size = sum(max(file.sizes, default=0) for file in faults)
    came = sum(size_of(PartialFile(folder / file.name).path) or 0 for file in faults)
    atomic.need_room(folder, size - came)
    files = "1 file" if len(faults) == 1 else f"{len(faults)} files"
    yield Progress(f"Fetching {model.name} into {folder}: {files}, {amount(size)}")
    for file, reason in faults.items():
        if reason != verification.MISSING:
            yield Notice(f"{folder / file.name} {reason}; it is fetched again.")
    connection = new_connection(model.hub)
    with connection.session:
        fetcher = Fetcher(model=model, folder=folder, connection=connection, bars=options.bars)
        fetcher.hosts[:0] = options.mirrors
        for file in faults:
            yield from fetcher.bring(file)
    unpinned = [file.name for file in faults if not file.hashes]
    if unpinned:
        yield Notice(
            f"{model.name}: nobody has published a SHA-256 of {', '.join(unpinned)}: unpinned, "
            "verified by size, content and the tensors' own CRC-32C."
        )
    yield Progress(f"{model.name} is complete: {folder}")


@dataclass(kw_only=True)
class Fetcher:
    """Fetches the files of one model into a folder, which messages may call otherwise (`shown`)."""

    model: Model
    folder: Path
    connection: Connection
    bars: bool
    shown: str | None = None

    def __post_init__(self) -> None:
        # One that failed is asked last from then on.
        self.hosts = [*self.model.hosts]

    def bring(self, file: ModelFile) -> Iterator[Record]:
        """Fetches one file from the first host that has it; raises as the first one if none has."""
        failures: list[RefusedError | TryLaterError | BadDataError] = []
        for host in tuple(self.hosts):
            if failures:
                yield Notice(f"{failures[-1]}")
                yield Notice(f"{file.name}: trying the next host.")
            try:
                yield from self._bring_from(host, file)
                return
            except (RefusedError, TryLaterError, BadDataError) as error:
                failures.append(error)
                self.hosts.remove(host)
                self.hosts.append(host)
        if not failures:
            raise UsageError(f"No host is known for {self.model.name}: give --mirror URL.")
        first, *others = failures
        if not others:
            raise first
        # The notices above have named the others, all but the last in full.
        last = f"The same file elsewhere: {shortened(others[-1], 200)}"
        raise type(first)(f"{shortened(first, 270)}\n{last}")

    def _bring_from(self, host: str, file: ModelFile) -> Iterator[Record]:
        from gpt2cli.fetching.transfer import Transfer

        final = self.folder / file.name
        label = f"{self.shown or self.folder}/{file.name}"
        partial = PartialFile(final, file.new_hash)
        transfer = Transfer(
            connection=self.connection,
            partial=partial,
            url=manifest.address(host, self.model.name, file.name),
            sizes=file.sizes,
            pinned=bool(file.hashes),
        )
        try:
            for retried in (False, True):
                yield from told(transfer.events(), label, self.bars)
                fault = self._fault(file, partial)
                if not fault:
                    partial.finish(final)
                    return
                partial.discard()
                if not retried:
                    yield Notice(f"{transfer.place}: what came {fault}; it is fetched again.")
            raise BadDataError(
                f"{transfer.place}: twice what came {fault}. {label} was left as it was."
            )
        except Interrupted as interrupted:
            interrupted.message = f"stopped at {transfer.so_far} of {label}; run again to resume"
            raise
        finally:
            partial.leave()

    def _fault(self, file: ModelFile, partial: PartialFile) -> str:
        """Returns what is wrong with a file that has come; ``""`` if it is good."""
        if file.hashes:
            return verification.hash_fault(file, partial.digest)
        # A checkpoint's index and data are one only by their names, and neither may have its final
        # name before it is known to be good: links have them in a folder aside.
        index, aside = paths.index_file(self.folder / verification.PREFIX), self.folder / ".check"
        with atomic.disk_errors(aside):
            atomic.empty_folder(aside)
            for name, path in {index.name: index, file.name: partial.path}.items():
                (aside / name).symlink_to(path.absolute())
        try:
            return verification.content_fault(self.model, file, aside / file.name, thorough=True)
        finally:
            with contextlib.suppress(OSError):
                atomic.remove_folder(aside)
