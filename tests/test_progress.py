"""How far a transfer is, told by lines or a bar."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import pytest

from gpt2cli import progress
from gpt2cli.progress import Count, Event, Received, told
from gpt2cli.records import Notice
from gpt2cli.runtime import tensorflow
from tests.conftest import Terminal


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


def test_a_count_off_a_terminal_is_a_line_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([0.0, 1.0, 9.9, 10.0, 11.0, 20.0])
    monkeypatch.setattr("gpt2cli.progress.time.monotonic", lambda: next(clock))
    with Count("writing", 4000, quiet=False, unit="samples") as meter:
        lines = [str(line) for n in range(4) for line in meter.advance(1000 + n, "token 5")]
        lines += map(str, meter.advance(4000))
    assert lines == ["writing 1,002 of 4,000 samples: token 5", "writing 4,000 of 4,000 samples"]


def test_a_count_on_a_terminal_is_a_bar_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with Count("judging", 50, quiet=False, unit="tokens") as meter:
        for done in range(1, 51):
            assert not list(meter.advance(done, f"loss={done}"))
    drawn = screen.getvalue().split("\r")
    # It is not drawn 50 times: that would take longer than what it tells of.
    assert len([line for line in drawn if line.strip()]) < 10
    assert "0/50" in drawn[1]
    assert any("50/50" in line and "loss=50" in line for line in drawn)
    assert not drawn[-1].strip() and not drawn[-2].strip()


def test_a_quiet_count_says_nothing_anywhere(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(progress, "LONG_SECONDS", 0.0)
    screen = Terminal()
    for stderr in (sys.stderr, screen):
        monkeypatch.setattr(sys, "stderr", stderr)
        with Count("judging", 3, quiet=True) as meter:
            for done in meter.named(slowly(3), "compiling"):
                assert not list(meter.advance(done))
    assert screen.getvalue() == capfd.readouterr().err == ""


def slowly(count: int) -> Iterator[int]:
    for number in range(count):
        time.sleep(0.1)
        yield number


def test_only_a_first_piece_that_takes_long_is_named(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LONG_SECONDS", 0.05)
    with Count("judging", 3, quiet=False) as meter:
        assert list(meter.named(slowly(3), "compiling")) == [0, 1, 2]
        assert list(meter.named(iter("ab"), "nothing slow")) == ["a", "b"]
    assert capfd.readouterr().err == "compiling (0 s)\n"


def test_a_first_piece_is_named_in_the_bar_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with Count("judging", 3, quiet=False) as meter:
        assert list(meter.named(slowly(3), "compiling")) == [0, 1, 2]
    assert "compiling" in screen.getvalue()
    assert "\n" not in screen.getvalue().strip("\n")


def test_what_takes_long_is_announced_and_told_again_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LONG_SECONDS", 0.05)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.3)
    with progress.announced("loading") as told:
        time.sleep(0.2)
        told("loading: half of it")
        time.sleep(0.3)
    with progress.announced("too short to be named"):
        pass
    with progress.announced("not wanted", quiet=True):
        time.sleep(0.2)
    assert capfd.readouterr().err == "loading (0 s)\nloading: half of it (0 s)\n"


def test_what_is_announced_while_stderr_is_held_back_is_seen(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LONG_SECONDS", 0.05)
    with progress.announced("loading"), tensorflow.captured_stderr():
        time.sleep(0.3)
    assert capfd.readouterr().err == "loading (0 s)\n"
