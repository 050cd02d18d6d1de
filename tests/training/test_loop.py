"""Steps that are begun before the one before is reported, as on a GPU; and memory that runs out."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2cli.commands.finetune import finetune
from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.errors import Gpt2cliError
from gpt2cli.hparams import HParams
from gpt2cli.records import Saved, StepReport, Validation
from tests import models
from tests.conftest import Run
from tests.training.steps import loss_of
from tests.training.test_step import drawn, trainer

pytestmark = pytest.mark.usefixtures("tensorflow")


def settings(model: Path, **more: Any) -> FinetuneConfig:
    Path("text.txt").write_text("".join(f"Verse {n}: the cat sat. " for n in range(300)))
    usual = {"sample_every": 0, "val_every": 7, "val_batches": 2, "steps": 20, "print_every": 1}
    return FinetuneConfig(
        dataset=("text.txt",),
        model_name=str(model),
        device="cpu",
        seed=1,
        **usual | {"accumulate_gradients": 2} | more,
    )


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets a CPU be given work as a GPU is; returns how it is undone."""
    from gpt2cli.training import backend
    from gpt2cli.training.backend import Backend

    monkeypatch.setattr(backend, "choose_backend", lambda *_, **__: Backend(gpu=True))
    return monkeypatch


@pytest.mark.slow
def test_steps_that_run_ahead_are_reported_in_order_and_change_nothing(
    mini_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    fetched: list[int] = []
    from gpt2cli.training.session import Session

    reports = Session.reports

    def counted(self: Session) -> list[StepReport]:
        found = reports(self)
        fetched.append(len(found))
        return found

    monkeypatch.setattr(Session, "reports", counted)
    runs = []
    for name in ("ahead", "waiting"):
        if name == "waiting":
            monkeypatch.setattr(Session, "runs_ahead", False)
        runs.append(list(finetune(settings(mini_model, run_name=name))))
    # The first step, up to each validation, and to the end; then one by one.
    assert [count for count in fetched if count][:4] == [1, 6, 7, 6]
    assert max(fetched[fetched.index(6, 2) + 1 :]) == 1
    for kind in (StepReport, Validation, Saved):
        left, right = ([r for r in records if isinstance(r, kind)] for records in runs)
        assert len(left) == len(right) > 0
        for one, other in zip(left, right, strict=True):
            assert getattr(one, "step", None) == getattr(other, "step", None)
            assert getattr(one, "loss", None) == getattr(other, "loss", None)
    states = [
        json.loads((tmp_path / "checkpoint" / name / "state-20.json").read_text())
        for name in ("ahead", "waiting")
    ]
    assert states[0] == states[1]


def test_a_loss_that_is_no_number_is_found_late_and_never_saved(
    mini_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    config = settings(mini_model, learning_rate=1e30, clip_norm=0.0, optimizer="sgd", val_every=0)
    with pytest.raises(Gpt2cliError, match=r"The loss of step \d+ is (nan|inf); the step was not"):
        list(finetune(config))
    assert not list((tmp_path / "checkpoint" / "run1").glob("model-*"))


@pytest.mark.slow
def test_a_step_without_memory_leaves_the_weights_as_they_were() -> None:
    import tensorflow as tf

    hparams = HParams(n_vocab=11, n_ctx=6, n_embd=1024, n_head=2, n_layer=1)
    found = trainer(models.random_arrays(hparams, deviation=0.02), hparams)
    loss_of(found, drawn(1, 1, hparams), 1e-2, 1, 0)
    before = {name: weight.numpy() for name, weight in found.weights.items()}
    # Its embeddings alone are 200 GB; TensorFlow asks for them while the step is computed.
    huge = drawn(1, 8_000_000, hparams)
    with pytest.raises(tf.errors.ResourceExhaustedError):
        found.step(huge, 1e-2, step=2, seed=0)
    # One update was begun and done, and no other one begun.
    assert [float(count) for count in (found.graph.begun, found.graph.done)] == [1, 1]
    assert found.intact
    for name, weight in found.weights.items():
        np.testing.assert_array_equal(weight, before[name])
    found.graph.begun.assign_add(1)
    assert not found.intact


@pytest.mark.parametrize(
    ("message", "size"),
    [
        ("OOM when allocating tensor with shape[8,12,1024,1024] and type half on /job", 201326592),
        ("OOM when allocating tensor with shape[16,4] and type float on /job:localhost", 256),
        ("Out of memory while trying to allocate 32.00TiB. [Op:__inference_f]", 32 * 2**40),
        ("Out of memory while trying to allocate 1234 bytes.", 1234),
        ("Cannot parse tensor from proto: \n dim {\n  size: 4\n}\n dim {\n  size: 8\n}", 128),
        ("failed to allocate memory", 0),
        (
            "Unable to allocate 1.50 MiB for an array with shape (3,) and data type float32",
            1.5 * 2**20,
        ),
    ],
)
def test_what_was_asked_for_is_read_from_the_message(message: str, size: float) -> None:
    from gpt2cli.training import memory

    assert memory.asked(message) == size


def limit_memory() -> None:
    """Lets a process have 16 GB, whatever the machine has; so it takes little of that as well."""
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))


@pytest.mark.slow
def test_memory_that_runs_out_is_told_with_what_fits_and_nothing_is_lost(
    cli: Run, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("".join(f"Verse {n}: the cat sat. " for n in range(3000)))
    usual: tuple[object, ...] = (
        *("finetune", "text.txt", "--model-name", "tiny", "--seed", 1, "--sample-every", 0),
        *("--val-every", 0, "--accumulate-gradients", 1, "--device", "cpu"),
    )
    assert cli(*usual, "--until-step", 2, "--window", 32).returncode == 0
    # The embeddings of these windows alone are 26 GB.
    huge = ("--until-step", 4, "--batch-size", 200_000, "--no-memory-check", "--no-xla")
    done = cli(*usual, *huge, preexec_fn=limit_memory)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "Memory ran out: " in done.stderr
    assert " GB were asked for at once" in done.stderr
    assert "Step 2 is safe. Try --batch-size 1: it takes about" in done.stderr
    assert cli(*usual, "--until-step", 3, "--window", 32).returncode == 0
