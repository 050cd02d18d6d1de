"""What Numba keeps: where, and what becomes of it once it is not whole."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpt2cli.runtime import compile_cache, numba
from tests.conftest import Run

PASSIVE = {"OMP_WAIT_POLICY": "passive"}
GENERATE = ("generate", "--model-name", "small", "--length", 5, "--seed", 3, "--device", "cpu")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder."""
    numba.has_cache.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(numba.CACHE)
    return tmp_path / "cache" / "gpt2cli"


def test_without_numba_it_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert numba.is_available()
    monkeypatch.setitem(sys.modules, "numba", None)
    assert not numba.is_available()


@pytest.mark.parametrize(
    ("said", "count"),
    [({}, numba.SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), (PASSIVE, None)],
    ids=str,
)
def test_threads_soon_sleep_unless_the_user_wants_it_otherwise(
    said: dict[str, str], count: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (numba.SPIN_COUNT, numba.WAIT_POLICY):
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert numba.is_available()
    assert os.environ.pop(numba.SPIN_COUNT, None) == count


def test_what_is_kept_lies_in_a_folder_of_the_users_own(home: Path) -> None:
    assert numba.has_cache()
    place = Path(os.environ[numba.CACHE])
    assert place.parent == home
    assert place.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_the_user_names_is_left_alone(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(numba.CACHE, str(tmp_path))
    assert numba.has_cache()
    assert not home.exists()


def test_all_loops_are_among_those_that_a_change_is_noticed_of() -> None:
    package = Path(numba.__file__).parent.parent
    jit, intrinsic = "from gpt2cli.runtime.numba import jit", "from numba.extending import"
    marks = jit, intrinsic, "from llvmlite import"
    users = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(mark in path.read_text(encoding="utf-8") for mark in marks)
    }
    assert users == set(numba.LOOPS)


def harmed(content: bytes, harm: str) -> bytes:
    if harm == "cut":
        return content[: len(content) // 2]
    if harm == "a bit":
        # In the machine code, and with the pickle's end in place.
        middle = len(content) // 2
        return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    return bytes(len(content))


def test_a_bit_that_flipped_in_what_numba_keeps_is_seen_before_it_is_loaded(home: Path) -> None:
    place = compile_cache.private_folder("numba-x")
    assert place is not None
    inner = place / "network_0123"
    inner.mkdir()
    for name in ("good.nbi", "good.nbc", "bad.nbi", "bad.nbc"):
        (inner / name).write_bytes(b"program.")
    compile_cache.seal(place)
    for name in ("bad.nbi", "bad.nbc"):
        (inner / name).write_bytes(b"programm.")
        os.utime(inner / name, (1, 1))
    (inner / "new.nbc").write_bytes(b"not sealed.")
    compile_cache.remove_untrusted(place)
    left = {path.name for path in inner.iterdir()}
    assert left == {"good.nbi", "good.nbi.sha256", "good.nbc", "good.nbc.sha256"}


def test_an_index_that_numba_wrote_anew_is_sealed_anew(home: Path) -> None:
    place = compile_cache.private_folder("numba-x")
    assert place is not None
    (place / "a.nbi").write_bytes(b"one")
    compile_cache.seal(place)
    later = time.time() + 10
    (place / "a.nbi").write_bytes(b"two")
    os.utime(place / "a.nbi", (later, later))
    compile_cache.seal(place)
    assert compile_cache.is_sealed(place / "a.nbi")


@pytest.mark.parametrize("place", ["/proc/nowhere", "/dev/null"])
def test_a_folder_of_the_users_that_cannot_be_written_to_is_done_without(
    place: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(numba.CACHE, place)
    assert not numba.has_cache()
    assert numba.jit()(lambda x: x + 1)(1) == 2


@pytest.mark.slow
def test_without_any_folder_to_write_to_text_is_written_all_the_same(
    home: Path, cli: Run, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.setenv(name, "/proc/nowhere")
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    done = cli(*GENERATE, "--model-dir", small_model.parent)
    assert (done.returncode, done.stdout != "") == (0, True), done.stderr


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> tuple[Path, str]:
    """A cache folder with what a command has compiled, and the text that it wrote."""
    folder = tmp_path_factory.mktemp("compiled")
    environment = {name: value for name, value in os.environ.items() if name != numba.CACHE}
    done = subprocess.run(
        [sys.executable, "-m", "gpt2cli", *map(str, GENERATE), "--model-dir", small_model.parent],
        env=environment | {"XDG_CACHE_HOME": str(folder / "cache")},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder / "cache", done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["cut", "zeroed", "a bit", "others' writing", "no home"])
def test_what_is_not_whole_is_compiled_anew(
    home: Path,
    cli: Run,
    small_model: Path,
    compiled: tuple[Path, str],
    harm: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache, expected = compiled
    shutil.copytree(cache, home.parent)
    kept = sorted(home.glob("numba-*/*/*.nb[ic]"))
    assert len(kept) > 8
    assert all(map(compile_cache.is_sealed, kept))
    for path in kept:
        path.write_bytes(harmed(path.read_bytes(), harm))
    if harm == "others' writing":
        next(home.glob("numba-*")).chmod(0o777)
    if harm == "no home":
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", "/nowhere")
    again = cli(*GENERATE, "--model-dir", small_model.parent)
    assert (again.returncode, again.stdout) == (0, expected)
