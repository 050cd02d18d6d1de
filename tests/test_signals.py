"""What a signal does while something runs that must not be disturbed."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from gpt2cli import signals


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Raises on signals as the command line does, and not after the test."""
    before = {number: signal.getsignal(number) for number in signals.SIGNALS}
    signals.raise_on_signals()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_held_signal_comes_at_the_end_of_the_block() -> None:
    done = []
    with pytest.raises(signals.Interrupted) as caught, signals.held():
        signal.raise_signal(signal.SIGTERM)
        done.append("the block")
    assert (caught.value.signum, done) == (signal.SIGTERM, ["the block"])
    with pytest.raises(signals.Interrupted):
        signal.raise_signal(signal.SIGTERM)


def test_a_signal_counts_for_more_than_a_failure_of_the_block() -> None:
    with pytest.raises(signals.Interrupted), signals.held():
        signal.raise_signal(signal.SIGINT)
        raise ValueError
    with pytest.raises(ValueError, match="alone"), signals.held():
        raise ValueError("alone")
