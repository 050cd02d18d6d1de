"""A destination is the old one or the new one, whatever happens between."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gpt2cli.errors import DiskError, OutputError, TryLaterError
from gpt2cli.files import atomic, exports
from gpt2cli.files.lock import locked

KINDS = ["file", "folder"]
# By it a file is known to be an export.
MARK = " by gpt2cli"


def make(path: Path, kind: str, content: str) -> None:
    if kind == "file":
        atomic.write(path, content + MARK)
        return
    for inside in (path / "one", path / "deep" / "two"):
        inside.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(inside, content)


def export(path: Path, kind: str, content: str) -> None:
    make(path, kind, content)
    exports.sign(path)


def content(path: Path) -> set[str]:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {file.read_text().removesuffix(MARK) for file in files if file.name != exports.MARK}


def replace(path: Path, kind: str) -> None:
    with exports.output(path, overwrite=True) as aside:
        make(aside, kind, "new")


@pytest.mark.parametrize("after", KINDS)
@pytest.mark.parametrize("before", [None, *KINDS])
def test_the_new_takes_the_place_of_the_old(before: str | None, after: str, tmp_path: Path) -> None:
    path = tmp_path / "made" / "[out]"
    if before:
        path.parent.mkdir()
        export(path, before, "old")
    replace(path, after)
    assert content(path) == {"new"}
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("before", [True, False])
def test_a_failure_at_any_operation_leaves_old_or_new(
    before: bool, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "made" / "out"
    failed = 0
    for number in range(1, 100):
        if before and not path.exists():
            path.parent.mkdir()
            export(path, kind, "old")
        with monkeypatch.context() as patch:
            patch.setattr(atomic, "before", failing(number))
            try:
                replace(path, kind)
                break
            except DiskError as error:
                failed += 1
                assert "No space" in str(error)
                assert ("is untouched" in str(error)) == before
        found = content(path) if path.exists() else set()
        assert found in ({"new"}, {"old"} if before else set()), number
        assert list(path.parent.glob(".*")) == []
        if found == {"new"}:
            # The failure came after the new one had taken its place.
            atomic.remove_folder(path)
            path.parent.rmdir()
    assert failed > (8 if kind == "folder" else 4)
    assert content(path) == {"new"}


def failing(number: int) -> Callable[[str, Path], None]:
    """Returns a stand-in for atomic.before, where the N-th operation finds the disk full."""
    count = 0

    def before(_operation: str, path: Path) -> None:
        nonlocal count
        count += 1
        if count == number:
            raise OSError(28, "No space left on device", str(path))

    return before


def test_without_an_exchange_of_names_the_old_waits_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out"
    export(path, "folder", "old")
    monkeypatch.setattr(exports, "exchange", lambda first, second: False)
    replace(path, "folder")
    assert content(path) == {"new"}
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_put_back_or_removed(tmp_path: Path) -> None:
    path = tmp_path / "out"
    make(tmp_path / ".out.1234.old", "folder", "old")
    make(tmp_path / ".out.1234.part", "folder", "half")
    make(tmp_path / ".out.gguf.1234.part", "file", "somebody's")
    with pytest.raises(RuntimeError), exports.output(path, overwrite=True):
        assert content(path) == {"old"}
        raise RuntimeError
    assert sorted(p.name for p in tmp_path.iterdir()) == [".out.gguf.1234.part", "out"]


def test_two_writers_to_one_destination_do_not_meet(tmp_path: Path) -> None:
    with locked(tmp_path / ".out.lock", "x"), pytest.raises(TryLaterError, match="destination"):
        replace(tmp_path / "out", "file")


def test_what_came_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with (
        pytest.raises(OutputError, match="exists"),
        exports.output(path, overwrite=False) as aside,
    ):
        make(aside, "file", "new")
        path.write_text("somebody's")
    assert path.read_text() == "somebody's"


def test_folders_that_are_worked_in_are_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="holds"):
        exports.check_free(Path(".."), overwrite=True, spare=(Path.cwd(),))
    exports.check_free(tmp_path / "free", overwrite=False, spare=(Path.cwd(),))
    (tmp_path / "taken").symlink_to("nowhere")
    with pytest.raises(OutputError, match="--overwrite"):
        exports.check_free(tmp_path / "taken", overwrite=False, spare=())


def nest(path: Path) -> None:
    """Makes empty folders in each other, more than Python calls functions in each other."""
    for _ in range(1200):
        path.mkdir()
        path /= "d"


def test_folders_deeper_than_any_export_are_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "out"
    nest(path)
    with pytest.raises(OutputError, match=r"d/d is not of a gpt2cli export.*nothing was changed"):
        exports.check_free(path, overwrite=True, spare=())
    with pytest.raises(OutputError, match="is not of a gpt2cli export"):
        replace(path, "folder")
    assert list(tmp_path.iterdir()) == [path]
    # pytest would not be able to.
    atomic.remove_folder(path)
    assert list(tmp_path.iterdir()) == []


def test_what_nests_too_deep_beside_a_destination_is_named(tmp_path: Path) -> None:
    left = tmp_path / ".out.0a.part"
    nest(left)
    with pytest.raises(OutputError, match=r"\.out\.0a\.part beside it nests too deep"):
        replace(tmp_path / "out", "file")
    assert not (tmp_path / "out").exists()
    atomic.remove_folder(left)
    assert list(tmp_path.iterdir()) == []


def test_names_are_exchanged_in_one_step_here(tmp_path: Path) -> None:
    make(tmp_path / "a", "folder", "1")
    make(tmp_path / "b", "file", "2")
    assert exports.exchange(tmp_path / "a", tmp_path / "b")
    assert (content(tmp_path / "a"), content(tmp_path / "b")) == ({"2"}, {"1"})
    assert not exports.exchange(tmp_path / "a", tmp_path / "nothing")


def test_a_size_is_that_of_all_files(tmp_path: Path) -> None:
    make(tmp_path / "out", "folder", "four")
    assert exports.size_of(tmp_path / "out") == 8
    assert exports.size_of(tmp_path / "out" / "one") == 4
