"""Workers that meet: in threads here, as machines would."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gpt2cli.distributed import rendezvous, wire
from gpt2cli.distributed.cluster import Cluster, host_and_port
from gpt2cli.distributed.rendezvous import Rendezvous
from gpt2cli.errors import BadDataError, TryLaterError, UsageError
from gpt2cli.runtime.signals import Interrupted
from tests.distributed.workers import free_ports
from tests.marks import few

FACTS = {"--batch-size": "4", "corpus": "abc"}


def met(member: Cluster, facts: dict[str, str], seed: int, minutes: float) -> int:
    """Returns the seed that came of a meeting, after which all hang up."""
    line = rendezvous.join(member, facts, seed, minutes)
    line.close()
    return line.seed


def crowd(*meetings: Callable[[], Any]) -> list[Any]:
    """Returns what each meeting returned or raised; all are held at once."""
    with ThreadPoolExecutor(len(meetings)) as pool:
        futures = [pool.submit(meeting) for meeting in meetings]
        return [future.exception() or future.result() for future in futures]


def loopback(count: int) -> list[Cluster]:
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(count))
    return [Cluster(addresses, number) for number in range(count)]


def test_all_take_the_seed_of_the_first_one_whoever_else_knocks() -> None:
    members = loopback(3)

    def stranger() -> int:
        while True:
            try:
                with socket.create_connection(host_and_port(members[0].addresses[0])) as s:
                    s.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    return 0
            except ConnectionRefusedError:
                continue

    found = crowd(stranger, *(lambda m=m: met(m, FACTS, 7 + m.rank, 0.5) for m in members))
    assert found == [0, 7, 7, 7]


def test_a_difference_ends_all_of_them() -> None:
    members = loopback(2)
    other = FACTS | {"corpus": "xyz"}
    found = crowd(
        lambda: met(members[0], FACTS, 1, 0.5),
        lambda: met(members[1], other, 1, 0.5),
    )
    for error in found:
        assert isinstance(error, BadDataError)
        assert "corpus is 'xyz', not 'abc'." in str(error)
        assert f"worker 1 ({members[0].addresses[1]}) differs from worker 0" in str(error)


def test_a_leader_that_never_comes_is_named() -> None:
    first, second = loopback(2)
    with pytest.raises(TryLaterError) as late:
        met(second, FACTS, 1, 0.03)
    assert str(late.value).startswith(f"worker 0 ({first.addresses[0]}) has not come in 0.03 min")


def test_an_address_in_use_is_said() -> None:
    first, _ = loopback(2)
    with (
        socket.create_server(host_and_port(first.addresses[0])),
        pytest.raises(TryLaterError, match="Is an earlier one still running"),
    ):
        met(first, FACTS, 1, 0.02)


def knock(member: Cluster, *messages: dict[str, Any]) -> socket.socket:
    """Returns a connection to the first worker, once it is there and has been told something."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with contextlib.suppress(ConnectionRefusedError):
            connection = socket.create_connection(host_and_port(member.addresses[0]))
            for message in messages:
                wire.sent(connection, message)
            return connection
    raise ConnectionRefusedError("nobody listens, or nobody does any more")


def test_a_worker_whose_port_is_in_use_says_so_at_once() -> None:
    _, second = loopback(2)
    with (
        socket.create_server(host_and_port(second.addresses[1])),
        pytest.raises(TryLaterError, match=r"worker 1 .* Is an earlier one still running"),
    ):
        rendezvous.join(second, FACTS, 1, 10)


def test_a_leader_that_leaves_ends_those_who_were_here_at_once() -> None:
    first, second, _ = loopback(3)
    began = time.monotonic()

    def leader() -> None:
        with wire.listening(first) as server, server.accept()[0] as connection:
            wire.received(connection, 5)
            wire.sent(connection, {"welcome": True})

    found = crowd(leader, lambda: met(second, FACTS, 1, 10))
    assert isinstance(found[1], TryLaterError)
    assert str(found[1]).startswith(f"worker 0 ({first.addresses[0]}) went away before")
    assert time.monotonic() - began < 10


def test_a_worker_that_leaves_ends_all_who_are_here_at_once() -> None:
    first, _, third = loopback(3)
    began = time.monotonic()

    def leaver() -> None:
        connection = knock(first, {"rank": 2, "facts": FACTS})
        wire.received(connection, 5)
        time.sleep(1)
        connection.close()

    found = crowd(
        lambda: met(first, FACTS, 1, 10),
        leaver,
    )
    assert str(found[0]).startswith(f"worker 2 ({third.addresses[2]}) went away before")
    assert time.monotonic() - began < 10


def test_those_who_are_here_are_told_at_once_who_is_missing() -> None:
    first, second, third = loopback(3)
    began = time.monotonic()
    found = crowd(lambda: met(first, FACTS, 1, 0.05), lambda: met(second, FACTS, 1, 10))
    assert all(isinstance(error, TryLaterError) for error in found)
    assert str(found[1]) == str(found[0])
    assert str(found[1]).startswith(f"worker 2 ({third.addresses[2]}) did not come in time")
    assert time.monotonic() - began < 20


@contextlib.contextmanager
def lines(count: int) -> Iterator[list[Rendezvous]]:
    members = loopback(count)
    found = crowd(*(lambda m=m: rendezvous.join(m, FACTS, 7, 0.5) for m in members))
    try:
        yield found
    finally:
        for line in found:
            line.close()


def waiting(line: Rendezvous, devices: str = "the CPU", minutes: float = 0.5) -> Callable[[], Any]:
    return lambda: line.wait(devices, minutes, lambda: None)


def test_all_wait_until_the_last_is_ready() -> None:
    with lines(3) as (first, second, third):
        began = time.monotonic()

        def late() -> None:
            time.sleep(2)
            waiting(third)()

        assert crowd(waiting(first), waiting(second), late) == [None, None, None]
        assert time.monotonic() - began > 1.9


def test_who_leaves_before_all_are_ready_ends_the_others() -> None:
    with lines(3) as (first, second, third):
        third.close()
        found = crowd(waiting(first), waiting(second))
    assert str(found[0]).startswith("worker 2 (")
    assert "went away before training began" in str(found[0])
    assert isinstance(found[1], TryLaterError)
    with lines(2) as (first, second):
        first.close()
        with pytest.raises(TryLaterError, match=r"worker 0 .* went away"):
            waiting(second)()


def test_who_does_not_get_ready_in_time_is_named() -> None:
    with (
        lines(2) as (first, _),
        pytest.raises(TryLaterError, match=r"worker 1 .* did not get ready in time"),
    ):
        waiting(first, minutes=0.01)()


def test_other_devices_end_all() -> None:
    with lines(2) as (first, second):
        found = crowd(waiting(first, "2 GPUs"), waiting(second, "the CPU"))
    for error in found:
        assert isinstance(error, BadDataError)
        assert "differs from worker 0" in str(error)
        assert "devices is 'the CPU', not '2 GPUs'" in str(error)


def test_a_signal_ends_the_wait() -> None:
    with lines(2) as (first, _), pytest.raises(Interrupted) as caught:
        first.wait("the CPU", 0.5, lambda: signal.SIGTERM)
    assert caught.value.signum == signal.SIGTERM
    assert "no step was done yet" in caught.value.message


def test_two_messages_at_once_are_read_one_by_one() -> None:
    one, other = socket.socketpair()
    with one, other:
        one.sendall(json.dumps({"a": 1}).encode() + b"\n[2]\nnot json\n")
        assert wire.received(other, 1) == {"a": 1}
        assert wire.received(other, 1) == {}
        assert wire.received(other, 1) == {}
        assert wire.received(other, 0.01) == {}
        one.close()
        assert wire.received(other, 1) is None


def test_a_worker_listens_at_the_address_that_is_named_alone() -> None:
    (first,) = loopback(1)
    host, port = host_and_port(first.addresses[0])
    with wire.listening(first) as server:
        assert server.getsockname() == (host, port)
        # Another address of the same machine is free, and nobody answers there.
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), timeout=5)
    with wire.listening(Cluster((f"localhost:{port}",), 0)) as server:
        assert server.getsockname()[0] in ("127.0.0.1", "::1")


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_that_is_another_machines_is_refused(host: str) -> None:
    with pytest.raises(UsageError, match="none of this machine's"):
        wire.listening(Cluster((f"{host}:4567", "127.0.0.1:1"), 0))


HOSTILE = [
    b"[" * 300_000,
    b'{"rank":1,"facts":null}\n',
    b'{"rank":true,"facts":{}}\n',
    b'{"rank":1e400,"facts":{}}\n',
    b'{"rank":"1","facts":{}}\n',
    b'{"rank":-1,"facts":{}}\n',
    b'{"rank":99999999999,"facts":{}}\n',
    b'{"rank":1,"facts":{"a":[1]}}\n',
    b'{"rank":' + b"9" * 5000 + b"}\n",
    b"\xff\xfe\n",
    b"\n",
    b"null\n",
]


def test_whatever_strangers_send_the_workers_meet() -> None:
    first, second = loopback(2)

    def strangers() -> None:
        for message in HOSTILE:
            with knock(first) as connection, contextlib.suppress(OSError):
                connection.sendall(message)

    def late() -> int:
        time.sleep(0.3)
        return met(second, FACTS, 8, 0.5)

    found = crowd(strangers, late, lambda: met(first, FACTS, 7, 0.5))
    assert found == [None, 7, 7]


@pytest.mark.slow
def test_neither_many_who_are_silent_nor_one_who_drips_keeps_the_workers_apart() -> None:
    first, second = loopback(2)
    over = threading.Event()

    def drip() -> None:
        with contextlib.suppress(OSError), knock(first) as connection:
            while not over.wait(0.1):
                connection.sendall(b"[")

    def silent() -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for _ in range(200):
                if not over.is_set():
                    stack.enter_context(knock(first))
            over.wait(20)

    def real() -> float:
        time.sleep(0.5)
        began = time.monotonic()
        try:
            met(second, FACTS, 8, 0.5)
        finally:
            over.set()
        return time.monotonic() - began

    def leader() -> int:
        return met(first, FACTS, 7, 0.5)

    found = crowd(leader, drip, silent, real)
    assert found[0] == 7
    assert found[3] < 10


def test_who_claims_the_place_of_one_who_is_here_is_hung_up_on() -> None:
    first, _, third = loopback(3)

    def twice() -> dict[str, Any] | None:
        hello = {"rank": 1, "facts": FACTS}
        with knock(first, hello) as one:
            assert wire.received(one, 5) == {"welcome": True}
            with knock(first, hello) as other:
                answer = wire.received(other, 5)
            met(third, FACTS, 1, 0.5)
            return answer

    assert crowd(twice, lambda: met(first, FACTS, 7, 0.5)) == [None, 7]


def test_a_line_that_comes_byte_by_byte_is_waited_for_no_longer_than_was_said() -> None:
    one, other = socket.socketpair()
    over = threading.Event()

    def drip() -> None:
        while not over.wait(0.2):
            one.sendall(b"[")

    with one, other:
        thread = threading.Thread(target=drip)
        thread.start()
        began = time.monotonic()
        assert wire.received(other, 1) == {}
        assert time.monotonic() - began < 3
        over.set()
        thread.join()


def test_a_message_that_is_never_read_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "ANSWER_SECONDS", 0.2)
    one, other = socket.socketpair()
    with one, other:
        began = time.monotonic()
        wire.sent(one, {"a": "x" * 10_000_000})
        assert time.monotonic() - began < 3


@pytest.mark.parametrize("seed", few(["7", -1, 2**32, None, True, 1.5], 1))
def test_a_seed_that_is_none_is_not_taken(seed: object) -> None:
    first, second = loopback(2)

    def leader() -> None:
        with wire.listening(first) as server, server.accept()[0] as connection:
            wire.received(connection, 5)
            wire.sent(connection, {"welcome": True})
            wire.sent(connection, {"seed": seed})

    found = crowd(leader, lambda: met(second, FACTS, 1, 0.02))
    assert isinstance(found[1], TryLaterError)


def test_what_a_peer_says_is_shown_short_and_printable() -> None:
    with pytest.raises(BadDataError) as shown:
        rendezvous.check({"error": "\x1b[31m" + "x" * 100_000})
    assert str(shown.value).isprintable()
    assert len(str(shown.value)) < 500
    first, _ = loopback(2)
    ours = {f"--{n}": "a" * 1000 for n in range(100)}
    told = rendezvous.difference(first, 1, ours, dict.fromkeys(ours, "\x1b" * 1000))
    assert told.isprintable()
    assert len(told) < 500


def test_a_wait_of_a_million_years_is_one() -> None:
    one, other = socket.socketpair()
    with one, other:
        one.sendall(b"{}\n")
        assert wire.received(other, 1e300) == {}
