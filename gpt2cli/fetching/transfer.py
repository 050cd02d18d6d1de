"""One file over HTTP into its `.part`: resumed if it can be, tried again if that may help."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import requests

from gpt2cli.errors import Gpt2cliError, TryLaterError, shortened, without_password
from gpt2cli.fetching import responses
from gpt2cli.fetching.partial_file import Origin, PartialFile
from gpt2cli.fetching.responses import TransientError, refusal
from gpt2cli.fetching.retry_policy import WORTH_RETRYING, Attempts, RetryPolicy
from gpt2cli.progress import Event, Received, portion
from gpt2cli.records import Progress

# A try that brought this much, or this share of the file, is not held against the host.
HEADWAY_BYTES = 1 << 20
HEADWAY_SHARE = 0.01
MOST_BYTES = 1 << 50


@dataclass(frozen=True, kw_only=True)
class Connection:
    """How hosts are asked.

    Attributes:
        session: the connections to use.
        policy: how often and for how long a host that fails is asked again.
        explain: returns what a host's refusal means, if more than its status is known.
    """

    session: requests.Session
    policy: RetryPolicy
    explain: Callable[[requests.Response], Gpt2cliError | None] = lambda response: None


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is known of a file before it is asked for.

    Attributes:
        url: where it is.
        sizes: the sizes that it may have (bytes); empty if none is known.
        pinned: whether its hash is known, so that partial files of any origin may be continued.
        most: the size from which on it is refused (bytes).
        moves: whether the host may send us to another one.
    """

    url: str
    sizes: tuple[int, ...] = ()
    pinned: bool = False
    most: int = MOST_BYTES
    moves: bool = True


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """The way of one file from one address into its partial file."""

    connection: Connection
    wanted: Wanted
    partial: PartialFile

    @property
    def total(self) -> int | None:
        """The size that the file will have (bytes), as far as it is known."""
        sizes = self.wanted.sizes
        said = self.partial.origin.size if self.partial.origin else None
        if said is not None and (not sizes or said in sizes):
            return said
        return max(sizes, default=None)

    @property
    def place(self) -> str:
        """Where the file is, for a message."""
        return shortened(self.wanted.url)

    @property
    def so_far(self) -> str:
        """How much of the file is there, for a message."""
        return portion(self.partial.size, self.total)

    def events(self) -> Iterator[Event]:
        """Yields what happens until the partial file is whole.

        Raises:
            RefusedError: the host will not give this file.
            TryLaterError: it may do so later; what has come is kept.
            DiskError: the disk is full or fails.
        """
        for size in self.partial.reopen():
            yield Received(size, self.total)
        if self.partial.size > (self.total or self.partial.size):
            self.partial.restart(self._origin())
        attempts, ended = Attempts(self.connection.policy), self._complete()
        while not ended:
            before = self.partial.size
            try:
                yield from self._attempt()
                ended = True
            except TransientError as fault:
                if self.partial.size - before >= self._headway:
                    attempts.renew()
                kept = f"{self.so_far} are kept; try" if self.partial.size else "Try"
                later = f"{self.place}: {fault}. {kept} the same command again later."
                wait = attempts.wait_after(fault, later)
                when = f" in {wait:.3g} s" if wait else ""
                yield Progress(f"{self.place}: {fault}; trying again{when}.")
                time.sleep(wait)
                ended = self._complete()

    def _origin(self, validator: str | None = None, size: int | None = None) -> Origin:
        # What is written to a disk holds no password.
        return Origin(url=without_password(self.wanted.url), validator=validator, size=size)

    @property
    def _headway(self) -> int:
        return max(1, min(HEADWAY_BYTES, int(HEADWAY_SHARE * (self.total or 0))))

    def _complete(self) -> bool:
        known = self.wanted.sizes or ((self.total,) if self.total else ())
        return self.partial.size in known

    def _attempt(self) -> Iterator[Event]:
        with responses.network_faults(self.wanted.url):
            response = self.connection.session.get(
                self.wanted.url,
                headers=range_headers(self.partial, self.wanted, self._origin().url),
                stream=True,
                timeout=self.connection.policy.timeouts,
                hooks={} if self.wanted.moves else {"response": responses.STAYS},
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
                self._refuse(response)
            yield from self._body(response)

    def _continue(self, response: requests.Response) -> None:
        """Checks that a 206 carries on where the partial file ends."""
        start, total = responses.content_range(response)
        if start != self.partial.size:
            origin = self.partial.origin or self._origin()
            self.partial.note(replace(origin, url=self._origin().url, ranges=False))
            said = shortened(response.headers.get("Content-Range", ""), 60)
            raise TryLaterError(
                f"{self.place} was asked for bytes from {self.partial.size} on and answered with "
                f"Content-Range '{said}'. Run the same command again to fetch it from the start."
            )
        responses.check_size(response, self.place, total, self.wanted.sizes)

    def _begin(self, response: requests.Response) -> None:
        """Takes a 200's first bytes in place of what has come, once they look right."""
        size = responses.size(response)
        responses.check_size(response, self.place, size, self.wanted.sizes)
        head = responses.checked_beginning(response, self.place)
        self.partial.restart(self._origin(responses.validator(response), size))
        self.partial.append(head)

    def _refuse(self, response: requests.Response) -> None:
        """Raises what an answer without the file means."""
        status = responses.status(response)
        if response.status_code in WORTH_RETRYING:
            raise TransientError(f"the host answers {status}", responses.retry_after(response))
        if response.status_code == 416 and self.partial.size:
            self.partial.restart(self._origin())
            raise TransientError(f"the host answers {status}; the file starts anew")
        head = responses.sample(response)
        known = self.connection.explain(response)
        raise known or refusal(response, self.place, responses.excerpt(head) if head else "nothing")

    def _body(self, response: requests.Response) -> Iterator[Event]:
        """Appends the bytes as they come; yields how far that is."""
        yield Received(self.partial.size, self.total)
        pace = responses.Pace(self.connection.policy.timeout_seconds, self.partial.size)
        # A host may say any size of what has no known one.
        most = min(self.wanted.most, self.total or self.wanted.most)
        while chunk := self._read(response):
            self.partial.append(chunk)
            yield Received(self.partial.size, self.total)
            if (size := self.partial.size) > most:
                self.partial.discard()
                raise refusal(response, self.place, f"more than the {most:,} bytes: {size:,}")
            if pace.hangs(size):
                raise TransientError(f"the connection hangs at {self.so_far}")
        if self.total is not None and not self._complete():
            if response.raw.chunked and response.status_code == 200:
                came = f"{self.partial.size:,} bytes in place of {self.total:,}"
                raise refusal(response, self.place, came)
            raise TransientError(f"the connection was cut at {self.so_far}")

    def _read(self, response: requests.Response) -> bytes:
        """Returns the bytes that are there, or waits for some; none at the end."""
        try:
            with responses.network_faults(self.wanted.url):
                return responses.read(response, responses.CHUNK_BYTES)
        except TransientError as fault:
            raise TransientError(f"{fault} at {self.so_far}") from fault


def range_headers(partial: PartialFile, wanted: Wanted, url: str) -> dict[str, str]:
    """Returns the headers that ask for what is missing, if asking so is safe."""
    known = partial.origin if partial.origin and partial.origin.url == url else None
    if not partial.size or (known and not known.ranges):
        return {}
    headers = {"Range": f"bytes={partial.size}-"}
    if known and known.validator:
        return {**headers, "If-Range": known.validator}
    # Without a validator only the hash can tell whether the two parts fit.
    return headers if wanted.pinned else {}
