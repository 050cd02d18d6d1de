"""What Numba keeps: where, and what becomes of it once it is not whole."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from gpt2cli import native
from tests.conftest import Run

PASSIVE = {"OMP_WAIT_POLICY": "passive"}
GENERATE = ("generate", "--model-name", "small", "--length", 5, "--seed", 3, "--device", "cpu")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder."""
    native.keeps.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(native.CACHE)
    return tmp_path / "cache" / "gpt2cli"


def test_without_numba_it_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert native.is_there()
    monkeypatch.setitem(sys.modules, "numba", None)
    assert not native.is_there()


@pytest.mark.parametrize(
    ("said", "count"),
    [({}, native.SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), (PASSIVE, None)],
    ids=str,
)
def test_threads_soon_sleep_unless_the_user_wants_it_otherwise(
    said: dict[str, str], count: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (native.SPIN_COUNT, native.WAIT_POLICY):
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert native.is_there()
    assert os.environ.pop(native.SPIN_COUNT, None) == count


def test_what_is_kept_lies_in_a_folder_of_the_users_own(home: Path) -> None:
    assert native.keeps()
    place = Path(os.environ[native.CACHE])
    assert place.parent == home
    assert place.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_the_user_names_is_left_alone(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(native.CACHE, str(tmp_path))
    assert native.keeps()
    assert not home.exists()


def test_all_loops_are_among_those_that_a_change_is_noticed_of() -> None:
    package = Path(native.__file__).parent
    marks = "from gpt2cli.native import compiled", "    @intrinsic"
    users = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(mark in path.read_text(encoding="utf-8") for mark in marks)
    }
    assert users == set(native.LOOPS)


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["cut", "zeroed", "no home"])
def test_what_is_not_whole_is_compiled_anew(
    home: Path, cli: Run, small_model: Path, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = cli(*GENERATE, "--model-dir", small_model.parent).stdout
    assert expected
    kept = sorted(home.glob(f"numba-*/{native.PICKLES}"))
    assert len(kept) > 8
    for path in kept:
        size = path.stat().st_size
        path.write_bytes(path.read_bytes()[: size // 2] if harm == "cut" else bytes(size))
    if harm == "no home":
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", "/nowhere")
    again = cli(*GENERATE, "--model-dir", small_model.parent)
    assert (again.returncode, again.stdout) == (0, expected)
