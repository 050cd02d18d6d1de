"""Lines of JSON between workers, bounded in size and time: anybody may be at the other end."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import json
import select
import socket
import time
from collections.abc import Iterable, Mapping
from typing import Any

from gpt2cli import json_reader
from gpt2cli.distributed.cluster import Cluster, host_and_port
from gpt2cli.errors import BadDataError, TryLaterError, UsageError, shortened

RETRY_SECONDS = 0.5
ANSWER_SECONDS = 5.0
# Sockets take no longer times.
LONGEST_SECONDS = 1e6
# How long parts of lines are left to grow before they are looked at again.
PART_SECONDS = 0.05
# The longest line; all options of a run take a tenth of it.
MOST_BYTES = 1 << 16
# How many may be connected and have said nothing yet.
MOST_CALLERS = 64


class Callers:
    """Those who have connected and not yet said a whole line; anybody may be among them."""

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        # Until when each may say its line; the first has waited longest.
        self._waiting: dict[socket.socket, float] = {}

    def close(self) -> None:
        """Hangs up on all of them, and listens no more."""
        for connection in (*self._waiting, self._server):
            connection.close()

    def taken(self, connection: socket.socket) -> socket.socket:
        """Returns a connection, which is no longer among these."""
        del self._waiting[connection]
        return connection

    def next(
        self, others: Iterable[socket.socket]
    ) -> tuple[socket.socket, dict[str, Any]] | tuple[None, None]:
        """Returns one who has said a line, and the line; or nothing, after half a second at most.

        Who said a line before, and is still here, is hung up on. Others who speak end the wait.
        """
        ends = [self._server, *others, *self._waiting]
        ready = select.select(ends, [], [], RETRY_SECONDS)[0]
        if self._server in ready:
            with contextlib.suppress(OSError):
                self._waiting[self._server.accept()[0]] = time.monotonic() + ANSWER_SECONDS
            while len(self._waiting) > MOST_CALLERS:
                self._drop(next(iter(self._waiting)))
        for connection, until in [*self._waiting.items()]:
            if time.monotonic() > until:
                self._drop(connection)
            elif connection in ready and self._has_line(connection):
                self._waiting[connection] = 0
                return connection, received(connection, ANSWER_SECONDS) or {}
        if ready and self._server not in ready:
            # Parts of lines; they would end the next wait at once.
            time.sleep(PART_SECONDS)
        return None, None

    def _has_line(self, connection: socket.socket) -> bool:
        """Returns whether a whole line has come; hangs up if none will."""
        connection.setblocking(False)
        try:
            begun = connection.recv(MOST_BYTES, socket.MSG_PEEK)
        except OSError:
            begun = b""
        if not begun or (len(begun) == MOST_BYTES and b"\n" not in begun):
            self._drop(connection)
            return False
        return b"\n" in begun

    def _drop(self, connection: socket.socket) -> None:
        del self._waiting[connection]
        connection.close()


def listening(cluster: Cluster) -> socket.socket:
    """Returns a socket that listens at this worker's address, and at no other one.

    Raises TryLaterError if it is in use, UsageError if this machine does not have it.
    """
    name, fault = cluster.name(cluster.rank), OSError("it has no address")
    try:
        found = places(cluster)
    except socket.gaierror as error:
        found, fault = [], error
    for family, address in found:
        try:
            return socket.create_server(address, family=family, backlog=MOST_CALLERS)
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise TryLaterError(
                    f"{name} cannot listen: {error.strerror}. Is an earlier one still running? "
                    "Try again later."
                ) from error
            fault = error
    raise UsageError(
        f"{name} is to be this machine, and its address is none of this machine's "
        f"({shortened(fault)}). Name one that is."
    ) from fault


def places(cluster: Cluster) -> list[tuple[int, tuple[Any, ...]]]:
    """Returns where to listen, as family and address; the first that can be is enough."""
    host, port = host_and_port(cluster.addresses[cluster.rank])
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    hosts = {host_and_port(address)[0] for address in cluster.addresses}
    inner = all(ipaddress.ip_address(str(f[4][0]).partition("%")[0]).is_loopback for f in found)
    # Some systems know their own name only as 127.0.1.1, which no other machine reaches.
    if inner and len(hosts) > 1 and host == socket.gethostname():
        return [(socket.AF_INET, ("", port))]
    return [(family, address) for family, _, _, _, address in found]


def speaking(connections: Mapping[int, socket.socket], seconds: float) -> list[int]:
    """Returns which of them say something, or hang up, as soon as one does or the time is over."""
    ready = select.select(list(connections.values()), [], [], seconds)[0]
    return [rank for rank, connection in connections.items() if connection in ready]


def sent(connection: socket.socket, message: Mapping[str, Any]) -> None:
    """Sends a line of JSON to somebody who may be gone."""
    with contextlib.suppress(OSError):
        # The time of the whole, so that who does not read holds nobody up.
        connection.settimeout(ANSWER_SECONDS)
        connection.sendall(json.dumps(message).encode() + b"\n")


def received(connection: socket.socket, seconds: float) -> dict[str, Any] | None:
    """Returns the line of JSON that comes within some seconds; empty if none; None: it hung up."""
    deadline, line = time.monotonic() + seconds, bytearray()
    try:
        # One by one, so that nothing of the next line is taken.
        while not line.endswith(b"\n") and len(line) < MOST_BYTES:
            left = deadline - time.monotonic()
            connection.settimeout(min(max(left, 0.001), LONGEST_SECONDS))
            if not (byte := connection.recv(1)):
                return None
            line += byte
        return json_reader.parse(bytes(line), "what came")
    except ConnectionError:
        return None
    except (OSError, BadDataError):
        return {}
