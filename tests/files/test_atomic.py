"""Files appear whole or not at all, and the system's refusals get an exit code."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from gpt2cli.errors import DiskError, OutputError
from gpt2cli.files import atomic


def test_a_file_appears_whole_with_the_folders_above_it(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.txt"
    with atomic.whole_file(path) as aside:
        aside.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert [p.name for p in path.parent.iterdir()] == ["c.txt"]


def test_a_block_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="half-way"),
        atomic.whole_file(tmp_path / "a" / "b" / "c.txt") as aside,
    ):
        aside.write_text("half")
        raise ValueError("half-way")
    assert list(tmp_path.iterdir()) == []


def test_an_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic.whole_file(path) as aside:
        aside.write_text("new")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    atomic.write_whole(path, "new")
    assert path.read_text() == "new"


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, DiskError),
        (errno.EDQUOT, DiskError),
        (errno.EIO, DiskError),
        (errno.EACCES, OutputError),
        (errno.EROFS, OutputError),
        (errno.ENOTDIR, OutputError),
    ],
)
def test_refusals_of_the_system_get_their_exit_code(
    number: int, kind: type[Exception], tmp_path: Path
) -> None:
    with pytest.raises(kind, match=r"here\.txt"), atomic.disk_errors(tmp_path / "here.txt"):
        raise OSError(number, "refused")


def test_a_file_in_a_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(OutputError), atomic.disk_errors(tmp_path):
        atomic.write_whole(tmp_path / "run" / "log", "text")
