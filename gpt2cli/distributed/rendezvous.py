"""The rendezvous of workers before TensorFlow starts: they compare what they train, and wait."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gpt2cli.distributed import wire
from gpt2cli.distributed.cluster import Cluster, host_and_port
from gpt2cli.errors import MOST_CHARACTERS, BadDataError, TryLaterError, shortened
from gpt2cli.runtime.signals import Interrupted

MOST_SEED = 2**32 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rendezvous:
    """What connects workers that have met, until TensorFlow does; all take the chief's `seed`."""

    cluster: Cluster
    seed: int
    # By the rank of who is at the other end.
    connections: Mapping[int, socket.socket]

    def close(self) -> None:
        """Hangs up."""
        for connection in self.connections.values():
            connection.close()

    def wait(self, devices: str, minutes: float, stopped: Callable[[], int | None]) -> None:
        """Waits until all have TensorFlow loaded and the same devices; then hangs up.

        Raises BadDataError if a worker has other devices, TryLaterError if one is gone or late, and
        Interrupted if `stopped` returns a signal.
        """
        # The chief ends all in its time, and says who is missing.
        patience = 0.0 if self.cluster.is_chief else wire.ANSWER_SECONDS
        deadline = time.monotonic() + minutes * 60 + patience
        with contextlib.closing(self):
            if not self.cluster.is_chief:
                wire.sent(self.connections[0], {"devices": devices})
                self._heard("go", deadline, stopped)
                return
            told = self._heard("devices", deadline, stopped)
            for rank in sorted(told):
                theirs = {"devices": told[rank]}
                if wrong := difference(self.cluster, rank, {"devices": devices}, theirs):
                    tell(self.connections, {"error": wrong})
                    raise BadDataError(wrong)
            tell(self.connections, {"go": True})

    def _heard(
        self, word: str, deadline: float, stopped: Callable[[], int | None]
    ) -> dict[int, Any]:
        """Returns what each at the other ends says of a word."""
        told: dict[int, Any] = {}
        while len(told) < len(self.connections):
            if (signum := stopped()) is not None:
                raise Interrupted(signum, "stopped; no step was done yet.")
            if time.monotonic() > deadline:
                missing = [rank for rank in self.connections if rank not in told]
                raise late(self.cluster, missing, "get ready")
            for rank in wire.speaking(self.connections, wire.RETRY_SECONDS):
                message = wire.received(self.connections[rank], wire.ANSWER_SECONDS) or {}
                check(message)
                if rank in told or word not in message:
                    raise gone(self.cluster, rank)
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
    wire.listening(cluster).close()
    while time.monotonic() < deadline:
        with contextlib.ExitStack() as stack:
            connection = connect(cluster, mine)
            if connection is not None:
                stack.enter_context(connection)
                # The first one ends all in its own time, and says who is missing.
                answer = wire.received(connection, minutes * 60 + wire.ANSWER_SECONDS)
                if answer is None:
                    raise gone(cluster, 0)
                check(answer)
                told = answer.get("seed")
                if type(told) is int and 0 <= told <= MOST_SEED:
                    stack.pop_all()
                    return Rendezvous(cluster=cluster, seed=told, connections={0: connection})
        time.sleep(wire.RETRY_SECONDS)
    raise TryLaterError(f"{cluster.name(0)} has not come in {minutes:g} minutes. Try again later.")


def connect(cluster: Cluster, mine: Mapping[str, str]) -> socket.socket | None:
    """Returns the connection to the chief, who has greeted; None: it is not there (yet)."""
    try:
        address = host_and_port(cluster.addresses[0])
        connection = socket.create_connection(address, timeout=wire.ANSWER_SECONDS)
    except OSError:
        return None
    wire.sent(connection, {"rank": cluster.rank, "facts": dict(mine)})
    if "welcome" in (wire.received(connection, wire.ANSWER_SECONDS) or {}):
        return connection
    # Somebody else, or one who is just leaving.
    connection.close()
    return None


def gather(cluster: Cluster, mine: Mapping[str, str], seed: int, deadline: float) -> Rendezvous:
    """Waits for the others and tells them the seed, or what is wrong; as `join`."""
    here: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as stack:
        try:
            with contextlib.closing(wire.Callers(wire.listening(cluster))) as callers:
                while len(here) < cluster.size - 1:
                    if time.monotonic() > deadline:
                        missing = [rank for rank in range(1, cluster.size) if rank not in here]
                        raise late(cluster, missing, "come")
                    if left := wire.speaking(here, 0):
                        raise gone(cluster, left[0])
                    connection, hello = callers.next(here.values())
                    rank, facts = greeting(hello, cluster, here)
                    if connection is None or facts is None:
                        continue
                    here[rank] = stack.enter_context(callers.taken(connection))
                    wire.sent(connection, {"welcome": True})
                    if wrong := difference(cluster, rank, mine, facts):
                        raise BadDataError(wrong)
        except (BadDataError, TryLaterError) as error:
            kind = "error" if isinstance(error, BadDataError) else "later"
            tell(here, {kind: str(error)})
            raise
        tell(here, {"seed": seed})
        stack.pop_all()
    return Rendezvous(cluster=cluster, seed=seed, connections=here)


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


def late(cluster: Cluster, ranks: Iterable[int], what: str) -> TryLaterError:
    """Returns the error that some workers have not done something in time."""
    names = shortened(", ".join(map(cluster.name, ranks)), 300)
    return TryLaterError(f"{names} did not {what} in time (--wait-minutes). Try again later.")


def check(answer: Mapping[str, Any]) -> None:
    """Raises what the chief says is wrong."""
    if "error" in answer:
        raise BadDataError(shortened(answer["error"], MOST_CHARACTERS))
    if "later" in answer:
        raise TryLaterError(shortened(answer["later"], MOST_CHARACTERS))


def gone(cluster: Cluster, rank: int) -> TryLaterError:
    """Returns the error that a worker went away."""
    return TryLaterError(f"{cluster.name(rank)} went away before training began. Try again later.")


def tell(connections: Mapping[int, socket.socket], message: Mapping[str, Any]) -> None:
    """Sends all of them a line of JSON."""
    for connection in connections.values():
        wire.sent(connection, message)


def difference(
    cluster: Cluster, rank: int, ours: Mapping[str, str], theirs: Mapping[str, str]
) -> str:
    """Returns in what a worker differs from the first one; empty if it does not."""
    told = [
        f"{name} is {shortened(repr(theirs.get(name)), 60)}, not {shortened(repr(our), 60)}"
        for name, our in ours.items()
        if theirs.get(name) != our
    ]
    if not told:
        return ""
    return (
        f"{cluster.name(rank)} differs from {cluster.name(0)}: {shortened('; '.join(told), 250)}."
        " All need the same options, text, model, run folder and devices."
    )
