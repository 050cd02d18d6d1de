"""A model's folder: which of its files are missing or wrong, and how they come to be right."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
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
from gpt2cli.fetching import bundled, manifest, tensors, verification
from gpt2cli.fetching.manifest import Model, ModelFile
from gpt2cli.fetching.partial_file import PartialFile
from gpt2cli.files import atomic, paths
from gpt2cli.files.lock import BusyError, locked
from gpt2cli.progress import Event, Received, amount, portion, told
from gpt2cli.records import Notice, Progress, Record
from gpt2cli.runtime.signals import Interrupted

if TYPE_CHECKING:
    from gpt2cli.fetching.transfer import Connection

Faults = dict[ModelFile, str]
PREFIX = "model.ckpt"


def plain_connection() -> Connection:
    """Returns how hosts are asked that need to know nothing of us."""
    # The libraries for the network take a while to load.
    from gpt2cli.fetching.responses import new_session
    from gpt2cli.fetching.retry_policy import retry_policy_from_environment
    from gpt2cli.fetching.transfer import Connection

    return Connection(session=new_session(), policy=retry_policy_from_environment())


def fetch_pinned(
    name: str,
    model_dir: str,
    *,
    mirrors: tuple[str, ...] = (),
    verify: bool = False,
    bars: bool = False,
) -> Iterator[Record]:
    """Makes the folder of one of OpenAI's models complete; yields what happens.

    What is there and good is left as it is, and then no network is needed.

    Args:
        name: such as 124M; `tiny` comes with gpt2cli and needs no network at all.
        model_dir: the folder that holds the base models.
        mirrors: addresses below which MODEL/FILE is looked for, before the model's own hosts.
        verify: whether to hash again what is there.
        bars: whether to draw bars on stderr; otherwise a line comes now and then.

    Raises:
        UsageError: no model has that name.
        BadDataError: what a host sends is not the file, twice.
        RefusedError: the hosts will not give a file.
        TryLaterError: the network is down; what has come is kept.
        OutputError, DiskError: the place cannot be written to.
    """
    folder = paths.model_folder(model_dir, name)
    if name in manifest.BUNDLED:
        yield from bundled.install(name, folder)
        return
    yield from complete(
        manifest.find_model(name), folder, Asking(mirrors=mirrors, bars=bars), verify
    )


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How to ask for the files of a model.

    Attributes:
        mirrors: addresses to ask before the model's own hosts.
        bars: whether to draw bars on stderr.
        connect: returns how hosts are asked; the libraries for the network take a while to load.
    """

    mirrors: tuple[str, ...] = ()
    bars: bool = False
    connect: Callable[[], Connection] = plain_connection


def complete(model: Model, folder: Path, asking: Asking, verify: bool = False) -> Iterator[Record]:
    """Makes a model's folder complete; raises as `fetch_pinned`."""
    faults = yield from inspect(model, folder, verify, asking.bars)
    with ExitStack() as stack:
        if faults:
            waited = yield from enter(stack, model.name, folder)
            if waited or not verify:
                faults = yield from inspect(model, folder, verify, asking.bars)
        if faults:
            yield from repair(model, folder, faults, asking)
        else:
            good = "complete, every file verified" if verify else "already there"
            yield Progress(f"{model.name} is {good}: {folder}")


def inspect(
    model: Model, folder: Path, verify: bool, bars: bool
) -> Generator[Record, None, Faults]:
    """Returns which files of a model are missing or wrong, and why."""
    faults: Faults = {}
    for file in model.files:
        path = folder / file.name
        try:
            reason = verification.quick_fault(model, file, path)
            if not reason and (verify or path.stat().st_size < verification.SMALL_BYTES):
                reason = yield from thorough_fault(model, file, path, verify, bars)
        except OSError as error:
            raise DiskError(f"Cannot read {path}: {error.strerror}.") from error
        if reason:
            faults[file] = reason
    return faults


def thorough_fault(
    model: Model, file: ModelFile, path: Path, verify: bool, bars: bool
) -> Generator[Record, None, str]:
    """Returns what is wrong with the bytes of a file that is there; ``""`` if they are right."""
    if not file.hashes:
        return tensors.checksum_fault(model, file, path.parent / PREFIX) if verify else ""
    if not verify:
        digest = file.new_hash()
        digest.update(path.read_bytes())
        return verification.hash_fault(file, digest.hexdigest())
    hashing = verification.Hashing(file, path)
    total = path.stat().st_size
    yield from told((Received(n, total) for n in hashing), f"verifying {path}", bars)
    return verification.hash_fault(file, hashing.digest)


def enter(stack: ExitStack, name: str, folder: Path) -> Generator[Record, None, bool]:
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


def repair(model: Model, folder: Path, faults: Faults, asking: Asking) -> Iterator[Record]:
    """Fetches the files that are missing or wrong."""
    size = sum(max(file.sizes, default=0) for file in faults)
    atomic.need_room(folder, size - sum(came(folder, file) for file in faults))
    files = "1 file" if len(faults) == 1 else f"{len(faults)} files"
    yield Progress(f"Fetching {model.name} into {folder}: {files}, {amount(size)}")
    for file, reason in faults.items():
        if reason != verification.MISSING:
            yield Notice(f"{folder / file.name} {reason}; it is fetched again.")
    connection = asking.connect()
    with connection.session:
        hosts = [*asking.mirrors, *model.hosts]
        fetcher = Fetcher(
            model=model, folder=folder, hosts=hosts, connection=connection, bars=asking.bars
        )
        for file in faults:
            yield from fetcher.bring(file)
    unpinned = [file.name for file in faults if not file.hashes]
    if unpinned:
        yield Notice(
            f"{model.name}: nobody has published a SHA-256 of {', '.join(unpinned)}: unpinned, "
            "verified by size, content and the tensors' own CRC-32C."
        )
    yield Progress(f"{model.name} is complete: {folder}")


def came(folder: Path, file: ModelFile) -> int:
    """Returns how much of a file has come before (bytes)."""
    partial = PartialFile(folder / file.name).path
    return partial.stat().st_size if partial.is_file() else 0


@dataclass(kw_only=True)
class Fetcher:
    """Fetches the files of one model.

    Attributes:
        model: which model.
        folder: where its files go.
        hosts: where to ask, in order; one that failed is asked last from then on.
        connection: how they are asked.
        bars: whether to draw bars.
        shown: the folder that messages name, if it is not the one.
    """

    model: Model
    folder: Path
    hosts: list[str]
    connection: Connection
    bars: bool
    shown: str | None = None

    def bring(self, file: ModelFile) -> Iterator[Record]:
        """Fetches one file from the first host that has it.

        Raises:
            RefusedError, TryLaterError, BadDataError: no host has it; the kind is that of the
                host that was asked first.
        """
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
        url = manifest.address(host, self.model.name, file.name)
        place = shortened(url)
        final = self.folder / file.name
        label = f"{self.shown or self.folder}/{file.name}"
        partial = PartialFile(final, file.new_hash)
        try:
            for retried in (False, True):
                yield from told(self._transfer(url, file, partial), label, self.bars)
                fault = self._fault(file, partial)
                if not fault:
                    partial.finish(final)
                    return
                partial.discard()
                if not retried:
                    yield Notice(f"{place}: what came {fault}; it is fetched again.")
            raise BadDataError(f"{place}: twice what came {fault}. {label} was left as it was.")
        except Interrupted as interrupted:
            so_far = portion(partial.size, max(file.sizes, default=None))
            interrupted.message = f"stopped at {so_far} of {label}; run again to resume"
            raise
        finally:
            partial.leave()

    def _transfer(self, url: str, file: ModelFile, partial: PartialFile) -> Iterator[Event]:
        from gpt2cli.fetching.transfer import Transfer, Wanted

        wanted = Wanted(url=url, sizes=file.sizes, pinned=bool(file.hashes))
        return Transfer(connection=self.connection, wanted=wanted, partial=partial).events()

    def _fault(self, file: ModelFile, partial: PartialFile) -> str:
        """Returns what is wrong with a file that has come; ``""`` if it is good."""
        if file.hashes:
            return verification.hash_fault(file, partial.digest)
        index = paths.index_file(self.folder / PREFIX)
        named = {index.name: index, file.name: partial.path}
        with tensors.under_final_names(self.folder, named) as aside:
            return tensors.checksum_fault(self.model, file, aside / PREFIX)
