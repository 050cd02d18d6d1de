"""Paths, folders and globs → the files of a corpus; what cannot be read is never passed over."""

from __future__ import annotations

import dataclasses
import fnmatch
import glob
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from gpt2cli.errors import BadDataError, MissingInputError, UsageError, shortened
from gpt2cli.records import Notice, Progress
from gpt2cli.text import decoding
from gpt2cli.text.sources import ARRAYS, STDIN_NAMES, Source, read_errors, source_of

# Git too takes a file for binary that has a NUL in its first bytes.
SNIFFED_BYTES = 8000
# How many of the files that are skipped are named without --verbose.
MOST_SKIPPED = 20


@dataclasses.dataclass(frozen=True)
class CorpusFiles:
    """The files of a corpus, in order; and what was found in folders and is not read, and why."""

    files: tuple[Source, ...]
    skipped: tuple[tuple[Path, str], ...] = ()

    def __str__(self) -> str:
        others = len(self.files) - 1
        return f"{self.files[0]}" + (f" and {others} more" if others else "")

    def plus(self, others: CorpusFiles) -> CorpusFiles:
        """Returns the files of both."""
        return CorpusFiles(self.files + others.files, self.skipped + others.skipped)

    def size(self) -> int:
        """Returns how much there is to read (bytes)."""
        return sum(source.size() for source in self.files)

    def remarks(self, *, all_skipped: bool = False) -> Iterator[Notice]:
        """Yields what was skipped; unless all is asked for, the first few and how many more."""
        shown = self.skipped if all_skipped else self.skipped[:MOST_SKIPPED]
        for path, reason in shown:
            yield Notice(f"skipped {shortened(path)}: {reason}")
        if len(shown) < len(self.skipped):
            more = len(self.skipped) - len(shown)
            yield Notice(f"skipped {more:,} more; --verbose names them")


def announce_streams(patterns: Iterable[str]) -> Iterator[Progress]:
    """Yields a line for each stream that `find` waits for; raises UsageError if it comes twice."""
    seen = set()
    for pattern in patterns:
        source = source_of(pattern)
        if source.stdin or (status_of(pattern) is not None and source.is_stream):
            if source.identity() in seen:
                raise UsageError(f"{source} is given twice, and can be read only once.")
            seen.add(source.identity())
            yield Progress(f"reading {source} to its end")


def find(
    patterns: Iterable[str], encoding: str = "utf-8", own: Iterable[str | None] = ()
) -> CorpusFiles:
    """Returns the files that paths and globs name: files, and all below folders, sorted.

    `-` is stdin. Pipes are read to their end. Our `own` folders of models and runs are not corpus
    unless one inside is named. Raises MissingInputError if a pattern names nothing, or a file that
    cannot be read; BadDataError if a file that was named is binary, or nothing is left to read.
    """
    patterns = tuple(patterns)
    folders = (Path(each).resolve() for each in own if each and os.path.isdir(each))  # noqa: PTH112
    search = Search(encoding=encoding, own=tuple(folders))
    for pattern in patterns:
        search.add(pattern)
    found = CorpusFiles(tuple(search.files), tuple(search.skipped))
    if not found.files:
        named = " ".join(map(shortened, patterns[:2])) + (" …" if patterns[2:] else "")
        first = next((f" ({remark.message})" for remark in found.remarks()), "")
        raise BadDataError(f"{named}: no text files in there{first}.")
    if not any(source.size() for source in found.files):
        raise BadDataError(f"{found}: empty. Give a file with text.")
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """A search for the files of a corpus, by `find`'s arguments, which collects `CorpusFiles`."""

    encoding: str
    own: tuple[Path, ...]
    files: list[Source] = dataclasses.field(default_factory=list)
    skipped: list[tuple[Path, str]] = dataclasses.field(default_factory=list)

    def add(self, pattern: str) -> None:
        """Adds what a path or a glob names; raises as `find` does."""
        if pattern in STDIN_NAMES:
            self._add_named(source_of(pattern))
            return
        matches, named = [Path(pattern)], Path(pattern)
        if not is_there(pattern):
            matches = expand_glob(pattern) if glob.has_magic(pattern) else []
            named = glob_root(pattern) / "*"
        if not matches:
            given = shortened(pattern) or "''"
            raise MissingInputError(f"{given}: no such file or folder, and no glob that matches.")
        folders = set[Path]()
        own = self._own_beside(named)
        for path in matches:
            if not folders.isdisjoint(path.parents):
                continue
            status = needed_status(path)
            if is_below(path, own):
                self.skipped.append((path, "gpt2cli's own"))
            elif stat.S_ISDIR(status.st_mode):
                folders.add(path)
                self._add_folder(path, own)
            else:
                self._add_named(Source(path))

    def _own_beside(self, named: Path) -> tuple[Path, ...]:
        """Returns our own folders, but for those that the user has named something in."""
        parents = Path(os.path.realpath(named)).parents
        return tuple(own for own in self.own if own not in parents)

    def _add_named(self, source: Source) -> None:
        if why := why_binary(source, self.encoding):
            raise BadDataError(f"{source} is {why}")
        self.files.append(source)

    def _add_folder(self, root: Path, own: tuple[Path, ...]) -> None:
        """Adds all files below a folder; one that several links lead to is read once."""
        seen: dict[tuple[int, int], Path] = {}
        waiting = [root]
        places = [found for folder in own if (found := status_of(folder))]
        while waiting:
            path = waiting.pop()
            if path != root and path.name.startswith("."):
                self.skipped.append((path, "hidden"))
                continue
            status = needed_status(path)
            first = seen.setdefault((status.st_dev, status.st_ino), path)
            # Only a link can lead from a folder that is not our own into one that is.
            leads_away = path == root or path.is_symlink()
            is_own = any(os.path.samestat(status, place) for place in places)
            if is_own or (leads_away and is_below(path, own)):
                self.skipped.append((path, "gpt2cli's own"))
            elif not stat.S_ISDIR(status.st_mode):
                self._add_found(path, status)
            elif first is not path:
                self.skipped.append((path, f"the same folder as {shortened(first)}"))
            else:
                waiting += reversed(children(path))

    def _add_found(self, path: Path, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            self.skipped.append((path, "neither a file nor a folder"))
        elif why := why_binary(Source(path), self.encoding):
            self.skipped.append((path, why.rstrip(".")))
        else:
            self.files.append(Source(path))


def is_below(path: Path, folders: Iterable[Path]) -> bool:
    """Returns whether a path leads to one of these folders, or into one."""
    real = Path(os.path.realpath(path))
    return any(real.is_relative_to(folder) for folder in folders)


def why_binary(source: Source, encoding: str) -> str | None:
    """Returns what a file is if a NUL near its beginning shows that it is not text, else None."""
    if source.kind in ARRAYS or b"\0" in "a".encode(encoding):
        return None
    with read_errors(source), source.open() as file:
        return decoding.why_binary(source.gunzip(file).read(SNIFFED_BYTES))


def status_of(path: str | Path) -> os.stat_result | None:
    """Returns the status of what a path leads to, or None; raises MissingInputError if refused."""
    try:
        return os.stat(path)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        if glob.has_magic(str(path)):
            # A glob may be longer than a name.
            return None
        reason = getattr(error, "strerror", None) or error
        raise MissingInputError(f"{shortened(path)} cannot be read: {reason}.") from error


def needed_status(path: Path) -> os.stat_result:
    """Returns the status of what was found; raises MissingInputError if it leads nowhere."""
    if status := status_of(path):
        return status
    if path.is_symlink():
        target = shortened(os.readlink(path))  # noqa: PTH115
        raise MissingInputError(
            f"{shortened(path)} is a link to {target}, which is not there. Mend or remove it."
        )
    raise MissingInputError(f"{shortened(path)} is not there any more.")


def is_there(path: str | Path) -> bool:
    """Returns whether a path names something, if only a link that leads nowhere."""
    return status_of(path) is not None or os.path.islink(path)  # noqa: PTH114


def children(folder: Path) -> list[Path]:
    """Returns what is in a folder, sorted; raises MissingInputError if it cannot be read."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise MissingInputError(
            f"{shortened(folder)} cannot be read: {error.strerror}. "
            "Make it readable, or name the files beside it."
        ) from error


def glob_root(pattern: str) -> Path:
    """Returns the folder in which a glob begins to look."""
    parts = Path(pattern).parts
    fixed = next((n for n, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return Path(*parts[:fixed])


def expand_glob(pattern: str) -> list[Path]:
    """Returns the paths that a glob matches, sorted; `**` is any folders.

    Raises MissingInputError for a folder that cannot be read; Python's `glob` would pass over it.
    """
    begin = glob_root(pattern)
    found = [begin]
    for part in Path(pattern).parts[len(begin.parts) :]:
        found = [path for folder in found for path in matching(folder, part)]
    return sorted(set(found))


def matching(folder: Path, part: str) -> Iterator[Path]:
    """Yields what in a folder matches one part of a glob; nothing for what is not a folder."""
    status = status_of(folder)
    if status is None or not stat.S_ISDIR(status.st_mode):
        return
    if part == "**":
        yield from folders_below(folder)
    elif not glob.has_magic(part):
        if is_there(folder / part):
            yield folder / part
    else:
        for path in children(folder):
            hidden = path.name.startswith(".") and not part.startswith(".")
            if not hidden and fnmatch.fnmatchcase(path.name, part):
                yield path


def folders_below(folder: Path) -> Iterator[Path]:
    """Yields a folder and those below it; one that several links lead to comes once."""
    seen, waiting = set[tuple[int, int]](), [folder]
    while waiting:
        path = waiting.pop()
        status = status_of(path)
        if status is None or not stat.S_ISDIR(status.st_mode):
            continue
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            yield path
            waiting += (each for each in reversed(children(path)) if each.name[0] != ".")
