"""What cannot be read is not called damaged, and no older checkpoint takes its place."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpt2cli.reading import UnreadableError
from gpt2cli.storage import checkpoint, recovery, run
from gpt2cli.storage.state import State
from tests import models


@pytest.fixture
def folder(tmp_path: Path, mini_model: Path) -> Path:
    place = tmp_path / "run1"
    run.prepare(place, mini_model)
    for step in (5, 6):

        def write(weights: Path, optimizer: Path, step: int = step) -> None:
            for prefix in (weights, optimizer):
                checkpoint.save(prefix, models.random_arrays(models.MINI, seed=step))

        run.commit(place, State(step=step, seed=1, model_name="small"), write)
    return place


@pytest.mark.parametrize(
    "name", ["model-6.index", "model-6.data-00000-of-00001", "state-6.json", "hparams.json"]
)
@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE, errno.ESTALE])
def test_a_checkpoint_that_may_not_be_read_is_not_skipped(
    number: int, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open = os.open

    # Root may read everything; whoever may not gets this answer from the system.
    def refuse(path: Any, *arguments: Any, **options: Any) -> int:
        if isinstance(path, (str, Path)) and Path(path).name == name:
            raise OSError(number, os.strerror(number), str(path))
        return real_open(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(Exception, match=f"Cannot read .*{name}") as caught:
        recovery.newest_intact(folder, resume=True)
    assert isinstance(caught.value, UnreadableError) == (number == errno.EACCES)
    assert getattr(caught.value, "exit_code", 0) == (66 if number == errno.EACCES else 74)


@pytest.mark.parametrize("kind", ["pipe", "dangling link", "link loop", "folder"])
@pytest.mark.parametrize("name", ["model-6.index", "model-6.data-00000-of-00001"])
def test_what_is_no_file_in_a_checkpoints_place_is_damage(
    name: str, kind: str, folder: Path
) -> None:
    path = folder / name
    path.unlink()
    makers: dict[str, Callable[[], object]] = {
        "pipe": lambda: os.mkfifo(path),
        "dangling link": lambda: path.symlink_to("nowhere"),
        "link loop": lambda: path.symlink_to(name),
        "folder": path.mkdir,
    }
    makers[kind]()
    found = recovery.newest_intact(folder, resume=True)
    assert found.prefix == folder / "model-5"
    recovery.quarantine(folder, found)
    assert os.path.lexists(folder / f"{name}.damaged")
    assert recovery.newest_intact(folder, resume=True).damaged == {}
