"""Which files a corpus consists of: files, folders, globs, zipped ones and stdin."""

from __future__ import annotations

import gzip
import io
import types
from pathlib import Path

import pytest

from gpt2cli.errors import BadDataError, MissingInputError, UsageError
from gpt2cli.text import finding, sources, spool


def test_folders_are_read_sorted_without_hidden_and_binary_files(tmp_path: Path) -> None:
    for name in ("z/1.txt", "a.md", ".git/config", "m/.hidden", "m/b.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    (tmp_path / "x.bin").write_bytes(b"\0\1\2")
    found = finding.find([str(tmp_path)])
    names = [source.path.relative_to(tmp_path).as_posix() for source in found.files]
    assert names == ["a.md", "m/b.txt", "z/1.txt"]
    skipped = {source.path.relative_to(tmp_path).as_posix() for source in found.skipped}
    assert skipped == {".git", "m/.hidden", "x.bin"}


def test_globs_are_sorted_and_may_be_recursive(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "deep/er/c.txt", "a.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    found = finding.find([f"{tmp_path}/**/*.txt"]).files
    assert [source.path.name for source in found] == ["a.txt", "b.txt", "c.txt"]


def test_a_name_with_glob_letters_is_a_file_first(tmp_path: Path) -> None:
    (tmp_path / "a[1].txt").write_text("text")
    assert finding.find([f"{tmp_path}/a[1].txt"]).files == (sources.Source(tmp_path / "a[1].txt"),)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"nowhere\.txt"):
        finding.find([f"{tmp_path}/nowhere.txt"])


def test_a_binary_file_that_was_named_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"\x89PNG\0")
    with pytest.raises(BadDataError, match=r"x\.png is binary"):
        finding.find([f"{tmp_path}/x.png"])


def test_a_folder_without_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"\0\1\2")
    with pytest.raises(BadDataError, match="no text files in there"):
        finding.find([str(tmp_path)])


def test_empty_files_alone_are_refused(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("")
    with pytest.raises(BadDataError, match=r"a\.txt and 1 more: empty"):
        finding.find([str(tmp_path)])
    (tmp_path / "b.txt").write_text("text")
    assert len(finding.find([str(tmp_path)]).files) == 2


def test_a_zipped_binary_file_is_binary_and_a_zipped_text_is_not(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"text"))
    (tmp_path / "b.bin.gz").write_bytes(gzip.compress(b"\0\1"))
    found = finding.find([str(tmp_path)])
    assert [source.path.name for source in found.files] == ["a.txt.gz"]
    assert [source.path.name for source in found.skipped] == ["b.bin.gz"]


def test_utf_16_is_not_taken_for_binary_where_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("text".encode("utf-16"))
    with pytest.raises(BadDataError, match="binary"):
        finding.find([str(path)])
    assert finding.find([str(path)], "utf-16").files == (sources.Source(path),)


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
    ],
)
def test_a_files_name_says_how_it_is_read(name: str, kind: str, zipped: bool) -> None:
    source = sources.Source(Path(name))
    assert (source.kind, source.zipped) == (kind, zipped)


def test_a_zipped_file_reads_as_what_was_zipped(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "a.gz").write_bytes(gzip.compress(content[:1000]) + gzip.compress(content[1000:]))
    meter = sources.Meter()
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
    kept = spool.Spool()
    monkeypatch.setattr(sources, "SPOOL", kept)
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(content)))
    found = finding.find(["-"])
    assert found.size() == len(content)
    assert str(found) == "stdin"
    first, again = (b"".join(sources.read_bytes(found.files[0])) for _ in range(2))
    kept.close()
    assert first == again == content


def test_stdin_named_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="stdin"):
        finding.find(["-", "-"])


def test_a_file_whose_name_is_that_of_stdin_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-").write_text("text")
    assert b"".join(sources.read_bytes(finding.find(["./-"]).files[0])) == b"text"


def test_the_hash_tells_contents_order_borders_and_kinds(tmp_path: Path) -> None:
    hashes = set()
    for number, texts in enumerate([["ab"], ["a", "b"], ["b", "a"], ["ab", ""], ["ac"]]):
        for index, text in enumerate(texts):
            (tmp_path / f"{number}-{index}.txt").write_text(text)
        hashes.add(sources.content_hash(finding.find([f"{tmp_path}/{number}-*.txt"])))
    (tmp_path / "ab.csv").write_text("ab")
    hashes.add(sources.content_hash(finding.find([f"{tmp_path}/ab.csv"])))
    assert len(hashes) == 6


def test_the_hash_does_not_tell_names(tmp_path: Path) -> None:
    for name in ("a.txt", "b.md"):
        (tmp_path / name).write_text("text")
    first, second = (finding.find([str(tmp_path / name)]) for name in ("a.txt", "b.md"))
    assert sources.content_hash(first) == sources.content_hash(second)
    assert sources.content_hash(first, "latin-1") != sources.content_hash(first, "utf-8")
