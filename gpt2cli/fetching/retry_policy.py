"""How often and for how long a host that fails is asked again."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import urllib3
from urllib3.util.retry import Retry

from gpt2cli.errors import TryLaterError, UsageError, shortened
from gpt2cli.fetching.responses import TransientError

LONGEST_WAIT_SECONDS = 120.0
LONGEST_CONNECT_SECONDS = 10.0
LEAST_TIMEOUT_SECONDS = 0.1
WORTH_RETRYING = (408, 429, *range(500, 600))


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often and for how long a host that fails is asked again.

    Attributes:
        retries: attempts after the first, unless one of them makes headway.
        wait_seconds: the waits between attempts are 0, then 2, 4, 8, … times this.
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


class Attempts:
    """The attempts at one file: how many are left, and how long to wait before the next."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self.renew()

    def renew(self) -> None:
        """Counts anew, because the last attempt made headway."""
        self._left = Retry(
            total=self._policy.retries,
            backoff_factor=self._policy.wait_seconds,
            backoff_max=LONGEST_WAIT_SECONDS,
        )

    def wait_after(self, fault: TransientError, later: str) -> float:
        """Returns how long to wait before the next attempt (seconds).

        Args:
            fault: why the last attempt failed.
            later: what to say if there is no next one; it ends with `later.`.

        Raises:
            TryLaterError: that was the last attempt, or the host asks to wait too long.
        """
        if fault.after > LONGEST_WAIT_SECONDS:
            raise TryLaterError(f"{later[:-1]} than in {fault.after:.0f} s, as the host asks.")
        try:
            cause = urllib3.exceptions.ProtocolError(str(fault))
            self._left = self._left.increment(method="GET", error=cause)
        except urllib3.exceptions.MaxRetryError as error:
            raise TryLaterError(f"{later} Tries: {self._policy.retries + 1}.") from error
        return max(self._left.get_backoff_time(), fault.after)


def retry_policy_from_environment() -> RetryPolicy:
    """Returns the policy that GPT2CLI_RETRY_SECONDS and GPT2CLI_TIMEOUT_SECONDS ask for."""
    return RetryPolicy(
        wait_seconds=seconds("GPT2CLI_RETRY_SECONDS", RetryPolicy.wait_seconds),
        timeout_seconds=seconds(
            "GPT2CLI_TIMEOUT_SECONDS", RetryPolicy.timeout_seconds, LEAST_TIMEOUT_SECONDS
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
