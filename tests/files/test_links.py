"""A link, a pipe or a stranger's file in a run folder: never followed, waited for or emptied."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gpt2cli.errors import OutputError
from gpt2cli.files import atomic, exports, paths, temporary
from gpt2cli.files.lock import locked
from gpt2cli.records import Notice, Record, Saved
from gpt2cli.storage import run, run_log
from gpt2cli.storage.state import State


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """A folder of the user's, whose files must stay as they are."""
    folder = tmp_path / "Documents"
    folder.mkdir()
    for name in ("thesis.txt", "model-5.index", "samples-5.txt"):
        (folder / name).write_text("precious")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "checkpoint" / "run1"
    place.mkdir(parents=True)
    for name in paths.STATIC_FILES:
        (place / name).write_text("{}")
    return place


def save(folder: Path, step: int) -> None:
    def write(weights: Path, optimizer: Path) -> None:
        for prefix in (weights, optimizer):
            for suffix in (".index", ".data-00000-of-00001"):
                atomic.write(prefix.with_name(prefix.name + suffix), f"{step}")

    run.commit(folder, State(step=step, seed=1, model_name="small"), write)


def untouched(documents: Path) -> bool:
    return {path.name: path.read_text() for path in documents.iterdir()} == dict.fromkeys(
        ("thesis.txt", "model-5.index", "samples-5.txt"), "precious"
    )


@pytest.mark.parametrize("name", [paths.SAVING, paths.REPLACED])
def test_a_linked_folder_for_saves_is_not_followed(
    name: str, folder: Path, documents: Path
) -> None:
    (folder / name).symlink_to(documents)
    run.clean_up(folder)
    assert not os.path.lexists(folder / name)
    (folder / name).symlink_to(documents)
    save(folder, 5)
    # Another run in its place brings both folders into use.
    (folder / name).symlink_to(documents)
    save(folder, 5)
    assert paths.newest(folder) == folder / "model-5"
    assert untouched(documents)
    assert not list(folder.glob(".*"))


def test_a_pointer_into_a_linked_folder_names_nothing_in_it(folder: Path, documents: Path) -> None:
    (folder / paths.REPLACED).symlink_to(documents)
    (folder / paths.POINTER).write_text(paths.pointer_text(f"{paths.REPLACED}/model-5"))
    assert paths.newest(folder) == folder / "model-5"


@pytest.mark.parametrize(
    "name", ["config.json", "best.json", "counter", "checkpoint", "state-5.json", "model-5.index"]
)
def test_a_linked_file_is_replaced_and_its_target_stays(
    name: str, folder: Path, documents: Path
) -> None:
    (folder / name).symlink_to(documents / "thesis.txt")
    run_log.write_config(folder, {"steps": 1})
    run_log.write_best(folder, 5, 2.0)
    save(folder, 5)
    assert not (folder / name).is_symlink()
    assert untouched(documents)


def test_a_linked_log_is_not_written_and_training_goes_on(folder: Path, documents: Path) -> None:
    (folder / run_log.LOG).symlink_to(documents / "thesis.txt")
    assert run_log.last_step(folder) == 0
    told: list[Record] = list(run_log.Log(folder).note(Saved(1, "model-1")))
    assert "It is a link" in str(told[0])
    assert told[1:] == [Saved(1, "model-1")]
    assert untouched(documents)


def test_samples_are_not_written_through_a_linked_folder(folder: Path, documents: Path) -> None:
    (folder / "samples").symlink_to(documents)
    with pytest.raises(OutputError, match="samples is a link"):
        run_log.write_samples(folder, 5, "text")
    assert untouched(documents)


@pytest.mark.parametrize("kind", ["link", "dangling", "hard link", "pipe", "folder", "foreign"])
def test_a_lock_that_is_not_ours_is_refused_and_stays(
    kind: str, folder: Path, documents: Path
) -> None:
    lock, victim = folder / "lock", documents / "thesis.txt"
    makers: dict[str, Callable[[], object]] = {
        "link": lambda: lock.symlink_to(victim),
        "dangling": lambda: lock.symlink_to(documents / "new"),
        "hard link": lambda: lock.hardlink_to(victim),
        "pipe": lambda: os.mkfifo(lock),
        "folder": lock.mkdir,
        "foreign": lambda: lock.write_text("[" * 100_000),
    }
    makers[kind]()
    with pytest.raises(OutputError), run.owned(folder):
        pass
    assert untouched(documents)
    assert os.path.lexists(lock)


def test_a_lock_of_a_dead_process_is_taken_over(folder: Path) -> None:
    for _ in range(2):
        with run.owned(folder):
            assert f'"pid": {os.getpid()}' in (folder / "lock").read_text()


def test_nothing_stays_of_a_lock_that_cannot_be_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space"), locked(tmp_path / "lock", "it"):
        pass
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Exception, match="No space"), run.owned(tmp_path / "checkpoint" / "run1"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_names_aside_differ_each_time_and_fit_the_file_system(tmp_path: Path) -> None:
    for name in ("out", "x" * 255, "ü" * 127):
        first, second = temporary.name_of(tmp_path / name), temporary.name_of(tmp_path / name)
        assert first != second
        assert len(os.fsencode(first.name)) <= 255
        first.touch()
        assert temporary.names(tmp_path / name) == [first]


def test_what_is_planted_under_a_name_aside_is_not_taken(tmp_path: Path, documents: Path) -> None:
    aside = temporary.name_of(tmp_path / "out")
    aside.symlink_to(documents / "thesis.txt")
    with pytest.raises(FileExistsError):
        temporary.claimed(aside)
    with pytest.raises(OSError, match="Too many levels"):
        atomic.write(aside, "text")
    assert untouched(documents)


def test_a_folder_is_emptied_without_following_what_is_in_it(
    tmp_path: Path, documents: Path
) -> None:
    inner = tmp_path / ".saving" / "inner"
    inner.mkdir(parents=True)
    (inner / "link").symlink_to(documents)
    (inner.parent / "link.txt").symlink_to(documents / "thesis.txt")
    atomic.remove_folder(inner.parent)
    assert untouched(documents)
    assert not inner.parent.exists()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
@pytest.mark.parametrize("name", [run_log.LOG, run_log.CONFIG, run_log.BEST])
def test_a_pipe_or_folder_in_a_files_place_is_not_waited_for(
    make: Callable[[Path], None], name: str, folder: Path
) -> None:
    make(folder / name)
    assert run_log.last_step(folder) == 0
    assert run_log.history(folder) == run_log.History()
    assert run_log.read_config(folder) == {}
    told = list(run_log.Log(folder).note(Saved(1, "model-1")))
    assert isinstance(told[0], Notice) == (name == run_log.LOG)


def test_a_folder_is_known_as_an_export_by_all_that_is_in_it(
    tmp_path: Path, documents: Path
) -> None:
    out = tmp_path / "out"
    (out / "1").mkdir(parents=True)
    (out / "config.json").write_text("{}")
    (out / "1" / "saved_model.pb").write_text("x")
    assert exports.foreign(out) == out / "1" / "saved_model.pb"
    exports.sign(out)
    assert exports.foreign(out) is None
    (out / "1" / "more").symlink_to(documents)
    assert exports.foreign(out) == out / "1" / "more"
    assert exports.foreign(documents) == documents / "model-5.index"
    for mark in ("[" * 100_000, '{"exported": 1}', "null"):
        (out / exports.MARK).write_text(mark)
        assert exports.foreign(out) is not None
