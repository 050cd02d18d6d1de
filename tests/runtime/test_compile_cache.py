"""The cache of compiled programs: used where it is whole, and without harm where it is not."""

from __future__ import annotations

import os
import shutil
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from gpt2cli.runtime import compile_cache
from tests.conftest import Run

USAGE = namedtuple("USAGE", "total used free")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder; nothing is done when the tests end."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_auto_jit=0")
    monkeypatch.setattr("atexit.register", lambda *_: None)
    return tmp_path / "cache"


def test_tensorflow_is_told_where_and_keeps_its_other_flags(home: Path) -> None:
    place = compile_cache.enable()
    assert place is not None
    assert place.parent == home / "gpt2cli"
    assert place.stat().st_mode & 0o777 == 0o700
    assert os.environ["TF_XLA_FLAGS"] == (
        f"--tf_xla_auto_jit=0 --tf_xla_persistent_cache_directory={place} "
        "--tf_xla_persistent_cache_device_types=CPU,GPU,XLA_GPU_JIT"
    )
    # A second call in the same process finds it done.
    assert compile_cache.enable() is None


def test_the_folders_are_the_users_alone_whatever_the_umask_says(home: Path) -> None:
    before = os.umask(0)
    try:
        place = compile_cache.private_folder("xla-1")
    finally:
        os.umask(before)
    assert place is not None
    for folder in (home, place.parent, place):
        assert folder.stat().st_mode & 0o777 == 0o700
    # As an earlier gpt2cli left it.
    place.parent.chmod(0o777)
    assert compile_cache.private_folder("xla-1") == place
    assert place.parent.stat().st_mode & 0o777 == 0o700
    place.chmod(0o777)
    assert compile_cache.private_folder("xla-1") is None
    place.rmdir()
    place.symlink_to(home)
    assert compile_cache.private_folder("xla-1") is None


def test_a_pipe_among_what_is_kept_is_not_waited_for(home: Path) -> None:
    place = compile_cache.private_folder(f"xla-{compile_cache.platform_hash()}")
    assert place is not None
    os.mkfifo(place / "a.pb")
    compile_cache.seal(place)
    os.mkfifo(place / "a.pb.sha256")
    assert compile_cache.enable() == place
    assert list(place.iterdir()) == []


def test_another_machine_or_tensorflow_has_its_own_folder(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compile_cache.platform_hash()
    assert compile_cache.platform_hash() == first
    monkeypatch.setattr(compile_cache, "cpu_flags", lambda: "flags: avx512f")
    assert compile_cache.platform_hash() != first


def test_what_is_not_sealed_or_damaged_is_removed(home: Path) -> None:
    place = compile_cache.private_folder(f"xla-{compile_cache.platform_hash()}")
    assert place is not None
    for name in ("good.pb", "flipped.pb", "cut.pb"):
        (place / name).write_bytes(b"program " * 100)
    compile_cache.seal(place)
    (place / "unsealed.pb").write_bytes(b"program")
    (place / "flipped.pb").write_bytes(b"Program " * 100)
    (place / "cut.pb").write_bytes(b"")
    (place / "new.pb.tmp").write_bytes(b"half")
    (place / "old.pb.tmp").write_bytes(b"half")
    long_ago = time.time() - 100_000
    os.utime(place / "old.pb.tmp", (long_ago, long_ago))
    compile_cache.enable()
    assert {path.name for path in place.iterdir()} == {"good.pb", "good.pb.sha256", "new.pb.tmp"}


def test_the_oldest_go_where_there_is_too_much(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = compile_cache.private_folder(f"xla-{compile_cache.platform_hash()}")
    assert place is not None
    for age, name in enumerate(("a.pb", "b.pb", "c.pb")):
        (place / name).write_bytes(b"x" * 100)
        os.utime(place / name, (1000 - age, 1000 - age))
    compile_cache.seal(place)
    monkeypatch.setattr(compile_cache, "MOST_BYTES", 250)
    compile_cache.enable()
    assert sorted(path.name for path in place.glob("*.pb")) == ["a.pb", "b.pb"]


def test_where_there_can_be_no_cache_there_is_none(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unchanged() -> bool:
        return compile_cache.enable() is None and os.environ["TF_XLA_FLAGS"] == before

    before = os.environ["TF_XLA_FLAGS"]
    home.write_text("a file in its place")
    assert unchanged()
    home.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: USAGE(1, 1, 1000))
        assert unchanged()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getuid", lambda: 12345)
        assert unchanged()
    with monkeypatch.context() as patch:

        def homeless() -> Any:
            raise RuntimeError

        patch.setenv("XDG_CACHE_HOME", "relative")
        patch.setattr(Path, "home", homeless)
        assert unchanged()
        patch.setattr(Path, "home", lambda: home / "nobody")
        assert unchanged()
    assert not Path("relative").exists()
    assert not (home / "nobody").exists()
    with monkeypatch.context() as patch:
        patch.setenv("TF_XLA_FLAGS", "--tf_xla_persistent_cache_directory=/mine")
        assert compile_cache.enable() is None


@pytest.mark.slow
def test_the_next_command_takes_what_was_compiled(
    cli: Run, mini_model: Path, home: Path, tmp_path: Path
) -> None:
    shutil.copytree(mini_model, tmp_path / "models" / "small")
    (tmp_path / "text.txt").write_text("The weather, and the other feather. " * 9)
    arguments = ["evaluate", "text.txt", "--model-name", "small", "--device", "cpu"]
    first = cli(*arguments)
    made = {path: path.stat().st_ino for path in compile_cache_files(home)}
    assert [path.suffix for path in made].count(".pb") == 1
    assert cli(*arguments).stdout == first.stdout
    assert {path: path.stat().st_ino for path in compile_cache_files(home)} == made
    for damage in (b"", b"x" * 100_000):
        for path in made:
            path.write_bytes(damage)
        done = cli(*arguments)
        assert (done.stdout, done.stderr) == (first.stdout, first.stderr)
        assert all(map(compile_cache.is_sealed, home.rglob("*.pb")))


def compile_cache_files(home: Path) -> list[Path]:
    return [path for path in home.rglob("*") if path.is_file()]


def test_a_generous_umask_does_not_open_the_folder_to_others(home: Path) -> None:
    before = os.umask(0)
    try:
        place = compile_cache.private_folder("xla-x")
    finally:
        os.umask(before)
    assert place is not None
    assert [folder.stat().st_mode & 0o777 for folder in (place, place.parent, home)] == [0o700] * 3


def test_where_others_can_write_nothing_is_kept(home: Path) -> None:
    place = compile_cache.private_folder("xla-x")
    assert place is not None
    place.chmod(0o777)
    assert compile_cache.private_folder("xla-x") is None
