"""How far a transfer is, told by lines or a bar."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator

import pytest

from gpt2cli import progress, terminal
from gpt2cli.progress import Count, Event, Received, Steps, announced, told
from gpt2cli.records import Notice, Record, StepReport
from gpt2cli.runtime import tensorflow
from gpt2cli.terminal import LivingLine
from tests.terminals import COLUMNS, screen


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


def test_a_bar_stays_when_it_is_done_and_notices_pass_above_it() -> None:
    events: list[Event] = [
        Received(done=0, total=100),
        Notice("resuming"),
        Received(done=100, total=100),
    ]
    with screen() as shown:
        for record in told(iter(events), "file", bars=True):
            with terminal.room():
                sys.stderr.write(f"{record}\n")
    assert shown.seen[0] == "resuming"
    assert shown.seen[1].startswith("file: 100 of 100 bytes |██████████|")
    assert shown.seen[2:] == [""]


def test_a_count_on_a_terminal_is_a_living_line_that_goes_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(terminal, "DELAY_SECONDS", 0.0)
    with screen() as shown, Count("judging", 50, quiet=False, unit="tokens") as meter:
        for done in range(1, 51):
            time.sleep(0.01)
            assert not list(meter.advance(done, f"loss={done}"))
    # It is not drawn 50 times: that would take longer than what it tells of.
    assert 2 <= len(shown.drawn) < 10
    assert all(re.match(r"judging \d+ of 50 tokens \|", line) for line in shown.drawn)
    assert "loss=" in shown.drawn[-1]
    assert shown.seen == [""]


def test_a_living_line_ticks_while_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "DELAY_SECONDS", 0.05)
    monkeypatch.setattr(terminal, "TICK_SECONDS", 0.1)
    with screen() as shown:
        with Count("judging", 3, quiet=False) as meter:
            assert list(meter.named(slowly(3), "compiling")) == [0, 1, 2]
        monkeypatch.setattr(terminal, "DELAY_SECONDS", 5)
        with progress.announced("too short to be named"):
            time.sleep(0.1)
    assert any("compiling" in line for line in shown.drawn)
    assert "\n" not in shown.text and "too short" not in shown.text
    assert shown.text.endswith("\r\x1b[K")


def test_a_line_that_is_too_long_for_the_terminal_is_cut() -> None:
    with screen() as shown, LivingLine(lambda: "x" * 500, at_once=True):
        time.sleep(0.2)
    assert shown.drawn[0] == "x" * (COLUMNS - 1)


def test_a_quiet_count_says_nothing_anywhere(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(progress, "LONG_SECONDS", 0.0)
    with Count("judging", 3, quiet=True) as meter:
        for done in meter.named(slowly(3), "compiling"):
            assert not list(meter.advance(done))
    assert capfd.readouterr().err == ""
    with screen() as shown, Count("judging", 3, quiet=True) as meter:
        for done in meter.named(slowly(3), "compiling"):
            assert not list(meter.advance(done))
    assert shown.text == ""


def test_the_line_of_a_training_tells_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "DRAW_SECONDS", 0.0)

    def training() -> Iterator[Record]:
        yield StepReport(step=11, seconds=30.0, loss=3.0, average=3.5, speed=100.0)
        yield StepReport(step=12, seconds=32.0, loss=2.0, average=3.25, speed=5120.0)
        yield Notice("between")

    with screen() as shown:
        assert [str(record) for record in Steps(10, 110).told(training())] == ["between"]
    # 98 steps of 2 seconds are left: the first one compiled.
    assert shown.drawn[-1] == (
        "step 12 of 110 |▏         | 00:32 < 03:16 loss=2.00 avg=3.25 5,120 tokens/s"
    )
    with screen() as shown:
        list(Steps(10, None).told(training()))
    assert shown.drawn[-1] == "step 12 00:32 loss=2.00 avg=3.25 5,120 tokens/s"


def test_a_foreign_name_cannot_command_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "DELAY_SECONDS", 0.0)
    with screen() as shown, announced("reading a\x1b]0;mine\x07.txt\u202e"):
        time.sleep(0.3)
    assert "reading a\\x1b]0;mine\\x07.txt\\u202e (0 s)" in shown.drawn
