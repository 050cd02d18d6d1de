"""A real HTTP server on the loopback interface that can misbehave in the ways that hosts do."""

from __future__ import annotations

import hashlib
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import repeat
from types import TracebackType

Behaviour = Callable[["Handler", bytes], None]


class Server:
    """Serves files, each request by the next behaviour of its file's script, then well.

    Attributes:
        files: content by path, such as `small/hparams.json`.
        asked: the path and Range of each request, in order.
        authorized: the path and Authorization of each request that had one, in order.
        headers: what every good answer has besides.
        bytes_per_second: the speed of good answers; None: as fast as it goes.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.asked: list[tuple[str, str | None]] = []
        self.authorized: list[tuple[str, str]] = []
        self.headers: dict[str, str] = {}
        self.bytes_per_second: float | None = None
        self._scripts: dict[str, Iterator[Behaviour]] = {}
        self._http = QuietServer(("127.0.0.1", 0), Handler)
        self._http.owner = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def script(self, path: str, behaviours: Iterable[Behaviour]) -> None:
        self._scripts[path] = iter(behaviours)

    def always(self, path: str, behaviour: Behaviour) -> None:
        self._scripts[path] = repeat(behaviour)

    def behave(self) -> None:
        self._scripts.clear()

    def next(self, path: str) -> Behaviour:
        return next(self._scripts.get(path, iter(())), good)

    def missing(self, path: str) -> Behaviour:
        """Returns how a path is answered that there is nothing at."""
        return status(404, body=b"<html>nothing here</html>")

    def count(self, path: str) -> int:
        return sum(asked == path for asked, _ in self.asked)

    def more_than(self, requests: int) -> bool:
        return len(self.asked) > requests

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.shutdown()
        self._http.server_close()


class QuietServer(ThreadingHTTPServer):
    """Takes clients that hang up for granted."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass


class Handler(BaseHTTPRequestHandler):
    """Answers one request as its file's script says."""

    protocol_version = "HTTP/1.1"

    @property
    def owner(self) -> Server:
        owner: Server = self.server.owner  # type: ignore[attr-defined]
        return owner

    @property
    def start(self) -> int:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(match[1]) if match else 0

    def do_GET(self) -> None:
        path = self.path.lstrip("/")
        self.owner.asked.append((path, self.headers.get("Range")))
        if token := self.headers.get("Authorization"):
            self.owner.authorized.append((path, token))
        if path not in self.owner.files:
            self.owner.missing(path)(self, b"")
            return
        try:
            self.owner.next(path)(self, self.owner.files[path])
        except OSError:
            self.close_connection = True

    def do_HEAD(self) -> None:
        self.do_GET()

    def begin(self, code: int, length: int | None, **headers: str) -> None:
        self.send_response(code)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in {**self.owner.headers, **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def send(self, body: bytes) -> None:
        speed = self.owner.bytes_per_second
        if self.command == "HEAD":
            return
        if speed is None:
            self.wfile.write(body)
            return
        for at in range(0, len(body), 1 << 14):
            self.wfile.write(body[at : at + (1 << 14)])
            time.sleep((1 << 14) / speed)

    def log_message(self, format: str, *args: object) -> None:
        pass


def etag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'


def head(handler: Handler, content: bytes) -> bytes:
    """Sends the head of a good answer; returns the body that belongs to it."""
    start, tag = handler.start, etag(content)
    if start >= len(content) > 0:
        handler.begin(416, 0, Content_Range=f"bytes */{len(content)}")
        return b""
    if start and handler.headers.get("If-Range", tag) == tag:
        told = f"bytes {start}-{len(content) - 1}/{len(content)}"
        handler.begin(206, len(content) - start, ETag=tag, Content_Range=told)
        return content[start:]
    handler.begin(200, len(content), ETag=tag)
    return content


def good(handler: Handler, content: bytes) -> None:
    """Answers in full, or with the range that was asked for."""
    handler.send(head(handler, content))


def cut(after: int, *, reset: bool = False) -> Behaviour:
    """Closes the connection after so many bytes of the body."""

    def behave(handler: Handler, content: bytes) -> None:
        handler.wfile.write(head(handler, content)[:after])
        handler.close_connection = True
        if reset:
            # A socket that is closed without lingering sends a reset.
            linger = struct.pack("ii", 1, 0)
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    return behave


def no_length(handler: Handler, content: bytes) -> None:
    """Sends the whole without saying how long it is; only the connection's end ends it."""
    handler.begin(200, None, Connection="close")
    handler.wfile.write(content)
    handler.close_connection = True


def no_length_cut(after: int) -> Behaviour:
    """Sends a beginning without saying how long the whole is."""
    return lambda handler, content: no_length(handler, content[:after])


def chunked(handler: Handler, content: bytes) -> None:
    """Sends the whole in chunks, without a length."""
    handler.begin(200, None, Transfer_Encoding="chunked")
    for at in range(0, len(content), 10_000):
        piece = content[at : at + 10_000]
        handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
    handler.wfile.write(b"0\r\n\r\n")


def chunked_short(handler: Handler, content: bytes) -> None:
    """Sends half of the content in chunks, as if that were all."""
    chunked(handler, content[: len(content) // 2])


def no_ranges(cut_first: int) -> list[Behaviour]:
    """Cuts the first answer; the second is a 200 with the whole, whatever range was asked for."""

    def whole(handler: Handler, content: bytes) -> None:
        handler.begin(200, len(content))
        handler.wfile.write(content)

    return [cut(cut_first), whole]


def wrong_range(handler: Handler, content: bytes) -> None:
    """Answers a range with another one."""
    if not handler.start:
        good(handler, content)
        return
    body = content[handler.start - 1 :]
    told = f"bytes {handler.start - 1}-{len(content) - 1}/{len(content)}"
    handler.begin(206, len(body), Content_Range=told)
    handler.wfile.write(body)


def status(code: int, body: bytes = b"", **headers: str) -> Behaviour:
    """Answers with a status and a body of its own."""

    def behave(handler: Handler, content: bytes) -> None:
        handler.begin(code, len(body), **headers)
        if handler.command != "HEAD":
            handler.wfile.write(body)

    return behave


def drip(handler: Handler, content: bytes) -> None:
    """Sends the whole, slowly."""
    body = head(handler, content)
    for at in range(0, len(body), 20):
        handler.wfile.write(body[at : at + 20])
        time.sleep(0.05)


def hang(handler: Handler, content: bytes) -> None:
    """Sends a beginning and then nothing, and keeps the connection open."""
    handler.wfile.write(head(handler, content)[:10])
    time.sleep(3)
    handler.close_connection = True


def wrong_bytes(handler: Handler, content: bytes) -> None:
    """Sends other bytes, as many as there should be."""
    good(handler, bytes(byte ^ 1 for byte in content))


def wrong_size(handler: Handler, content: bytes) -> None:
    """Sends a file that is shorter, and says so."""
    good(handler, content[:-1])


def too_long(handler: Handler, content: bytes) -> None:
    """Sends more than there should be, without saying how much."""
    no_length(handler, content + b"more")


def redirect(url: str) -> Behaviour:
    """Sends the client elsewhere."""
    return status(302, Location=url)


def close(handler: Handler, content: bytes) -> None:
    """Closes the connection without an answer."""
    handler.close_connection = True
