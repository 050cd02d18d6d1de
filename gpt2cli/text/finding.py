"""Which files a corpus consists of: files, folders, globs and pipes."""

from __future__ import annotations

import dataclasses
import glob
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from gpt2cli.errors import BadDataError, MissingInputError, UsageError, shortened
from gpt2cli.text import encodings, globs
from gpt2cli.text.sources import (
    ARRAYS,
    STDIN,
    STDIN_NAMES,
    Skipped,
    Source,
    Sources,
    source_of,
    unzipping,
)

# A file with a NUL in its first bytes is no text; git judges so too.
SNIFFED_BYTES = 8000
GZIP_MAGIC = b"\x1f\x8b"


def find(
    patterns: Iterable[str], encoding: str = "utf-8", own: Iterable[str | Path] = ()
) -> Sources:
    """Returns the files that the patterns name: files, folders (all below, sorted) and globs.

    Args:
        patterns: paths or globs; `-` is stdin. Pipes are read to their end.
        encoding: how text is written; some encodings have a NUL in every character.
        own: folders where nothing is corpus: models and runs. What is named inside is read.

    Raises:
        MissingInputError: a pattern names nothing, or what cannot be read.
        BadDataError: a file that was named is binary, or nothing is left to read.
        UsageError: stdin or a pipe is named twice.
    """
    patterns = tuple(patterns)
    check_once(patterns)
    search = Search(encoding, tuple(Path(os.path.realpath(folder)) for folder in own))
    for pattern in patterns:
        search.add(pattern)
    found = Sources(tuple(search.files), tuple(search.skipped))
    if not found.files:
        named = " ".join(map(shortened, patterns[:2])) + (" …" if patterns[2:] else "")
        told = f" ({found.skipped[0]})" if found.skipped else ""
        raise BadDataError(f"{named}: no text files in there{told}.")
    if not any(source.size() for source in found.files):
        raise BadDataError(f"{found}: empty. Give a file with text.")
    return found


def check_once(patterns: Iterable[str]) -> None:
    """Raises UsageError where stdin or a pipe is named twice: it can be read only once."""
    seen: set[str] = set()
    for source in pipes(patterns):
        name = STDIN if source.stdin else os.path.realpath(source.path)
        if name in seen:
            raise UsageError(f"{source} is given twice, and can be read only once.")
        seen.add(name)


def pipes(patterns: Iterable[str]) -> list[Source]:
    """Returns stdin and the pipes among what is named.

    Raises:
        MissingInputError: a file may not be looked at.
    """
    found = []
    for pattern in patterns:
        source = source_of(pattern)
        if source.stdin or (globs.status_of(pattern) is not None and source.once):
            found.append(source)
    return found


@dataclasses.dataclass(frozen=True)
class Search:
    """A search for the files of a corpus.

    Attributes:
        encoding: how text is written.
        own: real paths of folders where nothing is corpus.
        files: what was found to read.
        skipped: what was found, and is not read.
    """

    encoding: str
    own: tuple[Path, ...]
    files: list[Source] = dataclasses.field(default_factory=list)
    skipped: list[Skipped] = dataclasses.field(default_factory=list)

    def add(self, pattern: str) -> None:
        """Adds what a path or a glob names.

        Raises:
            MissingInputError: it names nothing, or what cannot be read.
            BadDataError: it names a binary file.
        """
        if pattern in STDIN_NAMES:
            self._add_named(source_of(pattern))
        elif (status := globs.status_of(pattern)) is not None:
            path = Path(pattern)
            if stat.S_ISDIR(status.st_mode):
                self._add_folder(path, self._foreign(path))
            else:
                self._add_named(Source(path))
        elif os.path.islink(pattern):  # noqa: PTH114
            raise globs.missing(Path(pattern))
        else:
            self._add_glob(pattern)

    def _foreign(self, named: Path) -> tuple[Path, ...]:
        """Returns the folders that nothing is taken from: not those that the user named into."""
        real = Path(os.path.realpath(named))
        return tuple(own for own in self.own if own not in real.parents)

    def _add_named(self, source: Source) -> None:
        if why := binary(source, self.encoding):
            raise BadDataError(f"{source} is {why}")
        self.files.append(source)

    def _add_glob(self, pattern: str) -> None:
        matches = globs.expanded(pattern) if glob.has_magic(pattern) else []
        folders = set[Path]()
        if not matches:
            named = shortened(pattern) or "''"
            raise MissingInputError(f"{named}: no such file or folder, and no glob that matches.")
        own = self._foreign(globs.root(pattern) / "*")
        for path in matches:
            if not folders.isdisjoint(path.parents):
                continue
            status = globs.needed_status(path)
            if self._is_own(path, own):
                self.skipped.append(Skipped(path, "gpt2cli's own"))
            elif stat.S_ISDIR(status.st_mode):
                folders.add(path)
                self._add_folder(path, own)
            else:
                self._add_named(Source(path))

    def _is_own(self, path: Path, own: tuple[Path, ...]) -> bool:
        real = os.path.realpath(path)
        return any(Path(real).is_relative_to(folder) for folder in own)

    def _add_folder(self, root: Path, own: tuple[Path, ...]) -> None:
        """Adds all files below a folder; one that several links lead to is read once."""
        seen: dict[tuple[int, int], Path] = {}
        waiting = [root]
        places = [found for folder in own if (found := globs.status_of(folder))]
        while waiting:
            path = waiting.pop()
            if path != root and path.name.startswith("."):
                self.skipped.append(Skipped(path, "hidden"))
                continue
            status = globs.needed_status(path)
            first = seen.setdefault((status.st_dev, status.st_ino), path)
            # What is below a folder that is not our own is not either, but for a link.
            leads_away = path == root or path.is_symlink()
            if (leads_away and self._is_own(path, own)) or is_one_of(status, places):
                self.skipped.append(Skipped(path, "gpt2cli's own"))
            elif not stat.S_ISDIR(status.st_mode):
                self._add_file(path, status)
            elif first is not path:
                self.skipped.append(Skipped(path, f"the same folder as {shortened(first)}"))
            else:
                waiting += reversed(globs.children(path))

    def _add_file(self, path: Path, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            self.skipped.append(Skipped(path, "neither a file nor a folder"))
        elif why := binary(Source(path), self.encoding):
            self.skipped.append(Skipped(path, why.rstrip(".")))
        else:
            self.files.append(Source(path))


def is_one_of(status: os.stat_result, places: list[os.stat_result]) -> bool:
    """Returns whether a folder is one of these."""
    return any(os.path.samestat(status, place) for place in places)


def binary(source: Source, encoding: str = "utf-8") -> str | None:
    """Returns what a file is that has a NUL byte near its beginning, and no text; None for text."""
    if source.kind in ARRAYS or b"\0" in "a".encode(encoding):
        return None
    with unzipping(source), source.stored() as file:
        content = source.unpacked(file).read(SNIFFED_BYTES)
    if b"\0" not in content:
        return None
    if name := encodings.wide(content):
        return f"binary, or text in {name}: give --encoding {name}."
    if content.startswith(GZIP_MAGIC):
        return "packed by gzip, which only a name in .gz tells; unpack it: zcat."
    return "binary, not text."
