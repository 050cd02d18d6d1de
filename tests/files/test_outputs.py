"""Files of samples: whole or not at all, never in another's place."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2cli.errors import DiskError, OutputError
from gpt2cli.files import atomic, outputs


def test_a_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with outputs.written(path) as aside:
        atomic.write(aside, "é", "ab")
        assert not path.exists()
        atomic.write(aside, "b\n", "ab")
    assert path.read_text(encoding="utf-8") == "éb\n"
    assert list(tmp_path.rglob("*")) == [path.parent, path]


def test_nothing_is_left_of_a_file_that_was_not_finished(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), outputs.written(tmp_path / "new" / "file") as aside:
        atomic.write(aside, "half", "ab")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_came_meanwhile_stays(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:

        def refuse(_self: Path, _target: Path) -> None:
            raise PermissionError

        monkeypatch.setattr(Path, "hardlink_to", refuse)
    with outputs.written(tmp_path / "before") as aside:
        atomic.write(aside, "x", "ab")
    path = tmp_path / "file"
    with (
        pytest.raises(OutputError, match=f"Cannot write {re.escape(str(path))}: File exists"),
        outputs.written(path) as aside,
    ):
        path.write_text("theirs")
    with outputs.written(path, overwrite=True) as aside:
        atomic.write(aside, "ours", "ab")
        assert path.read_text() == "theirs"
    assert path.read_text() == "ours"
    assert {p.name for p in tmp_path.iterdir()} == {"before", "file"}


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(operation: str, path: Path) -> None:
        if operation == "rename":
            raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(atomic, "before", fail)
    with pytest.raises(DiskError, match="No space left"), outputs.written(tmp_path / "file"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written_to_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"file exists\. .*--overwrite"):
        outputs.check_file(tmp_path / "file", overwrite=False)
    outputs.check_file(tmp_path / "file", overwrite=True)
    outputs.check_file(tmp_path / "a" / "b", overwrite=False)
    with pytest.raises(OutputError, match="is a folder"):
        outputs.check_file(tmp_path, overwrite=True)
    with pytest.raises(OutputError, match="is not a folder"):
        outputs.check_file(tmp_path / "file" / "below", overwrite=False)
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    with pytest.raises(OutputError, match="cannot be written to"):
        outputs.check_folder(tmp_path / "new")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_names_of_new_files_differ(tmp_path: Path) -> None:
    names = [*outputs.names(tmp_path, 3, ".txt"), *outputs.names(tmp_path, 2, ".txt")]
    assert len(set(names)) == 5
    assert names[2].name.startswith("gentext_20")
    assert names[2].name.endswith("_3.txt")


def test_names_are_made_one_by_one(tmp_path: Path) -> None:
    names = outputs.names(tmp_path, 10**12, ".txt")
    assert [path.stem[-2:] for path in itertools.islice(names, 2)] == ["_1", "_2"]


def test_what_is_no_regular_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path(os.devnull)):
        for overwrite in (False, True):
            with pytest.raises(OutputError, match=f"{path.name} is not a regular file"):
                outputs.check_file(path, overwrite=overwrite)


@pytest.mark.parametrize("target", ["nowhere", "file", "folder", "link"])
def test_a_link_is_not_followed_whatever_it_leads_to(target: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("theirs")
    (tmp_path / "folder").mkdir()
    link = tmp_path / "link"
    link.symlink_to(target)
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="link exists and is a link"):
            outputs.check_file(link, overwrite=overwrite)
    assert (tmp_path / "file").read_text() == "theirs"


def test_what_a_killed_process_left_goes_and_what_a_living_one_writes_stays(
    tmp_path: Path,
) -> None:
    path = tmp_path / "out.txt"
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom gpt2cli.files import atomic, outputs\n"
        "with outputs.written(Path(sys.argv[1])) as aside:\n"
        "    atomic.write(aside, 'half', 'ab')\n    print(aside, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as living:
        assert living.stdout is not None
        left = Path(living.stdout.readline().strip())
        with outputs.written(path) as aside:
            atomic.write(aside, "whole", "ab")
        assert left.read_text() == "half"
        living.kill()
    with outputs.written(path, overwrite=True) as aside:
        atomic.write(aside, "again", "ab")
    assert list(tmp_path.iterdir()) == [path]
    (tmp_path / f".{outputs.STEM}1.0123456789abcdef.part").write_text("half")
    outputs.clean_up(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_of_250_bytes_can_be_written(tmp_path: Path) -> None:
    for name in ("x" * 250, "ü" * 125):
        with outputs.written(tmp_path / name) as aside:
            atomic.write(aside, "text", "ab")
        assert (tmp_path / name).read_text() == "text"
