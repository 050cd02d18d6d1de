"""Commands on a real terminal: a sign of life soon, something new all the time, and no litter."""

from __future__ import annotations

import itertools
import re
import time
from pathlib import Path
from typing import Any

import pytest

from gpt2cli.cli import show
from gpt2cli.commands.finetune import finetune
from gpt2cli.config.finetune import FinetuneConfig
from tests import models
from tests.terminals import Screen, run_on_terminal, screen

# No piece of work may be silent for longer (seconds).
MOST_SILENCE = 10.0


@pytest.fixture
def place(tmp_path: Path) -> Path:
    models.write_model(tmp_path / "models" / "mini", models.MINI)
    (tmp_path / "text.txt").write_text("".join(f"Verse {n}: the cat sat. " for n in range(300)))
    return tmp_path


def silences(shown: Screen, began: float) -> list[float]:
    """Returns how long nothing new came, each time."""
    times = [began, *(time for time, _ in shown.pieces)]
    return [after - before for before, after in itertools.pairwise(times)]


def test_a_training_is_one_living_line_that_sums_up(place: Path) -> None:
    usual = ("finetune", "text.txt", "--model-name", "mini", "--device", "cpu", "--no-xla")
    often = ("--steps", 12, "--val-every", 6, "--sample-every", 12, "--sample-length", 4)
    code, shown, began = run_on_terminal([*usual, *often, "--seed", 1], place)
    assert code == 0, shown.text
    assert max(silences(shown, began)) < MOST_SILENCE
    assert any(line.startswith("step 12 of 12 |██████████| ") for line in shown.drawn)
    # In the end it is not there any more, and no step has left a line.
    assert not [line for line in shown.seen if line.startswith("step ")]
    assert not [line for line in shown.seen if re.match(r"\[\d+ \|.*\] loss=", line)]
    validated = [line for line in shown.seen if "val_loss=" in line]
    assert [line.split(" |")[0] for line in validated] == ["[0", "[6", "[12"]
    assert "next: gpt2cli generate --run-name run1" in shown.seen
    (summed,) = [line for line in shown.seen if line.startswith("12 steps in 0:0")]
    best = min(float(line.split("val_loss=")[1].split()[0]) for line in validated)
    assert f"; best validation {best:.4f} at step " in summed
    code, shown, began = run_on_terminal(shown_next(shown), place)
    assert code == 0 and max(silences(shown, began)) < MOST_SILENCE


def test_nothing_is_drawn_below_the_closing_lines(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    usual: dict[str, Any] = {"model_name": "mini", "device": "cpu", "xla": False, "seed": 1}
    config = FinetuneConfig(dataset=("text.txt",), steps=2, sample_every=0, **usual)
    with screen() as shown:
        for record in finetune(config):
            show(record, config)
            if str(record).startswith("next: "):
                time.sleep(1.5)
    assert "step 2 of 2" in shown.text
    assert shown.text.partition("next: gpt2cli generate")[2].strip() == "--run-name run1"


def shown_next(shown: Screen) -> list[str]:
    """Returns the arguments of the command that a training proposes."""
    (line,) = [line for line in shown.seen if line.startswith("next: gpt2cli ")]
    return [*line.split()[2:], "--length", "3", "--device", "cpu"]


@pytest.mark.slow
def test_quiet_commands_leave_the_terminal_alone(place: Path) -> None:
    usual = ("finetune", "text.txt", "--model-name", "mini", "--device", "cpu", "--no-xla", "-q")
    code, shown, _ = run_on_terminal([*usual, "--steps", 2, "--sample-every", 0], place)
    assert (code, shown.text) == (0, "")
