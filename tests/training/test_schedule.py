"""Learning rates at the steps that matter."""

from __future__ import annotations

from typing import Any

import pytest

from gpt2cli.config.finetune import OptimizerOptions
from gpt2cli.training.schedule import learning_rate


@pytest.mark.parametrize(
    ("kind", "rates"),
    [
        ("constant", [0.25, 1, 1, 1, 1]),
        ("linear", [0.25, 1, 0.75, 0, 0]),
        ("cosine", [0.25, 1, 0.1 + 0.9 * 0.853553, 0.1, 0.1]),
    ],
)
def test_the_rate_rises_and_falls_as_its_kind_says(kind: Any, rates: list[float]) -> None:
    how = OptimizerOptions(schedule=kind, learning_rate=2.0, warmup_steps=4)
    found = [learning_rate(step, how, 24) for step in (1, 4, 9, 24, 1000)]
    assert found == pytest.approx([2 * rate for rate in rates], rel=1e-5)


def test_without_warmup_the_first_step_has_the_full_rate() -> None:
    assert learning_rate(1, OptimizerOptions(learning_rate=1e-4, warmup_steps=0), None) == 1e-4
