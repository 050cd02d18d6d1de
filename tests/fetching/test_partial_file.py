"""What has come of a file, kept from one run to the next."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from gpt2cli.errors import OutputError
from gpt2cli.fetching.partial_file import Origin, PartialFile

ORIGIN = Origin(url="http://host/file", validator='"tag"', size=6)


def opened(path: Path) -> PartialFile:
    part = PartialFile(path)
    for _ in part.reopen():
        pass
    return part


def test_a_part_taken_up_again_has_the_hash_of_the_whole(tmp_path: Path) -> None:
    first = opened(tmp_path / "file")
    first.restart(ORIGIN)
    first.append(b"abc")
    first.leave()
    second = opened(tmp_path / "file")
    assert (second.size, second.origin) == (3, ORIGIN)
    second.append(b"def")
    assert second.digest == hashlib.sha256(b"abcdef").hexdigest()
    second.finish(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"abcdef"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_part_that_is_empty_leaves_nothing(tmp_path: Path) -> None:
    part = opened(tmp_path / "file")
    part.restart(ORIGIN)
    part.leave()
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_was_not_hashed_yet_is_not_taken_for_empty(tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(b"abc")
    part = PartialFile(tmp_path / "file")
    steps = part.reopen()
    next(steps)
    part.size = 0
    part.leave()
    assert (tmp_path / "file.part").read_bytes() == b"abc"


def test_a_note_that_cannot_be_read_is_no_note(tmp_path: Path) -> None:
    for content in ("{", "[]", '{"address": 1}'):
        (tmp_path / "file.part.json").write_text(content, encoding="utf-8")
        part = opened(tmp_path / "file")
        assert part.origin is None
        part.close()


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe"])
def test_what_is_no_file_of_ours_is_not_written_to(kind: str, tmp_path: Path) -> None:
    thesis, place = tmp_path / "thesis.txt", tmp_path / "file.part"
    thesis.write_text("mine")
    if kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to(thesis if kind == "link" else tmp_path / "new")
    with pytest.raises(OutputError, match=r"file\.part"):
        list(PartialFile(tmp_path / "file").reopen())
    with pytest.raises(OutputError, match=r"file\.part"):
        PartialFile(tmp_path / "file").restart(ORIGIN)
    assert thesis.read_text() == "mine"
    assert not (tmp_path / "new").exists()
