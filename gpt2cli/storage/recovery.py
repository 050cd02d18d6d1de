"""The newest checkpoint of a run that is whole, and what becomes of those that are not."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gpt2cli.errors import BadDataError, MissingInputError, shortened
from gpt2cli.files import atomic, paths
from gpt2cli.hparams import HParams, read_hparams
from gpt2cli.reading import DAMAGE, UnreadableError, refusal
from gpt2cli.storage import bundle, run
from gpt2cli.storage.state import State, UnfitError, read_record, read_state

DAMAGED = ".damaged"
# How often a reader begins again because the run went on while it read.
TRIES = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Intact:
    """A checkpoint of a run whose files are all as they were written.

    It has no state if gpt-2-simple wrote it. Newer checkpoints that are damaged have a reason each.
    """

    prefix: Path
    hparams: HParams
    state: State | None
    damaged: Mapping[Path, str] = dataclasses.field(default_factory=dict)


def newest_intact(folder: Path, *, resume: bool) -> Intact:
    """Returns a run's newest checkpoint whose files are whole; reads only.

    To resume training, the optimiser's files must be whole too. Raises as `verify` does; but
    BadDataError if no checkpoint is whole, with what is wrong with each. If one cannot be read, it
    may be whole: no older one is taken.
    """
    for _ in range(TRIES):
        named = paths.newest(folder)
        found, damaged = first_intact(folder, resume=resume)
        # Another process may have saved, and removed what we were reading.
        if not damaged or paths.newest(folder) == named:
            break
    if found:
        return found
    reasons = shortened(" ".join(damaged.values()), 300) or "none of their files is there."
    raise BadDataError(
        f"No checkpoint of {shortened(folder)} is whole: {reasons} Nothing was changed. "
        "Put a copy back, or give another --run-name or --restore-from."
    )


def first_intact(folder: Path, *, resume: bool) -> tuple[Intact | None, dict[Path, str]]:
    """Returns the first candidate that is whole, and why those before it are not."""
    for name in paths.STATIC_FILES:
        if not (folder / name).is_file():
            raise UnfitError(
                f"{folder / name} is missing; the run folder is half copied. Copy the file from "
                "the base model, or give another --run-name."
            )
    damaged: dict[Path, str] = {}
    for prefix in candidates(folder):
        try:
            found = verify(folder, prefix, resume=resume)
            return dataclasses.replace(found, damaged=damaged), damaged
        except (UnfitError, UnreadableError):
            raise
        except (BadDataError, MissingInputError) as error:
            damaged[prefix] = str(error)
    return None, damaged


def candidates(folder: Path) -> list[Path]:
    """Returns the prefixes of a run's checkpoints in the order in which they are to be tried.

    First the one that `checkpoint` names, then those before it, then those beyond it: they were
    never reported as saved, or belong to a run that was overwritten.
    """
    named = paths.newest(folder)
    lost = {paths.step_of(path) for path in paths.unfinished(folder)}
    steps = sorted(paths.files_by_step(folder), reverse=True)
    prefixes = [paths.weights(folder, step) for step in steps if step not in lost]
    if named and (last := paths.step_of(named)):
        # The order within each group is kept: from the newest down.
        prefixes.sort(key=lambda prefix: paths.step_of(prefix) > last)
        prefixes = [named, *(prefix for prefix in prefixes if prefix != named)]
    return prefixes


def verify(folder: Path, prefix: Path, *, resume: bool) -> Intact:
    """Returns a checkpoint whose files are checked.

    Raises:
        UnfitError: its state is whole, but the run's other files are not those it belongs to.
        BadDataError: a file of it is damaged or missing.
        UnreadableError: a file of it cannot be read, whatever it holds.
    """
    step, aside = paths.step_of(prefix), prefix.parent
    try:
        check_readable(folder / paths.HPARAMS, *paths.files_by_step(aside).get(step, []))
        hparams = read_hparams(folder / paths.HPARAMS)
        own = (paths.state(aside, step), paths.index_file(paths.optimizer(aside, step)))
        if not any(path.exists() for path in own):
            bundle.check_weights(prefix, hparams)
            bundle.check_sums(prefix)
            return Intact(prefix=prefix, hparams=hparams, state=None)
        record = read_record(aside, step)
        check_static(folder, record)
        names = [name for name in record["files"] if resume or name.startswith("model-")]
        check_files(aside, {name: record["files"][name] for name in names})
        bundle.check_weights(prefix, hparams)
        return Intact(prefix=prefix, hparams=hparams, state=read_state(aside, step))
    except OSError as error:
        if error.errno in DAMAGE:
            where = f"{shortened(error.filename or prefix)}: {error.strerror}."
            raise BadDataError(f"Cannot read {where}") from error
        raise refusal(error, prefix) from error


def check_readable(*paths: Path) -> None:
    """Raises the refusal to read one of the files, unless it means that the file is damaged."""
    for path in paths:
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            if error.errno not in DAMAGE:
                raise refusal(error, path) from error


def check_files(folder: Path, expected: Mapping[str, Mapping[str, Any]]) -> None:
    """Checks the sizes of a checkpoint's files, and then their hashes, two at a time."""
    check_sizes(folder, expected)
    with ThreadPoolExecutor(2) as readers:
        prints = readers.map(run.fingerprint, [folder / name for name in expected])
        for name, found in zip(expected, prints, strict=True):
            if found["sha256"] != expected[name]["sha256"]:
                raise BadDataError(f"{folder / name} is damaged: its SHA-256 is another one.")


def check_sizes(folder: Path, expected: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises BadDataError unless the files of a checkpoint are there and as long as they were."""
    for name, facts in expected.items():
        path = folder / name
        if not path.is_file():
            raise BadDataError(f"{path} is missing.")
        if (size := path.stat().st_size) != facts["size"]:
            raise BadDataError(f"{path} should have {facts['size']} bytes; it has {size}.")


def check_static(folder: Path, record: Mapping[str, Any]) -> None:
    """Raises UnfitError unless shape and vocabulary are those that the run was trained with."""
    for name, facts in record.get("static", {}).items():
        if not (folder / name).exists():
            raise UnfitError(
                f"{folder / name} is missing; the run folder is half copied. Copy it whole, or "
                "give another --run-name."
            )
        found = run.fingerprint(folder / name)
        if found != facts:
            raise UnfitError(
                f"{folder / name} is not the one that the run was trained with: its SHA-256 is "
                f"{found['sha256'][:16]}…, and state-{record['step']}.json says "
                f"{facts['sha256'][:16]}…. Copy it from the base model, or give another "
                "--run-name or --restore-from."
            )


def quarantine(folder: Path, found: Intact) -> list[str]:
    """Sets damaged checkpoints aside, and names the one that is whole; returns what was done."""
    with atomic.disk_errors(folder, f"The checkpoint {found.prefix} is safe."):
        for prefix in found.damaged:
            for path in paths.files_by_step(prefix.parent).get(paths.step_of(prefix), []):
                atomic.move(path, free_name(path))
        if paths.newest(folder) != found.prefix:
            run.point_to(folder, found.prefix)
        run.clean_up(folder)
    return [f"{prefix}.* is kept as {prefix}.*{DAMAGED}" for prefix in found.damaged]


def free_name(path: Path) -> Path:
    """Returns the first name for a damaged file that nothing has yet."""
    names = [f"{path.name}{DAMAGED}"]
    while os.path.lexists(path.with_name(names[-1])):
        names.append(f"{path.name}{DAMAGED}-{len(names) + 1}")
    return path.with_name(names[-1])
