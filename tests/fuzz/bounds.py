"""What every reader of a foreign file must keep to, and how many cases try it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from hypothesis import HealthCheck, settings

from gpt2cli.errors import Gpt2cliError

MOST_CHARACTERS = 500
# How many times as many cases are made: FUZZ=10 for a long night.
FACTOR = int(os.environ.get("FUZZ", "1"))


def cases(count: int) -> settings:
    """Returns the settings of a test with so many generated cases, each time the same ones."""
    return settings(
        max_examples=count * FACTOR,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Within the block errors of our own are fine if a person can read them; no others are."""
    try:
        yield
    except Gpt2cliError as error:
        message = str(error)
        assert 0 < len(message) <= MOST_CHARACTERS, message
        assert all(char.isprintable() or char == "\n" for char in message), repr(message)
