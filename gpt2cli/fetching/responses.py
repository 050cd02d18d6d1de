"""What the network's answers and failures mean for a file that is being fetched."""

from __future__ import annotations

import contextlib
import http.client
import io
import re
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.retry import Retry

from gpt2cli import __version__
from gpt2cli.errors import RefusedError, shortened, without_password
from gpt2cli.fetching.partial_file import VALIDATOR
from gpt2cli.fetching.verification import HEAD_BYTES, page_like

CHUNK_BYTES = 1 << 18
HEAD_SECONDS = 1.0
# A host that asks to wait longer need not say how long (seconds).
LONGEST_ASKED_SECONDS = 1e6
# Sizes have no more digits.
SIZE = re.compile(r"[0-9]{1,15}")
RANGE = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15}|\*)")


class TransientError(Exception):
    """A try failed in a way in which the next one may not; the host may ask to wait (seconds)."""

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


class WatchedReader(io.RawIOBase):
    """What comes from a socket, all that is asked for at once within the socket's timeout.

    By itself each read would wait anew: a host that drips could be listened to for ever.
    """

    def __init__(self, connection: socket.socket, source: io.RawIOBase) -> None:
        """Takes a socket, and what reads from it."""
        self._connection, self._source = connection, source
        self._limit = connection.gettimeout()
        self.begin()

    def begin(self) -> None:
        """Says that something is asked for now."""
        self._deadline = time.monotonic() + (self._limit or 0.0)

    def readable(self) -> bool:
        """Returns True."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Reads what is there, or waits for some; raises TimeoutError if that is too late."""
        if self._limit is not None:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("the answer drips")
            self._connection.settimeout(left)
        try:
            return self._source.readinto(buffer)
        finally:
            self._connection.settimeout(self._limit)

    def close(self) -> None:
        """Ends the reading."""
        self._source.close()
        super().close()


class BoundedAnswer(http.client.HTTPResponse):
    """An answer whose headers, and each read of whose body, come within a timeout or not at all."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._reader = WatchedReader(sock, self.fp.detach())
        self.fp = io.BufferedReader(self._reader)

    def read1(self, n: int = -1) -> bytes:
        """Returns some bytes as soon as there are any."""
        self._reader.begin()
        return super().read1(n)


class BoundedConnection(HTTPConnection):
    """A connection with such answers."""

    response_class = BoundedAnswer


class BoundedTLSConnection(BoundedConnection, HTTPSConnection):
    """The same for https."""


class BoundedAdapter(HTTPAdapter):
    """Asks by connections that bound the time of an answer's headers."""

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the connections to a host."""
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        tls = pool.scheme == "https"
        pool.ConnectionCls = BoundedTLSConnection if tls else BoundedConnection
        return pool


def new_session() -> requests.Session:
    """Returns a session that says who asks, and asks for the bytes as they are."""
    session = requests.Session()
    session.mount("http://", BoundedAdapter())
    session.mount("https://", BoundedAdapter())
    session.headers.update(
        {"User-Agent": f"gpt2cli/{__version__}", "Accept-Encoding": "identity", "Accept": "*/*"}
    )
    session.hooks["response"].append(drop_redirects_body)
    return session


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Returns the scheme, host and port of an address."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, port


def drop_redirects_body(response: requests.Response, **_: Any) -> None:
    """Hangs up on an answer that leads elsewhere: requests would read all that comes with it."""
    if response.is_redirect and response.headers["Location"]:
        response.close()
        response.raw = io.BytesIO()


def refuse_other_host(response: requests.Response, **_: Any) -> None:
    """Raises RefusedError if an answer leads to another host; the other one is not asked."""
    target = response.headers.get("Location", "") if response.is_redirect else ""
    there = origin(urljoin(response.url, target))
    if there != origin(response.url):
        raise RefusedError(
            f"{shortened(response.url)} answered {status(response)} and leads to another host, "
            f"{shortened(there[1])}, which is not asked. Nothing was written."
        )


# In place of a session's own hook if a host may not send us to another one.
STAYS = (refuse_other_host, drop_redirects_body)


@contextlib.contextmanager
def network_faults(url: str) -> Iterator[None]:
    """Within the block the network's failures become TransientError, or what else they mean.

    The address is known to be one; if one that is not is met, a host has led to it.
    """
    url = shortened(url)
    try:
        yield
    except requests.exceptions.TooManyRedirects as error:
        raise RefusedError(f"{url} answers with redirects without end.") from error
    except (requests.exceptions.SSLError, urllib3.exceptions.SSLError) as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise RefusedError(
                f"{url}: its certificate is not to be trusted: {shortened(error)}."
            ) from error
        raise TransientError(f"no secure connection ({shortened(error)})") from error
    except (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError) as error:
        raise TransientError("no answer in time") from error
    # Wrong addresses and schemes, and what urllib.parse raises of some, are ValueErrors.
    except ValueError as error:
        raise RefusedError(
            f"{url} leads to something that is not an HTTP address: {shortened(error)}. Another "
            "place can be named by --mirror URL."
        ) from error
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise TransientError(plain(error)) from error


def plain(error: BaseException) -> str:
    """Returns the innermost reason of a failed connection, without the layers around it."""
    if isinstance(error, http.client.IncompleteRead):
        return "the connection was cut"
    reason = getattr(error, "reason", None)
    for inner in (reason, error.__cause__, error.__context__):
        if isinstance(inner, BaseException):
            return plain(inner)
    return shortened(error) or type(error).__name__


def read(response: requests.Response, size: int) -> bytes:
    """Returns up to `size` bytes of a body as soon as there are any, as they came."""
    chunk: bytes = response.raw.read1(size, decode_content=False)
    return chunk


def beginning(response: requests.Response) -> bytes:
    """Returns a body's first bytes, fewer if it ends before or they come slowly."""
    head, deadline = b"", time.monotonic() + HEAD_SECONDS
    while len(head) < HEAD_BYTES and time.monotonic() < deadline:
        with network_faults(response.url):
            chunk = read(response, HEAD_BYTES - len(head))
        if not chunk:
            break
        head += chunk
    return head


def sample(response: requests.Response) -> bytes:
    """Returns a body's first bytes, or nothing if they don't come, for a message."""
    with contextlib.suppress(TransientError):
        return beginning(response)
    return b""


def excerpt(head: bytes) -> str:
    """Returns the beginning of a body for a message: one line of plain characters."""
    # A host may send back what it was asked with.
    text = without_password(head.decode("utf-8", errors="replace"))[:120]
    return repr(" ".join("".join(c if c.isprintable() else " " for c in text).split()))


def validator(response: requests.Response) -> str | None:
    """Returns what If-Range can name: a strong ETag, else the time of the last change."""
    etag = response.headers.get("ETag", "")
    if VALIDATOR.fullmatch(etag) and not etag.startswith("W/"):
        return str(etag)
    changed = response.headers.get("Last-Modified", "")
    return changed if VALIDATOR.fullmatch(changed) else None


def size(response: requests.Response) -> int | None:
    """Returns how many bytes an answer says it has, or None if it does not say so."""
    told = response.headers.get("Content-Length", "")
    return int(told) if SIZE.fullmatch(told) else None


def content_range(response: requests.Response) -> tuple[int | None, int | None]:
    """Returns at which byte a 206 begins, and how many the whole has, as far as it says so."""
    match = RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if match is None:
        return None, None
    return int(match[1]), None if match[3] == "*" else int(match[3])


def refusal(response: requests.Response, place: str, came: str) -> RefusedError:
    """Returns the error for an answer that is not the file."""
    kind = shortened(response.headers.get("Content-Type", "no type given"), 40)
    return RefusedError(
        f"{place} answered {status(response)} ({kind}) with {came}. Another place can be named by "
        "--mirror URL."
    )


def check_size(
    response: requests.Response, place: str, size: int | None, sizes: tuple[int, ...]
) -> None:
    """Raises RefusedError if an answer says that it has another size than the file."""
    if size is not None and sizes and size not in sizes:
        wanted = " or ".join(f"{size:,}" for size in sizes[:3])
        head = sample(response)
        kind = page_like(head)
        said = f": {kind}: {excerpt(head)}" if kind else ""
        raise refusal(response, place, f"{size:,} bytes in place of {wanted}{said}")


def checked_beginning(response: requests.Response, place: str) -> bytes:
    """Returns a body's first bytes; raises RefusedError if it is encoded, or a page."""
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise refusal(response, place, f"{shortened(encoding, 40)}-encoded bytes")
    head = beginning(response)
    if kind := page_like(head):
        raise refusal(response, place, f"{kind}: {excerpt(head)}")
    return head


def status(response: requests.Response) -> str:
    """Returns an answer's number and the host's words for it."""
    return f"{response.status_code} {shortened(response.reason or '', 40)}".strip()


def retry_after(response: requests.Response) -> float:
    """Returns the seconds that a host asks to wait, without urllib3's upper bound."""
    told = response.headers.get("Retry-After") or "0"
    try:
        return min(Retry().parse_retry_after(told), LONGEST_ASKED_SECONDS)
    # Of numbers and years that are too large Python says so.
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
        return 0.0
