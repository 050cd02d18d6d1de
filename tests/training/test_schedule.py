"""Learning rates at the steps that matter."""

from __future__ import annotations

import pytest

from gpt2cli.training.schedule import Schedule


@pytest.mark.parametrize(
    ("kind", "rates"),
    [
        ("constant", [0.25, 1, 1, 1, 1]),
        ("linear", [0.25, 1, 0.75, 0, 0]),
        ("cosine", [0.25, 1, 0.1 + 0.9 * 0.853553, 0.1, 0.1]),
    ],
)
def test_the_rate_rises_and_falls_as_its_kind_says(kind: str, rates: list[float]) -> None:
    schedule = Schedule(kind=kind, rate=2.0, warmup=4, last=24)
    found = [schedule(step) for step in (1, 4, 9, 24, 1000)]
    assert found == pytest.approx([2 * rate for rate in rates], rel=1e-5)


def test_without_warmup_the_first_step_has_the_full_rate() -> None:
    assert Schedule(kind="constant", rate=1e-4, warmup=0, last=None)(1) == 1e-4
