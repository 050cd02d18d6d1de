"""How far a transfer is, told by lines or a bar."""

from __future__ import annotations

import pytest

from gpt2cli import progress
from gpt2cli.progress import Event, Received, told
from gpt2cli.records import Notice


def test_without_a_terminal_a_line_comes_every_ten_seconds_and_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([0.0, 1.0, 9.9, 10.0, 11.0, 20.0, 20.5])
    monkeypatch.setattr("gpt2cli.progress.time.monotonic", lambda: next(clock))
    events = [Received(n * 1_000_000, 5_000_000) for n in range(1, 6)]
    assert [str(record) for record in told(iter(events), "file", bars=False)] == [
        "file: 3.0 of 5.0 MB",
        "file: 5.0 of 5.0 MB",
        "file: 5.0 MB in 20.5 s",
    ]


def test_a_bar_is_drawn_on_stderr_and_notices_pass_through(
    capsys: pytest.CaptureFixture[str],
) -> None:
    events: list[Event] = [Received(0, 100), Notice("resuming"), Received(100, 100)]
    assert [str(record) for record in told(iter(events), "file", bars=True)] == ["resuming"]
    out, err = capsys.readouterr()
    assert out == ""
    assert "file" in err and "100%" in err


def test_amounts_are_told_in_units_that_people_read() -> None:
    assert progress.portion(12_500_000, 497_759_232) == "12.5 of 497.8 MB"
    assert progress.portion(10, 90) == "10 of 90 bytes"
    assert progress.portion(2_000_000, None) == "2.0 MB of an unknown size"
