"""The bytes of a corpus: zipped ones, pipes and stdin, and what is no file."""

from __future__ import annotations

import errno
import gzip
import io
import os
import re
import tempfile
import threading
import types
from collections.abc import Hashable
from pathlib import Path
from typing import IO, Any

import pytest

from gpt2cli.config.shared import CorpusOptions
from gpt2cli.errors import BadDataError, DiskError, MissingInputError
from gpt2cli.text import finding, sources
from gpt2cli.text.documents import find_corpora
from gpt2cli.text.token_files import Encoder
from tests import models
from tests.sources import returned


@pytest.mark.parametrize(
    ("name", "kind", "zipped"),
    [
        ("a.txt", "text", False),
        ("README", "text", False),
        ("a.CSV", "csv", False),
        ("a.b.csv.gz", "csv", True),
        ("a.jsonl.GZ", "jsonl", True),
        ("a.npz", "npz", False),
        ("a.npy.gz", "npy", True),
        ("a.gz", "text", True),
        ("a.tsv", "tsv", False),
        ("a.json.gz", "json", True),
        ("a.NDJSON", "jsonl", False),
    ],
)
def test_a_files_name_says_how_it_is_read(name: str, kind: str, zipped: bool) -> None:
    source = sources.Source(Path(name))
    assert (source.kind, source.gzipped) == (kind, zipped)


def test_a_zipped_file_reads_as_what_was_zipped(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "a.gz").write_bytes(gzip.compress(content[:1000]) + gzip.compress(content[1000:]))
    meter = sources.ReadingState()
    assert b"".join(sources.read_bytes(sources.Source(tmp_path / "a.gz"), meter)) == content
    assert meter.done == (tmp_path / "a.gz").stat().st_size


@pytest.mark.parametrize("damage", ["cut", "flipped", "plain"])
def test_a_damaged_zipped_file_is_refused_by_name(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    whole = gzip.compress(b"some text that is not very long")
    flipped = whole[:-6] + bytes([whole[-6] ^ 1]) + whole[-5:]
    path.write_bytes({"cut": whole[:-9], "flipped": flipped, "plain": b"text"}[damage])
    with pytest.raises(BadDataError, match=r"a\.txt\.gz is not a whole gzip file"):
        list(sources.read_bytes(sources.Source(path)))


def test_stdin_can_be_read_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"line\n" * 1_000_000
    kept: dict[Hashable, IO[bytes]] = {}
    monkeypatch.setattr(sources, "COPIES", kept)
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(content)))
    found = finding.find(["-"])
    assert found.size() == len(content)
    assert str(found) == "stdin"
    first, again = (b"".join(sources.read_bytes(found.files[0])) for _ in range(2))
    kept[sources.STDIN].close()
    assert first == again == content


def test_a_file_whose_name_is_that_of_stdin_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-").write_text("text")
    assert b"".join(sources.read_bytes(finding.find(["./-"]).files[0])) == b"text"


def file_name(pattern: str, **options: Any) -> str:
    """Returns the name of a corpus's token file."""
    settings = CorpusOptions(dataset=(), **options)
    [found] = returned(find_corpora([[pattern]], settings))
    return Encoder(options=settings, tokenizer=models.real_tokenizer()).file_name(found)


def test_the_hash_tells_contents_order_borders_and_kinds(tmp_path: Path) -> None:
    hashes = set()
    for number, texts in enumerate([["ab"], ["a", "b"], ["b", "a"], ["ab", ""], ["ac"]]):
        for index, text in enumerate(texts):
            (tmp_path / f"{number}-{index}.txt").write_text(text)
        hashes.add(file_name(f"{tmp_path}/{number}-*.txt"))
    (tmp_path / "ab.csv").write_text("ab")
    hashes.add(file_name(f"{tmp_path}/ab.csv"))
    assert len(hashes) == 6


def test_the_hash_does_not_tell_names(tmp_path: Path) -> None:
    for name in ("a.txt", "b.md"):
        (tmp_path / name).write_text("text")
    first, second = (str(tmp_path / name) for name in ("a.txt", "b.md"))
    assert file_name(first) == file_name(second)
    assert file_name(first, encoding="latin-1") != file_name(first, encoding="utf-8")


def piped(path: Path, content: bytes) -> Path:
    """Makes a named pipe that a thread writes this into."""
    os.mkfifo(path)
    threading.Thread(target=path.write_bytes, args=(content,)).start()
    return path


def test_a_named_pipe_is_read_to_its_end_and_can_be_read_again(tmp_path: Path) -> None:
    content = b"line\n" * 100_000
    found = finding.find([str(piped(tmp_path / "pipe", content))])
    assert found.size() == len(content)
    for _ in range(2):
        assert b"".join(sources.read_bytes(found.files[0])) == content


def test_a_pipe_whose_content_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadDataError, match="pipe is binary"):
        finding.find([str(piped(tmp_path / "pipe", b"\0\1"))])


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/full", "/dev/urandom"])
def test_a_device_that_never_ends_is_refused(device: str) -> None:
    with pytest.raises(BadDataError, match=f"{device} is a device"):
        list(sources.read_bytes(sources.source_of(device)))


@pytest.mark.parametrize("name", ["-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"])
def test_stdin_is_stdin_whatever_it_is_called(name: str) -> None:
    assert str(sources.source_of(name)) == "stdin"


def test_a_zipped_file_that_unpacks_to_no_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "FREE_OF_RATIO", 10_000_000)
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"\n" * 30_000_000))
    with pytest.raises(BadDataError, match=r"a\.gz: its first [\d,]+ bytes unpack to over"):
        list(sources.read_bytes(sources.Source(tmp_path / "a.gz")))


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "nowhere", "\udcff"])
def test_what_cannot_be_opened_is_named(name: str) -> None:
    with pytest.raises(MissingInputError, match="cannot be read"):
        list(sources.read_bytes(sources.source_of(name)))


@pytest.mark.parametrize("asked", ["there", "missing"])
def test_a_full_folder_of_temporary_files_is_called_by_the_name_that_python_chose(
    asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / asked))
    # So that it is chosen anew.
    monkeypatch.setattr(tempfile, "tempdir", None)
    chosen = tempfile.gettempdir()
    assert (chosen == str(tmp_path / asked)) == (asked == "there")
    message = rf"^the text cannot be kept in {re.escape(chosen)}: No space left on device\. Make"
    with pytest.raises(DiskError, match=message), sources.temporary_file_errors("the text"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
