"""finetune with --lora-rank: a run of adapters beside weights that stay as they are."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2cli.commands.finetune import finetune
from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.config.generate import GenerateConfig
from gpt2cli.errors import BadDataError, UsageError
from gpt2cli.hparams import LORA_A, LORA_B, LORA_SCALE
from gpt2cli.records import StepReport
from gpt2cli.storage import bundle
from tests import models
from tests.sources import source_of

RUN = Path("checkpoint/run1")


@pytest.fixture
def place(tmp_path: Path, mini_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with `models/small` and a text to train on."""
    shutil.copytree(mini_model, tmp_path / "models" / "small")
    text = "".join(f"{n}. The cat sat on the mat, and the other cat sat.\n" for n in range(60))
    (tmp_path / "text.txt").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trained(**options: Any) -> list[Any]:
    settings: dict[str, Any] = {
        "dataset": ("text.txt",),
        "model_name": "small",
        "seed": 1,
        "accumulate_gradients": 1,
        "learning_rate": 1e-2,
        "sample_every": 0,
        "xla": False,
        "val_fraction": 0.0,
    }
    return list(finetune(FinetuneConfig(**settings | options)))


def losses(records: list[Any]) -> list[float]:
    return [record.loss for record in records if isinstance(record, StepReport)]


def tensors(prefix: Path, names: Any) -> dict[str, Any]:
    from gpt2cli.storage import checkpoint

    return dict(checkpoint.load(prefix, names))


def test_a_run_keeps_adapters_alone_and_reads_as_what_they_are_merged_into(place: Path) -> None:
    records = trained(lora_rank=2, steps=6, save_every=3)
    assert "training: 512 weights of adapters of rank 2, alpha 4; the others" in "".join(
        map(str, records)
    )
    assert losses(records)[-1] < losses(records)[0]
    entries, _ = bundle.read_index(RUN / "model-6")
    assert {name: entry.shape for name, entry in entries.items()} == models.MINI.lora_shapes(2)
    shapes = models.MINI.shapes()
    shutil.rmtree("models")
    merged, adapters = tensors(RUN / "model-6", shapes), tensors(RUN / "model-6", entries)
    for name, array in models.random_arrays(models.MINI).items():
        if len(shapes[name]) == 3:
            change = adapters[name + LORA_A] @ adapters[name + LORA_B] * adapters[LORA_SCALE]
            assert np.abs(change).max() > 0
            array = array + change
        np.testing.assert_allclose(merged[name], array, atol=1e-6, err_msg=name)
    assert source_of(GenerateConfig(checkpoint="3")).step == 3


def test_a_run_of_adapters_goes_on_as_if_it_had_never_stopped(place: Path) -> None:
    whole = trained(lora_rank=2, lora_alpha=3, steps=6, run_name="whole")
    first = trained(lora_rank=2, lora_alpha=3, steps=2)
    second = trained(steps=4, model_name=None)
    assert losses(first) + losses(second) == losses(whole)
    names = models.MINI.lora_shapes(2)
    expected = tensors(Path("checkpoint/whole/model-6"), names)
    for name, array in tensors(RUN / "model-6", names).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_the_merged_weights_of_a_run_are_what_another_begins_with(place: Path) -> None:
    trained(lora_rank=2, steps=3)
    trained(restore_from=str(RUN), run_name="full", steps=1, learning_rate=0)
    trained(restore_from=str(RUN), run_name="more", lora_rank=1, steps=1, learning_rate=0)
    shapes = models.MINI.shapes()
    expected = tensors(RUN / "model-3", shapes)
    for prefix in ("full/model-1", "more/model-1", "more/base"):
        for name, array in tensors(Path("checkpoint") / prefix, shapes).items():
            np.testing.assert_allclose(array, expected[name], atol=1e-7, err_msg=name)
    assert not Path("checkpoint/full/base.index").exists()


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({}, {"lora_rank": 2}, "was trained in full"),
        ({"lora_rank": 2}, {"lora_rank": 4}, "with --lora-rank 2 --lora-alpha 4"),
        ({"lora_rank": 2}, {"lora_rank": 0}, "with --lora-rank 2 --lora-alpha 4"),
        ({"lora_rank": 2}, {"lora_alpha": 9.0}, "with --lora-rank 2 --lora-alpha 4"),
    ],
    ids=str,
)
def test_a_run_is_not_continued_as_another_kind(
    place: Path, first: dict[str, Any], second: dict[str, Any], message: str
) -> None:
    trained(steps=1, **first)
    before = sorted(path.name for path in RUN.iterdir())
    with pytest.raises(BadDataError, match=message):
        trained(steps=1, **second)
    assert sorted(path.name for path in RUN.iterdir()) == before


def test_settings_that_cannot_be_are_refused(place: Path) -> None:
    with pytest.raises(UsageError, match="--lora-alpha is of adapters"):
        trained(lora_alpha=2.0)
    with pytest.raises(UsageError, match="scratch"):
        trained(lora_rank=2, restore_from="scratch")


def test_adapters_to_other_weights_do_not_take_a_runs_place(place: Path) -> None:
    trained(lora_rank=2, steps=1)
    models.write_model(place / "models" / "other", models.MINI, seed=5)
    options: dict[str, Any] = {"lora_rank": 2, "restore_from": "fresh", "overwrite": True}
    with pytest.raises(BadDataError, match="holds adapters to other weights"):
        trained(model_name="other", **options)
    assert losses(trained(steps=1, **options))
    # A run that is trained in full from now on needs the weights beside it no longer.
    trained(restore_from="fresh", overwrite=True, steps=1)
    assert not (RUN / "base.index").exists()
    assert source_of(GenerateConfig()).step == 1


def test_a_run_without_the_weights_beside_its_adapters_is_named(place: Path) -> None:
    trained(lora_rank=2, steps=1)
    (RUN / "base.index").unlink()
    with pytest.raises(BadDataError, match=r"base\.index is missing; the run folder"):
        trained(steps=1)
