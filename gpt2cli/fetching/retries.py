"""How long to go on with a host that fails."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from urllib3.util.retry import Retry

from gpt2cli.errors import UsageError, shortened

LONGEST_WAIT_SECONDS = 120.0
LONGEST_CONNECT_SECONDS = 10.0
LEAST_TIMEOUT_SECONDS = 0.1
WORTH_RETRYING = (408, 429, *range(500, 600))


@dataclass(frozen=True)
class Patience:
    """How long to go on with a host that fails.

    Attributes:
        retries: tries after the first, unless one of them makes headway.
        wait_seconds: the waits between tries are 0, then 2, 4, 8, … times this.
        timeout_seconds: silence after which a connection counts as lost; ten seconds are
            enough for making one.
    """

    retries: int = 5
    wait_seconds: float = 1.0
    timeout_seconds: float = 30.0

    @property
    def timeouts(self) -> tuple[float, float]:
        """How long to wait for a connection, and then for each of its bytes (seconds)."""
        return min(LONGEST_CONNECT_SECONDS, self.timeout_seconds), self.timeout_seconds

    def policy(self) -> Retry:
        """Returns urllib3's account of tries, unused."""
        return Retry(
            total=self.retries,
            backoff_factor=self.wait_seconds,
            backoff_max=LONGEST_WAIT_SECONDS,
            status_forcelist=WORTH_RETRYING,
        )


def patience_from_environment() -> Patience:
    """Returns the patience that GPT2CLI_RETRY_SECONDS and GPT2CLI_TIMEOUT_SECONDS ask for."""
    return Patience(
        wait_seconds=seconds("GPT2CLI_RETRY_SECONDS", Patience.wait_seconds),
        timeout_seconds=seconds(
            "GPT2CLI_TIMEOUT_SECONDS", Patience.timeout_seconds, LEAST_TIMEOUT_SECONDS
        ),
    )


def seconds(variable: str, default: float, least: float = 0.0) -> float:
    """Returns a time from the environment.

    Raises:
        UsageError: the variable holds none, or less than the least.
    """
    text = os.environ.get(variable, "")
    if text and not (re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) and float(text) >= least):
        raise UsageError(
            f"{variable} must be a number of seconds from {least:g}, not '{shortened(text)}'."
        )
    return float(text) if text else default
