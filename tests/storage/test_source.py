"""Which checkpoint a command starts from, and every refusal on the way."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.config.generate import GenerateConfig
from gpt2cli.errors import BadDataError, Gpt2cliError, MissingInputError, OutputError
from gpt2cli.files import paths
from gpt2cli.storage import checkpoint, run, run_log
from gpt2cli.storage.source import chosen_step
from gpt2cli.storage.state import State
from tests import models
from tests.sources import source_of


@pytest.fixture
def place(tmp_path: Path, small_model: Path) -> Path:
    """A folder with `models/small`, a run `trained` at step 3, and a run of gpt-2-simple's."""
    shutil.copytree(small_model, tmp_path / "models" / "small")
    trained = tmp_path / "checkpoint" / "trained"
    state = State(step=3, seed=9, model_name="small")
    run.prepare(trained, small_model)

    def write(weights: Path, optimizer: Path) -> None:
        checkpoint.save(weights, models.random_arrays(models.SMALL, seed=1))
        checkpoint.save(optimizer, {"x": models.random_arrays(models.SMALL)["model/wpe"]})

    run.commit(trained, state, write)
    simple = tmp_path / "checkpoint" / "simple"
    run.prepare(simple, small_model)
    checkpoint.save(simple / "model-40", models.random_arrays(models.SMALL, seed=2))
    (simple / "checkpoint").write_text('model_checkpoint_path: "model-40"\n')
    (simple / "counter").write_text("40\n")
    return tmp_path


def finetune_config(place: Path, **options: object) -> FinetuneConfig:
    settings = {"dataset": ("x",), "model_name": "small", "run_name": "new"} | options
    folders_of = {"model_dir": f"{place}/models", "checkpoint_dir": f"{place}/checkpoint"}
    return FinetuneConfig(**settings, **folders_of)  # type: ignore[arg-type]


def generate_config(place: Path, **options: object) -> GenerateConfig:
    folders_of = {"model_dir": f"{place}/models", "checkpoint_dir": f"{place}/checkpoint"}
    return GenerateConfig(**options, **folders_of)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "prefix", "step"),
    [
        ({}, "models/small/model.ckpt", 0),
        ({"restore_from": "fresh"}, "models/small/model.ckpt", 0),
        ({"restore_from": "scratch"}, None, 0),
        ({"run_name": "trained"}, "checkpoint/trained/model-3", 3),
        ({"run_name": "trained", "model_name": None}, "checkpoint/trained/model-3", 3),
        ({"run_name": "simple", "model_name": None}, "checkpoint/simple/model-40", 40),
        ({"restore_from": "PLACE/models/small"}, "models/small/model.ckpt", 0),
        ({"restore_from": "PLACE/checkpoint/trained"}, "checkpoint/trained/model-3", 0),
        ({"restore_from": "PLACE/checkpoint/trained/model-3"}, "checkpoint/trained/model-3", 0),
        (
            {"restore_from": "PLACE/checkpoint/trained/model-3.index"},
            "checkpoint/trained/model-3",
            0,
        ),
        (
            {"restore_from": "fresh", "run_name": "trained", "overwrite": True},
            "models/small/model.ckpt",
            0,
        ),
    ],
)
def test_finetune_starts_where_it_is_told(
    options: dict[str, object], prefix: str | None, step: int, place: Path
) -> None:
    told = {
        key: value.replace("PLACE", str(place)) if isinstance(value, str) else value
        for key, value in options.items()
    }
    start = source_of(finetune_config(place, **told))
    assert start.prefix == (place / prefix if prefix else None)
    assert start.step == step
    assert start.hparams == models.SMALL


def test_a_runs_state_comes_with_it_and_gpt_2_simples_has_none(place: Path) -> None:
    state = source_of(finetune_config(place, run_name="trained")).state
    assert state == State(step=3, seed=9, model_name="small")
    assert source_of(finetune_config(place, run_name="simple", model_name=None)).state is None


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"model_name": "medium"}, MissingInputError, r"models/medium; .*models holds small"),
        ({"restore_from": "nowhere"}, MissingInputError, "nowhere"),
        ({"run_name": "trained", "restore_from": "fresh"}, OutputError, "step 3.*--overwrite"),
        ({"run_name": "trained", "model_name": "other"}, BadDataError, "from small, not from othe"),
    ],
)
def test_finetune_refuses(
    options: dict[str, object], kind: type[Gpt2cliError], message: str, place: Path
) -> None:
    with pytest.raises(kind, match=message):
        source_of(finetune_config(place, **options))


def test_a_run_is_not_overwritten_by_a_model_of_another_shape(place: Path) -> None:
    wide = dataclasses.replace(models.SMALL, n_embd=64)
    models.write_model(place / "models" / "wide", wide)
    config = finetune_config(
        place, run_name="trained", model_name="wide", restore_from="fresh", overwrite=True
    )
    with pytest.raises(BadDataError, match=r"n_embd=32.*n_embd=64"):
        source_of(config)


def test_a_model_that_does_not_fit_its_hparams_is_refused(place: Path) -> None:
    models.write_description(place / "models" / "small", dataclasses.replace(models.SMALL, n_ctx=9))
    with pytest.raises(BadDataError, match=r"model/wpe is float32 \(32, 32\)"):
        source_of(finetune_config(place))


def test_a_lost_checkpoint_file_is_made_up_for(place: Path) -> None:
    (place / "checkpoint" / "trained" / "checkpoint").unlink()
    start = source_of(finetune_config(place, run_name="trained"))
    assert start.prefix == place / "checkpoint" / "trained" / "model-3"


def test_damage_is_never_answered_by_starting_over(place: Path) -> None:
    data = paths.data_file(place / "checkpoint" / "trained" / "model-3")
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(BadDataError, match=r"model-3\.data-00000-of-00001 should have"):
        source_of(finetune_config(place, run_name="trained"))


def test_generate_takes_a_run_or_a_base_model(place: Path) -> None:
    start = source_of(generate_config(place, run_name="trained"))
    assert start.prefix == place / "checkpoint" / "trained" / "model-3"
    start = source_of(generate_config(place, model_name="small"))
    assert start.prefix == place / "models" / "small" / "model.ckpt"


def test_generate_names_what_there_is_instead(place: Path) -> None:
    with pytest.raises(MissingInputError, match=r"run1; .*checkpoint holds simple, trained"):
        source_of(generate_config(place))
    with pytest.raises(MissingInputError, match=r"models/124M; .*models holds small"):
        source_of(generate_config(place, model_name="124M"))


def test_old_names_of_models_find_the_new_folders(place: Path) -> None:
    (place / "models" / "small").rename(place / "models" / "124M")
    start = source_of(generate_config(place, model_name="117M"))
    assert start.folder == place / "models" / "124M"


def test_a_best_checkpoint_that_is_not_there_is_refused_with_the_reason(place: Path) -> None:
    folder = place / "best"
    folder.mkdir()
    paths.index_file(paths.weights(folder, 4)).touch()
    line = '{"event": "validation", "time": 1.0, "step": 0, "loss": 2.5}\n'
    for loss_of, log, reason in (
        (None, "", "it was never validated"),
        (None, line, "its lowest validation loss is that of step 0, before it was trained"),
        (3, line, "that of step 3 is gone"),
    ):
        (folder / run_log.LOG).write_text(log)
        run_log.write_best(folder, loss_of or 0, 2.5)
        assert (folder / run_log.BEST).exists() == bool(loss_of)
        message = f"best has no best checkpoint: {reason}; there are: 4\\.$"
        with pytest.raises(MissingInputError, match=message):
            chosen_step(folder, "best")
    # As older versions wrote it.
    (folder / run_log.BEST).write_text('{"step": 0, "loss": 2.5}')
    with pytest.raises(MissingInputError, match="that of step 0, before it was trained"):
        chosen_step(folder, "best")
    run_log.write_best(folder, 4, 2.0)
    assert chosen_step(folder, "best") == 4
