"""What training does to the model that comes with gpt2cli, on a text that it has not seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpt2cli
from gpt2cli.commands.finetune import finetune
from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.files import paths
from gpt2cli.hparams import read_hparams
from gpt2cli.records import StepReport, Validation
from gpt2cli.text import batches
from gpt2cli.text.tokenizer import read_tokenizer
from tests.docs import pages
from tests.training.steps import loss_of

TINY = Path(gpt2cli.__file__).parent / "data" / "tiny"
STEPS = 200


def fine_tuned(run_name: str, **options: Any) -> list[Any]:
    settings: dict[str, Any] = {
        "dataset": (str(pages.DOCS),),
        "model_name": "tiny",
        "run_name": run_name,
        "seed": 1,
        "steps": 60,
        "window": 64,
        "batch_size": 4,
        "accumulate_gradients": 1,
        "learning_rate": 1e-3,
        "val_fraction": 0.1,
        "val_every": 20,
        "sample_every": 0,
    }
    return list(finetune(FinetuneConfig(**settings | options)))


def losses(records: list[Any], kind: type[StepReport] | type[Validation]) -> list[float]:
    return [record.loss for record in records if isinstance(record, kind)]


@pytest.mark.slow
@pytest.mark.usefixtures("tensorflow")
@pytest.mark.parametrize("options", [{}, {"lora_rank": 8, "learning_rate": 5e-3}], ids=str)
def test_fine_tuning_lowers_the_loss_of_the_text_that_was_held_out(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scores = losses(fine_tuned("run", **options), Validation)
    assert len(scores) == 4
    assert scores[-1] < scores[0] - 0.3


@pytest.mark.slow
@pytest.mark.usefixtures("tensorflow")
def test_the_same_command_with_the_same_seed_gives_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = (
        fine_tuned(name, steps=10, val_every=5, xla=False) for name in ("first", "second")
    )
    for kind in (StepReport, Validation):
        assert losses(first, kind) == losses(second, kind) != []


@pytest.mark.slow
@pytest.mark.usefixtures("tensorflow")
def test_bfloat16_follows_float32_over_200_steps() -> None:
    from gpt2cli.network import gpt2
    from gpt2cli.storage import checkpoint
    from gpt2cli.training.backend import TrainingOptions
    from gpt2cli.training.step import Trainer

    hparams = read_hparams(TINY / paths.HPARAMS)
    tokenizer = read_tokenizer(TINY / paths.ENCODER, TINY / paths.MERGES)
    tokens = np.array(tokenizer.encode(pages.everything()), np.uint16)
    curves = []
    for precision in ("float32", "bfloat16"):
        weights = gpt2.to_variables(checkpoint.load(TINY / "model.ckpt", hparams.shapes()))
        trainer = Trainer(weights, hparams, TrainingOptions(precision=precision, clip_norm=1.0))
        drawn = (batches.windows(tokens, 1, 2 * step, 2, 64)[None] for step in range(STEPS))
        curves.append([loss_of(trainer, b, 3e-4, n, 0) for n, b in enumerate(drawn, 1)])
    exact, narrow = np.array(curves)
    assert exact[-20:].mean() < exact[:20].mean() - 0.5
    # Each stretch of ten steps: single steps of so small a batch say little.
    ratio = narrow.reshape(-1, 10).mean(1) / exact.reshape(-1, 10).mean(1)
    assert np.abs(ratio - 1).max() < 0.02
    assert np.abs(narrow - exact).max() > 1e-5
