"""A tar, unpacked by plain tar elsewhere; the run in it goes on as if it had never moved."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from gpt2cli.commands.export import export
from gpt2cli.commands.finetune import finetune
from gpt2cli.config.export import ExportConfig
from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.files import paths
from gpt2cli.storage import bundle, checkpoint, recovery, run, run_log
from tests import models
from tests.formats.conftest import Export

TEXT = "The cat sat on the mat, and the other cat sat there.\n" * 30
STATIC = ["hparams.json", "encoder.json", "vocab.bpe"]


def train(place: Path, model: Path, until_step: int) -> None:
    config = FinetuneConfig(
        dataset=(str(place / "text.txt"),),
        model_name=str(model),
        checkpoint_dir=str(place / "checkpoint"),
        until_step=until_step,
        save_every=2,
        seed=7,
        xla=False,
        sample_every=0,
        val_every=0,
        accumulate_gradients=1,
    )
    list(finetune(config))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, mini_model: Path) -> Path:
    """A run of four steps, with checkpoints of two and four."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text.txt").write_text(TEXT)
    train(folder, mini_model, 4)
    return folder


def pack(place: Path, name: str, checkpoint: str) -> Path:
    config = ExportConfig(
        destination=str(place / name),
        checkpoint_dir=str(place / "checkpoint"),
        checkpoint=checkpoint,
        overwrite=True,
    )
    list(export(config))
    return place / name


@pytest.mark.parametrize("name", ["run.tar", "run.tar.gz"])
def test_a_run_that_moved_continues_exactly(
    name: str, place: Path, mini_model: Path, tmp_path: Path
) -> None:
    packed = pack(place, name, "2")
    subprocess.run(["tar", "xf", str(packed)], cwd=tmp_path, check=True)
    (tmp_path / "text.txt").write_text(TEXT)
    there = tmp_path / "checkpoint" / "run1"
    assert paths.newest(there) == there / "model-2"
    assert run_log.last_step(there) == 2
    train(tmp_path, mini_model, 4)
    for kind in ("model", "optimizer"):
        prefix = there / f"{kind}-4"
        names = bundle.read_index(prefix)[0]
        moved = dict(checkpoint.load(prefix, names))
        stayed = dict(checkpoint.load(place / "checkpoint" / "run1" / f"{kind}-4", names))
        for weight in names:
            assert moved[weight].tobytes() == stayed[weight].tobytes(), weight


def test_the_archive_holds_one_checkpoint_and_nobodys_name(place: Path) -> None:
    (place / "checkpoint" / "run1" / "base.index").write_text("what adapters stand on")
    with tarfile.open(pack(place, "run.tar", "latest")) as archive:
        entries = archive.getmembers()
    (place / "checkpoint" / "run1" / "base.index").unlink()
    files = [
        *STATIC,
        *("base.index", "config.json", "model-4.data-00000-of-00001"),
        *("optimizer-4.data-00000-of-00001", "optimizer-4.index", "state-4.json"),
        *("model-4.index", "checkpoint", "counter", "log.jsonl"),
    ]
    assert [entry.name for entry in entries] == [f"checkpoint/run1/{name}" for name in files]
    assert {(e.uid, e.gid, e.uname, e.gname, e.mode) for e in entries} == {(0, 0, "", "", 0o644)}


def test_a_run_that_rotates_while_it_is_packed_is_followed(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = place / "checkpoint" / "run1"
    kept = {path: path.read_bytes() for path in folder.glob("*-4.*")}
    pointer = (folder / paths.POINTER).read_bytes()
    verify, times = recovery.verify, 0

    def rotated(*arguments: Any, **options: Any) -> Any:
        nonlocal times
        times += 1
        found = verify(*arguments, **options)
        if times == moments[moment]:
            # What a save and a rotation leave, with step 2 for the newer one.
            run.point_to(folder, folder / "model-2")
            for path in kept:
                path.unlink()
        return found

    moments = {"after it was chosen": 1, "after it was verified": 2}
    for moment in moments:
        times = 0
        with monkeypatch.context() as patch:
            patch.setattr(recovery, "verify", rotated)
            packed = pack(place, f"{moment}.tar".replace(" ", "-"), "latest")
        with tarfile.open(packed) as archive:
            names = [Path(name).name for name in archive.getnames()]
        assert "model-2.index" in names
        assert "optimizer-2.index" in names
        for path, content in kept.items():
            path.write_bytes(content)
        (folder / paths.POINTER).write_bytes(pointer)


def test_a_base_model_unpacks_to_where_models_lie(exported: Export, small_model: Path) -> None:
    packed = exported("small.tar")
    subprocess.run(["tar", "xf", str(packed)], cwd=packed.parent, check=True)
    there = packed.parent / "models" / small_model.name
    names = [*STATIC, "model.ckpt.data-00000-of-00001", "model.ckpt.index"]
    for name in names:
        assert (there / name).read_bytes() == (small_model / name).read_bytes()
    assert paths.newest(there) == there / "model.ckpt"
    bundle.check_weights(there / "model.ckpt", models.SMALL)
