"""Every file of a run folder by every kind of damage: what finetune and generate make of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2cli.commands.finetune import finetune
from gpt2cli.commands.generate import generate
from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.config.generate import GenerateConfig
from gpt2cli.errors import BadDataError
from gpt2cli.files import paths
from gpt2cli.records import Notice, StepReport
from gpt2cli.storage import bundle, checkpoint, recovery, run
from gpt2cli.storage.state import State, digest
from tests import models
from tests.conftest import Run
from tests.sources import source_of

TEXT = "".join(f"{n}. The cat sat on the mat, and the other cat sat there.\n" for n in range(60))
WEIGHTS = ("model-6.index", "model-6.data-00000-of-00001")
OPTIMIZER = ("optimizer-6.index", "optimizer-6.data-00000-of-00001")
STATE = ("state-6.json",)
STATIC = paths.STATIC_FILES


def flipped(content: bytes, at: float = 0.5) -> bytes:
    changed = bytearray(content)
    changed[int(at * (len(content) - 1))] ^= 4
    return bytes(changed)


# Content of the file, and of the same file of the step before → what is there afterwards.
KINDS: dict[str, Callable[[bytes, bytes], bytes | None]] = {
    "missing": lambda content, older: None,
    "empty": lambda content, older: b"",
    "cut in half": lambda content, older: content[: len(content) // 2],
    "cut by a byte": lambda content, older: content[:-1],
    "longer by a byte": lambda content, older: content + b"}",
    "zeroed": lambda content, older: bytes(len(content)),
    "its first half zeroed": lambda content, older: (
        bytes(len(content) // 2) + content[len(content) // 2 :]
    ),
    "a bit flipped at its begin": lambda content, older: flipped(content, 0),
    "a bit flipped": lambda content, older: flipped(content),
    "a bit flipped at its end": lambda content, older: flipped(content, 1),
    "of the step before": lambda content, older: older,
    "foreign": lambda content, older: b"<html>no such page</html>" * 40,
}


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory, mini_model: Path) -> Path:
    """A run with whole checkpoints of the steps 5 and 6; not to be written to."""
    folder = tmp_path_factory.mktemp("damage") / "checkpoint" / "run1"
    run.prepare(folder, mini_model)
    for step in (5, 6):

        def write(weights: Path, optimizer: Path, step: int = step) -> None:
            checkpoint.save(weights, models.random_arrays(models.MINI, seed=step))
            checkpoint.save(optimizer, models.random_arrays(models.MINI, seed=step + 100))

        run.commit(folder, State(step=step, seed=1, model_name="small"), write)
    return folder


@pytest.fixture
def folder(tmp_path: Path, whole_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whole_run, tmp_path / "checkpoint" / "run1")
    return Path("checkpoint", "run1")


def damage(path: Path, kind: str) -> None:
    older = path.with_name(path.name.replace("-6.", "-5."))
    content = KINDS[kind](path.read_bytes(), older.read_bytes())
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def finetune_start() -> Any:
    return source_of(FinetuneConfig(dataset=("text.txt",)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*WEIGHTS, *OPTIMIZER, *STATE])
def test_a_damaged_file_is_named_kept_and_stepped_over(name: str, kind: str, folder: Path) -> None:
    damage(folder / name, kind)
    before = contents(folder)
    start = finetune_start()
    assert (start.step, start.prefix) == (5, folder / "model-5")
    (reason,) = start.remarks()
    assert name in reason
    assert contents(folder) == before
    recovery.quarantine(folder, start.found)
    after = contents(folder)
    for old, content in before.items():
        renamed = f"{old}.damaged" if "-6." in old else old
        if old != "checkpoint":
            assert after[renamed] == content
    assert paths.newest(folder) == folder / "model-5"
    assert paths.checkpoint_steps(folder) == [5]
    assert finetune_start().found.damaged == {}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*WEIGHTS, *OPTIMIZER, *STATE])
def test_generate_steps_over_damage_that_concerns_it_and_writes_nothing(
    name: str, kind: str, folder: Path
) -> None:
    damage(folder / name, kind)
    before = contents(folder)
    start = source_of(GenerateConfig())
    assert start.step == (6 if name in OPTIMIZER else 5)
    assert contents(folder) == before


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "of the step before"])
@pytest.mark.parametrize("name", STATIC)
def test_a_damaged_shape_or_vocabulary_is_refused_and_nothing_touched(
    name: str, kind: str, folder: Path
) -> None:
    damage(folder / name, kind)
    before = contents(folder)
    for start in (finetune_start, lambda: source_of(GenerateConfig())):
        with pytest.raises(BadDataError, match=name) as caught:
            start()
        assert caught.value.exit_code == 65
    assert contents(folder) == before


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "of the step before"])
@pytest.mark.parametrize("name", ["checkpoint", "counter"])
def test_the_file_that_names_the_newest_is_made_up_for(name: str, kind: str, folder: Path) -> None:
    damage(folder / name, kind)
    assert source_of(GenerateConfig()).step == 6
    start = finetune_start()
    assert (start.step, start.found.damaged) == (6, {})
    recovery.quarantine(folder, start.found)
    assert paths.newest(folder) == folder / "model-6"
    assert paths.checkpoint_steps(folder) == [5, 6]


def test_no_flipped_bit_in_the_pointer_leads_astray(folder: Path) -> None:
    path = folder / "checkpoint"
    content = path.read_bytes()
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        assert recovery.candidates(folder)[0].name == "model-6"
        if bit % 16 == 3:
            assert finetune_start().step == 6


@pytest.mark.parametrize("name", [*WEIGHTS, *OPTIMIZER, *STATE])
def test_files_exchanged_between_the_checkpoints_are_refused_untouched(
    name: str, folder: Path
) -> None:
    new, old = folder / name, folder / name.replace("-6.", "-5.")
    content = new.read_bytes()
    new.write_bytes(old.read_bytes())
    old.write_bytes(content)
    before = contents(folder)
    with pytest.raises(BadDataError, match=rf"{name}.*{old.name}.*Nothing was changed"):
        finetune_start()
    assert contents(folder) == before


def test_a_run_with_nothing_whole_is_never_begun_anew(cli: Run, folder: Path) -> None:
    for step in (5, 6):
        for path in folder.glob(f"*-{step}.*"):
            path.unlink()
    Path("text.txt").write_text(TEXT)
    before = contents(folder)
    for arguments in (["finetune", "text.txt"], ["generate"]):
        done = cli(*arguments)
        assert done.returncode == 65, done.stderr
        assert "model-6" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert {**contents(folder), "lock": b""} == {**before, "lock": b""}


def test_a_newer_format_and_another_vocabulary_are_refused_with_both_values(
    cli: Run, folder: Path
) -> None:
    Path("text.txt").write_text(TEXT)
    path = folder / "state-6.json"
    record = json.loads(path.read_text())
    newer = record | {"format": 7}
    path.write_text(json.dumps(newer | {"sha256": digest(newer)}))
    for arguments in (["finetune", "text.txt"], ["generate"]):
        done = cli(*arguments)
        assert done.returncode == 65
        assert "has format 7; this gpt2cli knows up to 1" in done.stderr
    path.write_text(json.dumps(record))
    (folder / "vocab.bpe").write_text("#version: 0.2\nt h\n")
    done = cli("finetune", "text.txt")
    assert done.returncode == 65
    assert record["static"]["vocab.bpe"]["sha256"][:16] in done.stderr
    assert run.fingerprint(folder / "vocab.bpe")["sha256"][:16] in done.stderr
    assert paths.newest(folder) == folder / "model-6"


@pytest.mark.slow
def test_damage_costs_steps_and_not_the_result(
    tmp_path: Path, mini_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(mini_model, tmp_path / "models" / "small")
    Path("text.txt").write_text(TEXT)

    def trained(**options: Any) -> list[Any]:
        settings: dict[str, Any] = {"dataset": ("text.txt",), "model_name": "small", "seed": 1}
        settings |= {"accumulate_gradients": 1, "sample_every": 0, "val_every": 0, "save_every": 2}
        return list(finetune(FinetuneConfig(**settings | options)))

    trained(until_step=4, run_name="whole")
    trained(until_step=4)
    folder = Path("checkpoint", "run1")
    path = folder / "model-4.data-00000-of-00001"
    path.write_bytes(flipped(path.read_bytes()))
    records = trained(until_step=4)
    lines = [str(record) for record in records if isinstance(record, Notice)]
    assert f"{path} is damaged: its SHA-256 is another one. It is stepped over." in lines
    assert "Steps 3 to 4 were not saved; they are trained again." in lines
    assert [record.step for record in records if isinstance(record, StepReport)] == [3, 4]
    assert (folder / f"{path.name}.damaged").exists()
    for kind in ("model", "optimizer"):
        names = bundle.read_index(folder / f"{kind}-4")[0]
        again, whole = (
            dict(checkpoint.load(Path("checkpoint", name, f"{kind}-4"), names))
            for name in ("run1", "whole")
        )
        for name, array in whole.items():
            np.testing.assert_array_equal(again[name], array, err_msg=name)


def test_a_run_of_gpt_2_simples_is_checked_by_the_checksums_in_its_index(
    tmp_path: Path, mini_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("checkpoint", "run1")
    run.prepare(folder, mini_model)
    for step in (100, 200):
        checkpoint.save(folder / f"model-{step}", models.random_arrays(models.MINI, seed=step))
        (folder / f"model-{step}.meta").write_bytes(b"graph")
    (folder / "checkpoint").write_text(
        'model_checkpoint_path: "model-200"\n'
        'all_model_checkpoint_paths: "model-100"\nall_model_checkpoint_paths: "model-200"\n'
    )
    (folder / "counter").write_text("200\n")
    assert finetune_start().step == 200
    path = paths.data_file(folder / "model-200")
    whole = path.read_bytes()
    for changed in (flipped(whole), flipped(whole, 0), flipped(whole, 1), bytes(len(whole)), b""):
        path.write_bytes(changed)
        start = finetune_start()
        assert (start.step, start.state) == (100, None)
        assert path.name in next(start.remarks())
        assert source_of(GenerateConfig()).step == 100
    recovery.quarantine(folder, start.found)
    assert {p.name for p in folder.glob("model-200*")} == {
        "model-200.index.damaged",
        "model-200.data-00000-of-00001.damaged",
        "model-200.meta.damaged",
    }


@pytest.mark.slow
def test_generate_is_not_led_astray_by_a_run_that_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpt2cli.commands import engines as verb
    from gpt2cli.inference.load import load_engine

    tries = []

    def rotated_away(prefix: Path, hparams: Any, **settings: Any) -> Any:
        tries.append(paths.step_of(prefix))
        if len(tries) == 1:
            for step in (7, 8):

                def write(weights: Path, optimizer: Path) -> None:
                    for prefix in (weights, optimizer):
                        checkpoint.save(prefix, models.random_arrays(models.MINI))

                run.commit(folder, State(step=step, seed=1, model_name="small"), write)
                run.rotate(folder, 2)
        return load_engine(prefix, hparams, **settings)

    monkeypatch.setattr(verb, "load_engine", rotated_away)
    lines = [str(record) for record in generate(GenerateConfig(length=3, seed=1, device="cpu"))]
    assert tries == [6, 8]
    assert "again, from checkpoint/run1/model-8" in lines
