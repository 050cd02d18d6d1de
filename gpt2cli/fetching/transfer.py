"""One file over HTTP into its `.part`: resumed if it can be, tried again if that may help."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import requests

from gpt2cli.errors import Gpt2cliError, TryLaterError, UsageError, shortened, without_password
from gpt2cli.fetching import responses
from gpt2cli.fetching.partial_file import Origin, PartialFile
from gpt2cli.fetching.responses import TransientError, refusal
from gpt2cli.progress import Event, Received, portion
from gpt2cli.records import Progress

# A try that brought this much, or this share of the file, is not held against the host.
HEADWAY_BYTES = 1 << 20
HEADWAY_SHARE = 0.01
# Slower than this over a whole timeout counts as a connection that hangs (bytes a second).
LEAST_SPEED = 10
MOST_BYTES = 1 << 50
LONGEST_WAIT_SECONDS = 120.0
LONGEST_CONNECT_SECONDS = 10.0
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

    def wait_after(self, failures: int, fault: TransientError, later: str) -> float:
        """Returns how long to wait (seconds) after some failures in a row, the last one `fault`.

        Raises TryLaterError with the message `later`, which ends with `later.`, if no try is left.
        """
        if fault.after > LONGEST_WAIT_SECONDS:
            raise TryLaterError(f"{later[:-1]} than in {fault.after:.0f} s, as the host asks.")
        if failures > self.retries:
            raise TryLaterError(f"{later} Tries: {self.retries + 1}.") from fault
        backoff = self.wait_seconds * 2 ** (failures - 1) if failures > 1 else 0.0
        return max(min(backoff, LONGEST_WAIT_SECONDS), fault.after)


@dataclass(frozen=True, kw_only=True)
class Connection:
    """How hosts are asked; `explain` says what a refusal means, if it knows more than a status."""

    session: requests.Session
    policy: RetryPolicy
    explain: Callable[[requests.Response], Gpt2cliError | None] = lambda response: None


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """The way of one file from one address into its partial file.

    Attributes:
        sizes: the sizes that it may have (bytes); empty if none is known.
        pinned: whether its hash is known, so that partial files of any origin may be continued.
        most: the size from which on it is refused (bytes).
        moves: whether the host may send us to another one.
    """

    connection: Connection
    partial: PartialFile
    url: str
    sizes: tuple[int, ...] = ()
    pinned: bool = False
    most: int = MOST_BYTES
    moves: bool = True

    @property
    def total(self) -> int | None:
        """The size that the file will have (bytes), as far as it is known."""
        said = self.partial.origin.size if self.partial.origin else None
        if said is not None and (not self.sizes or said in self.sizes):
            return said
        return max(self.sizes, default=None)

    @property
    def place(self) -> str:
        """Where the file is, for a message."""
        return shortened(self.url)

    @property
    def so_far(self) -> str:
        """How much of the file is there, for a message."""
        return portion(self.partial.size, self.total)

    def events(self) -> Iterator[Event]:
        """Yields what happens until the partial file is whole.

        Raises RefusedError, or TryLaterError if the host may give the file later.
        """
        for size in self.partial.reopen():
            yield Received(size, self.total)
        if self.partial.size > (self.total or self.partial.size):
            self.partial.restart(self.origin())
        failures, ended = 0, self._complete()
        while not ended:
            before = self.partial.size
            try:
                yield from self._attempt()
                ended = True
            except TransientError as fault:
                failures = 1 if self.partial.size - before >= self._headway else failures + 1
                kept = f"{self.so_far} are kept; try" if self.partial.size else "Try"
                later = f"{self.place}: {fault}. {kept} the same command again later."
                wait = self.connection.policy.wait_after(failures, fault, later)
                when = f" in {wait:.3g} s" if wait else ""
                yield Progress(f"{self.place}: {fault}; trying again{when}.")
                time.sleep(wait)
                ended = self._complete()

    def origin(self, validator: str | None = None, size: int | None = None) -> Origin:
        """Returns what is known of where the file comes from; no password is written to a disk."""
        return Origin(url=without_password(self.url), validator=validator, size=size)

    @property
    def _headway(self) -> int:
        return max(1, min(HEADWAY_BYTES, int(HEADWAY_SHARE * (self.total or 0))))

    def _complete(self) -> bool:
        known = self.sizes or ((self.total,) if self.total else ())
        return self.partial.size in known

    def _attempt(self) -> Iterator[Event]:
        silence = self.connection.policy.timeout_seconds
        with responses.network_faults(self.url):
            response = self.connection.session.get(
                self.url,
                headers=range_headers(self.partial, self.origin().url, pinned=self.pinned),
                stream=True,
                timeout=(min(LONGEST_CONNECT_SECONDS, silence), silence),
                hooks={} if self.moves else {"response": responses.STAYS},
            )
        with response:
            if response.status_code == 206:
                self._continue(response)
                yield Progress(f"{self.partial.path}: resuming at {self.so_far}.")
            elif response.status_code == 200:
                if self.partial.size:
                    yield Progress(
                        f"{self.place} cannot be resumed at {self.so_far}; it starts anew."
                    )
                self._begin(response)
            else:
                raise fault_of(response, self)
            yield from self._body(response)

    def _continue(self, response: requests.Response) -> None:
        """Checks that a 206 carries on where the partial file ends."""
        start, total = responses.content_range(response)
        if start != self.partial.size:
            origin = self.partial.origin or self.origin()
            self.partial.note(replace(origin, url=self.origin().url, ranges=False))
            said = shortened(response.headers.get("Content-Range", ""), 60)
            raise TryLaterError(
                f"{self.place} was asked for bytes from {self.partial.size} on and answered with "
                f"Content-Range '{said}'. Run the same command again to fetch it from the start."
            )
        responses.check_size(response, self.place, total, self.sizes)

    def _begin(self, response: requests.Response) -> None:
        """Takes a 200's first bytes in place of what has come, once they look right."""
        size = responses.size(response)
        responses.check_size(response, self.place, size, self.sizes)
        head = responses.checked_beginning(response, self.place)
        self.partial.restart(self.origin(responses.validator(response), size))
        self.partial.append(head)

    def _body(self, response: requests.Response) -> Iterator[Event]:
        """Appends the bytes as they come; yields how far that is."""
        yield Received(self.partial.size, self.total)
        limit = self.connection.policy.timeout_seconds
        mark, since = self.partial.size, time.monotonic()
        # A host may say any size of what has no known one.
        most = min(self.most, self.total or self.most)
        while chunk := self._read(response):
            self.partial.append(chunk)
            yield Received(self.partial.size, self.total)
            if (size := self.partial.size) > most:
                self.partial.discard()
                raise refusal(response, self.place, f"more than the {most:,} bytes: {size:,}")
            if time.monotonic() - since > limit:
                if size - mark < limit * LEAST_SPEED:
                    raise TransientError(f"the connection hangs at {self.so_far}")
                mark, since = size, time.monotonic()
        if self.total is not None and not self._complete():
            if response.raw.chunked and response.status_code == 200:
                came = f"{self.partial.size:,} bytes in place of {self.total:,}"
                raise refusal(response, self.place, came)
            raise TransientError(f"the connection was cut at {self.so_far}")

    def _read(self, response: requests.Response) -> bytes:
        """Returns the bytes that are there, or waits for some; none at the end."""
        try:
            with responses.network_faults(self.url):
                return responses.read(response, responses.CHUNK_BYTES)
        except TransientError as fault:
            raise TransientError(f"{fault} at {self.so_far}") from fault


def range_headers(partial: PartialFile, url: str, *, pinned: bool) -> dict[str, str]:
    """Returns the headers that ask for what is missing, if asking so is safe."""
    known = partial.origin if partial.origin and partial.origin.url == url else None
    if not partial.size or (known and not known.ranges):
        return {}
    headers = {"Range": f"bytes={partial.size}-"}
    if known and known.validator:
        return {**headers, "If-Range": known.validator}
    # Without a validator only the hash can tell whether the two parts fit.
    return headers if pinned else {}


def fault_of(response: requests.Response, transfer: Transfer) -> Exception:
    """Returns what an answer without the file means."""
    status = responses.status(response)
    if response.status_code in WORTH_RETRYING:
        return TransientError(f"the host answers {status}", responses.retry_after(response))
    if response.status_code == 416 and transfer.partial.size:
        transfer.partial.restart(transfer.origin())
        return TransientError(f"the host answers {status}; the file starts anew")
    head = responses.sample(response)
    came = responses.excerpt(head) if head else "nothing"
    return transfer.connection.explain(response) or refusal(response, transfer.place, came)


def retry_policy_from_environment() -> RetryPolicy:
    """Returns the policy that GPT2CLI_RETRY_SECONDS and GPT2CLI_TIMEOUT_SECONDS ask for."""
    return RetryPolicy(
        wait_seconds=seconds("GPT2CLI_RETRY_SECONDS", RetryPolicy.wait_seconds),
        timeout_seconds=seconds("GPT2CLI_TIMEOUT_SECONDS", RetryPolicy.timeout_seconds, least=0.1),
    )


def seconds(variable: str, default: float, least: float = 0.0) -> float:
    """Returns a time from the environment, or raises UsageError."""
    text = os.environ.get(variable, "")
    if text and not (re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) and float(text) >= least):
        raise UsageError(
            f"{variable} must be a number of seconds from {least:g}, not '{shortened(text)}'."
        )
    return float(text) if text else default
