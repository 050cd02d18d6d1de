"""The rendezvous of workers before TensorFlow starts: they compare what they train, and wait."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from gpt2cli.distributed.cluster import Cluster, host_and_port
from gpt2cli.distributed.wire import (
    ANSWER_SECONDS,
    RETRY_SECONDS,
    Callers,
    listening,
    received,
    sent,
    speaking,
)
from gpt2cli.errors import MOST_CHARACTERS, BadDataError, TryLaterError, shortened
from gpt2cli.runtime.signals import Interrupted

MOST_SEED = 2**32 - 1


class Rendezvous:
    """What connects workers that have met, until TensorFlow does.

    Attributes:
        seed: the chief's, which all take.
    """

    def __init__(
        self, cluster: Cluster, seed: int, connections: Mapping[int, socket.socket]
    ) -> None:
        """Takes the workers, and the connections by the rank of who is at the other end."""
        self.seed = seed
        self._cluster = cluster
        self._connections = connections

    def close(self) -> None:
        """Hangs up."""
        for connection in self._connections.values():
            connection.close()

    def wait(self, devices: str, minutes: float, stopped: Callable[[], int | None]) -> None:
        """Waits until all have TensorFlow loaded and the same devices; then hangs up.

        Args:
            devices: what this worker computes on.
            minutes: how long it waits.
            stopped: says which signal asks the command to leave, if one does.

        Raises:
            BadDataError: a worker has other devices.
            TryLaterError: a worker is gone, or late.
            Interrupted: a signal asks the command to leave.
        """
        # The chief ends all in its time, and says who is missing.
        patience = 0.0 if self._cluster.is_chief else ANSWER_SECONDS
        deadline = time.monotonic() + minutes * 60 + patience
        with contextlib.closing(self):
            if not self._cluster.is_chief:
                sent(self._connections[0], {"devices": devices})
                self._heard("go", deadline, stopped)
                return
            told = self._heard("devices", deadline, stopped)
            for rank in sorted(told):
                mine = {"devices": devices}
                if wrong := difference(self._cluster, rank, mine, {"devices": told[rank]}):
                    tell(self._connections, {"error": wrong})
                    raise BadDataError(wrong)
            tell(self._connections, {"go": True})

    def _heard(
        self, word: str, deadline: float, stopped: Callable[[], int | None]
    ) -> dict[int, Any]:
        """Returns what each at the other ends says of a word."""
        told: dict[int, Any] = {}
        while len(told) < len(self._connections):
            if (signum := stopped()) is not None:
                raise Interrupted(signum, "stopped; no step was done yet.")
            late = [self._cluster.name(n) for n in self._connections if n not in told]
            if time.monotonic() > deadline:
                names = shortened(", ".join(late), 300)
                raise TryLaterError(
                    f"{names} did not get ready in time (--wait-minutes). Try again later."
                )
            for rank in speaking(self._connections, RETRY_SECONDS):
                message = received(self._connections[rank], ANSWER_SECONDS) or {}
                check(message)
                if rank in told or word not in message:
                    raise TryLaterError(gone(self._cluster, rank))
                told[rank] = message[word]
        return told


def join(cluster: Cluster, mine: Mapping[str, str], seed: int, minutes: float) -> Rendezvous:
    """Waits until all are here and agree on what they train; returns what connects them.

    They speak at the address of the chief, at which TensorFlow will listen afterwards.

    Raises:
        BadDataError: a worker has other options, or starts from or trains on something else.
        TryLaterError: somebody has not come in time, or has gone; or a port is in use.
        UsageError: this worker's address belongs to another machine.
    """
    deadline = time.monotonic() + minutes * 60
    if cluster.is_chief:
        return gather(cluster, mine, seed, deadline)
    # Only to see that TensorFlow will be able to.
    listening(cluster).close()
    while time.monotonic() < deadline:
        with contextlib.ExitStack() as stack:
            connection = connect(cluster, mine)
            if connection is not None:
                stack.enter_context(connection)
                # The first one ends all in its own time, and says who is missing.
                answer = received(connection, minutes * 60 + ANSWER_SECONDS)
                if answer is None:
                    raise TryLaterError(gone(cluster, 0))
                check(answer)
                told = answer.get("seed")
                if type(told) is int and 0 <= told <= MOST_SEED:
                    stack.pop_all()
                    return Rendezvous(cluster, told, {0: connection})
        time.sleep(RETRY_SECONDS)
    raise TryLaterError(f"{cluster.name(0)} has not come in {minutes:g} minutes. Try again later.")


def connect(cluster: Cluster, mine: Mapping[str, str]) -> socket.socket | None:
    """Returns the connection to the chief, who has greeted; None: it is not there (yet)."""
    try:
        address = host_and_port(cluster.addresses[0])
        connection = socket.create_connection(address, timeout=ANSWER_SECONDS)
    except OSError:
        return None
    sent(connection, {"rank": cluster.rank, "facts": dict(mine)})
    if "welcome" in (received(connection, ANSWER_SECONDS) or {}):
        return connection
    # Somebody else, or one who is just leaving.
    connection.close()
    return None


def gather(cluster: Cluster, mine: Mapping[str, str], seed: int, deadline: float) -> Rendezvous:
    """Waits for the others and tells them the seed, or what is wrong; as `join`."""
    here: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as stack:
        try:
            with listening(cluster) as server, contextlib.closing(Callers(server)) as callers:
                while len(here) < cluster.size - 1:
                    if time.monotonic() > deadline:
                        raise TryLaterError(absent(cluster, here))
                    if left := speaking(here, 0):
                        raise TryLaterError(gone(cluster, left[0]))
                    connection, hello = callers.next(here.values())
                    rank, facts = greeting(hello, cluster, here)
                    if connection is None or facts is None:
                        continue
                    here[rank] = stack.enter_context(callers.taken(connection))
                    sent(connection, {"welcome": True})
                    if wrong := difference(cluster, rank, mine, facts):
                        raise BadDataError(wrong)
        except (BadDataError, TryLaterError) as error:
            kind = "error" if isinstance(error, BadDataError) else "later"
            tell(here, {kind: str(error)})
            raise
        tell(here, {"seed": seed})
        stack.pop_all()
    return Rendezvous(cluster, seed, here)


def greeting(
    hello: Mapping[str, Any] | None, cluster: Cluster, here: Mapping[int, socket.socket]
) -> tuple[int, dict[str, str] | None]:
    """Returns the rank and facts that a worker greets with; no facts if it is none of ours."""
    rank, facts = (hello or {}).get("rank"), (hello or {}).get("facts")
    # Somebody who knocks at every port, or who comes twice.
    if type(rank) is not int or not 0 < rank < cluster.size or rank in here:
        return 0, None
    if not isinstance(facts, dict) or not all(isinstance(value, str) for value in facts.values()):
        return 0, None
    return rank, facts


def absent(cluster: Cluster, here: Mapping[int, socket.socket]) -> str:
    """Returns the message that some workers have not come."""
    missing = [cluster.name(n) for n in range(1, cluster.size) if n not in here]
    names = shortened(", ".join(missing), 300)
    return f"{names} did not come in time (--wait-minutes). Try again later."


def check(answer: Mapping[str, Any]) -> None:
    """Raises what the chief says is wrong."""
    if "error" in answer:
        raise BadDataError(shortened(answer["error"], MOST_CHARACTERS))
    if "later" in answer:
        raise TryLaterError(shortened(answer["later"], MOST_CHARACTERS))


def gone(cluster: Cluster, rank: int) -> str:
    """Returns the message that a worker went away."""
    return f"{cluster.name(rank)} went away before training began. Try again later."


def tell(connections: Mapping[int, socket.socket], message: Mapping[str, Any]) -> None:
    """Sends all of them a line of JSON."""
    for connection in connections.values():
        sent(connection, message)


def difference(
    cluster: Cluster, rank: int, ours: Mapping[str, str], theirs: Mapping[str, str]
) -> str:
    """Returns in what a worker differs from the first one; empty if it does not."""
    names = (name for name in ours if theirs.get(name) != ours[name])
    told = [
        f"{name} is {shortened(repr(theirs.get(name)), 60)}, not {shortened(repr(ours[name]), 60)}"
        for name in names
    ]
    if not told:
        return ""
    return (
        f"{cluster.name(rank)} differs from {cluster.name(0)}: {shortened('; '.join(told), 250)}."
        " All need the same options, text, model, run folder and devices."
    )
