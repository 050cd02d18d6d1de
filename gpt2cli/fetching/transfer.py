"""One file over HTTP into its `.part`: resumed where it can be, tried again if that may help."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import requests
import urllib3
from urllib3.util.retry import Retry

from gpt2cli.errors import RefusedError, TryLaterError, shortened, without_password
from gpt2cli.fetching import responses
from gpt2cli.fetching.partial_file import Origin, Part
from gpt2cli.fetching.responses import TransientError
from gpt2cli.fetching.retries import LONGEST_WAIT_SECONDS, Patience
from gpt2cli.fetching.verification import page_like
from gpt2cli.progress import Event, Received, portion
from gpt2cli.records import Progress

CHUNK_BYTES = 1 << 18
# A try that brought this much, or this share of the file, is not held against the host.
HEADWAY_BYTES = 1 << 20
HEADWAY_SHARE = 0.01
# Slower than this over a whole timeout counts as a connection that hangs (bytes a second).
LEAST_SPEED = 10
RANGE = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15}|\*)")


@dataclass
class Transfer:
    """The way of one file from one address into its part.

    Attributes:
        session: the connections to use.
        url: where the file is.
        part: where its bytes go.
        sizes: the sizes that it may have (bytes); empty if none is known.
        pinned: whether its hash is known, so that parts of any origin may be continued.
        patience: how long to go on.
    """

    session: requests.Session
    url: str
    part: Part
    sizes: tuple[int, ...]
    pinned: bool
    patience: Patience

    @property
    def total(self) -> int | None:
        """The size that the file will have (bytes), as far as it is known."""
        told = self.part.origin.size if self.part.origin else None
        if told is not None and (not self.sizes or told in self.sizes):
            return told
        return max(self.sizes, default=None)

    @property
    def place(self) -> str:
        """Where the file is, for a message."""
        return shortened(self.url)

    @property
    def so_far(self) -> str:
        """How much of the file is there, for a message."""
        return portion(self.part.size, self.total)

    def events(self) -> Iterator[Event]:
        """Yields what happens until the part is as long as the file.

        Raises:
            RefusedError: the host will not give this file.
            TryLaterError: it may do so later; what has come is kept.
            DiskError: the disk is full or fails.
        """
        for size in self.part.reopen():
            yield Received(size, self.total)
        if self.part.size > (self.total or self.part.size):
            self.part.restart(self._origin())
        policy, ended = self.patience.policy(), self._complete()
        while not ended:
            before = self.part.size
            try:
                yield from self._attempt()
                ended = True
            except TransientError as fault:
                if self.part.size - before >= self._headway:
                    policy = self.patience.policy()
                policy = self._next(policy, fault)
                wait = max(policy.get_backoff_time(), fault.after)
                when = f" in {wait:.3g} s" if wait else ""
                yield Progress(f"{self.place}: {fault}; trying again{when}.")
                time.sleep(wait)
                ended = self._complete()

    def _origin(self, validator: str | None = None, size: int | None = None) -> Origin:
        # What is written to a disk holds no password.
        return Origin(without_password(self.url), validator, size)

    @property
    def _headway(self) -> int:
        return max(1, min(HEADWAY_BYTES, int(HEADWAY_SHARE * (self.total or 0))))

    def _complete(self) -> bool:
        known = self.sizes or ((self.total,) if self.total else ())
        return self.part.size in known

    def _next(self, policy: Retry, fault: TransientError) -> Retry:
        kept = f"{self.so_far} are kept; try" if self.part.size else "Try"
        later = f"{self.place}: {fault}. {kept} the same command again later."
        if fault.after > LONGEST_WAIT_SECONDS:
            raise TryLaterError(f"{later[:-1]} than in {fault.after:.0f} s, as the host asks.")
        try:
            cause = urllib3.exceptions.ProtocolError(str(fault))
            return policy.increment(method="GET", url=self.url, error=cause)
        except urllib3.exceptions.MaxRetryError as error:
            raise TryLaterError(f"{later} Tries: {self.patience.retries + 1}.") from error

    def _attempt(self) -> Iterator[Event]:
        with responses.network_faults(self.url):
            response = self.session.get(
                self.url, headers=self._range(), stream=True, timeout=self.patience.timeouts
            )
        with response:
            if response.status_code == 206:
                self._continue(response)
                yield Progress(f"{self.part.path}: resuming at {self.so_far}.")
            elif response.status_code == 200:
                if self.part.size:
                    yield Progress(
                        f"{self.place} cannot be resumed at {self.so_far}; it starts anew."
                    )
                self._begin(response)
            else:
                self._refuse(response)
            yield from self._body(response)

    def _range(self) -> dict[str, str]:
        """Returns the headers that ask for what is missing, if asking so is safe."""
        origin = self.part.origin
        same = origin is not None and origin.url == self._origin().url
        if not self.part.size or (same and origin is not None and not origin.ranges):
            return {}
        wanted = {"Range": f"bytes={self.part.size}-"}
        if same and origin is not None and origin.validator:
            return {**wanted, "If-Range": origin.validator}
        # Without a validator only the hash can tell whether the two parts fit.
        return wanted if self.pinned else {}

    def _continue(self, response: requests.Response) -> None:
        """Checks that a 206 carries on where the part ends."""
        told = response.headers.get("Content-Range", "")
        match = RANGE.fullmatch(told.strip())
        total = int(match[3]) if match and match[3] != "*" else None
        if match is None or int(match[1]) != self.part.size:
            origin = self.part.origin or self._origin()
            self.part.note(replace(origin, url=self._origin().url, ranges=False))
            raise TryLaterError(
                f"{self.place} was asked for bytes from {self.part.size} on and answered with "
                f"Content-Range '{shortened(told, 60)}'. Run the same command again to fetch it "
                "from the start."
            )
        self._check_size(total, response)

    def _begin(self, response: requests.Response) -> None:
        """Takes a 200's first bytes in place of what has come, once they look right."""
        size = responses.size(response)
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise self._refusal(response, f"{shortened(encoding, 40)}-encoded bytes")
        self._check_size(size, response)
        head = responses.beginning(response)
        if kind := page_like(head):
            raise self._refusal(response, f"{kind}: {responses.excerpt(head)}")
        self.part.restart(self._origin(responses.validator(response), size))
        self.part.append(head)

    def _check_size(self, size: int | None, response: requests.Response) -> None:
        if size is not None and self.sizes and size not in self.sizes:
            wanted = " or ".join(f"{size:,}" for size in self.sizes[:3])
            head = responses.sample(response)
            kind = page_like(head)
            said = f": {kind}: {responses.excerpt(head)}" if kind else ""
            raise self._refusal(response, f"{size:,} bytes in place of {wanted}{said}")

    def _refuse(self, response: requests.Response) -> None:
        """Raises what an answer without the file means."""
        status = responses.status(response)
        if self.patience.policy().is_retry("GET", response.status_code):
            raise TransientError(f"the host answers {status}", responses.retry_after(response))
        if response.status_code == 416 and self.part.size:
            self.part.restart(self._origin())
            raise TransientError(f"the host answers {status}; the file starts anew")
        head = responses.sample(response)
        raise self._refusal(response, responses.excerpt(head) if head else "nothing")

    def _refusal(self, response: requests.Response, came: str) -> RefusedError:
        kind = shortened(response.headers.get("Content-Type", "no type given"), 40)
        return RefusedError(
            f"{self.place} answered {responses.status(response)} ({kind}) with {came}. Another "
            "place can be named by --mirror URL."
        )

    def _body(self, response: requests.Response) -> Iterator[Event]:
        """Appends the bytes as they come; yields how far that is."""
        yield Received(self.part.size, self.total)
        since, mark, limit = time.monotonic(), self.part.size, self.patience.timeout_seconds
        while chunk := self._read(response):
            self.part.append(chunk)
            yield Received(self.part.size, self.total)
            if self.total is not None and self.part.size > self.total:
                size = self.part.size
                self.part.discard()
                raise self._refusal(response, f"more than the {self.total:,} bytes: {size:,}")
            if time.monotonic() - since > limit:
                if self.part.size - mark < limit * LEAST_SPEED:
                    raise TransientError(f"the connection hangs at {self.so_far}")
                since, mark = time.monotonic(), self.part.size
        if self.total is not None and not self._complete():
            if response.raw.chunked and response.status_code == 200:
                raise self._refusal(
                    response, f"{self.part.size:,} bytes in place of {self.total:,}"
                )
            raise TransientError(f"the connection was cut at {self.so_far}")

    def _read(self, response: requests.Response) -> bytes:
        """Returns the bytes that are there, or waits for some; none at the end."""
        try:
            with responses.network_faults(self.url):
                return responses.read(response, CHUNK_BYTES)
        except TransientError as fault:
            raise TransientError(f"{fault} at {self.so_far}") from fault
