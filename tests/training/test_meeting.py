"""Workers that meet: in threads here, as machines would."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gpt2cli.errors import BadDataError, TryLaterError
from gpt2cli.signals import Interrupted
from gpt2cli.training import meeting
from gpt2cli.training.cluster import Cluster, host_and_port
from gpt2cli.training.meeting import Line
from tests.distributed.workers import free_ports

FACTS = {"--batch-size": "4", "corpus": "abc"}


def met(member: Cluster, facts: dict[str, str], seed: int, minutes: float) -> int:
    """Returns the seed that came of a meeting, after which all hang up."""
    line = meeting.meet(member, facts, seed, minutes)
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

    found = crowd(stranger, *(lambda m=m: met(m, FACTS, 7 + m.number, 0.5) for m in members))
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
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            connection = socket.create_connection(host_and_port(member.addresses[0]))
            for message in messages:
                meeting.sent(connection, message)
            return connection


def test_a_worker_whose_port_is_in_use_says_so_at_once() -> None:
    _, second = loopback(2)
    with (
        socket.create_server(host_and_port(second.addresses[1])),
        pytest.raises(TryLaterError, match=r"worker 1 .* Is an earlier one still running"),
    ):
        meeting.meet(second, FACTS, 1, 10)


def test_a_leader_that_leaves_ends_those_who_were_here_at_once() -> None:
    first, second, _ = loopback(3)
    began = time.monotonic()

    def leader() -> None:
        with meeting.listening(first) as server, server.accept()[0] as connection:
            meeting.received(connection, 5)
            meeting.sent(connection, {"welcome": True})

    found = crowd(leader, lambda: met(second, FACTS, 1, 10))
    assert isinstance(found[1], TryLaterError)
    assert str(found[1]).startswith(f"worker 0 ({first.addresses[0]}) went away before")
    assert time.monotonic() - began < 10


def test_a_worker_that_leaves_ends_all_who_are_here_at_once() -> None:
    first, _, third = loopback(3)
    began = time.monotonic()

    def leaver() -> None:
        connection = knock(first, {"number": 2, "facts": FACTS})
        meeting.received(connection, 5)
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
def lines(count: int) -> Iterator[list[Line]]:
    members = loopback(count)
    found = crowd(*(lambda m=m: meeting.meet(m, FACTS, 7, 0.5) for m in members))
    try:
        yield found
    finally:
        for line in found:
            line.close()


def waiting(line: Line, devices: str = "the CPU", minutes: float = 0.5) -> Callable[[], Any]:
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
        assert meeting.received(other, 1) == {"a": 1}
        assert meeting.received(other, 1) == {}
        assert meeting.received(other, 1) == {}
        assert meeting.received(other, 0.01) == {}
        one.close()
        assert meeting.received(other, 1) is None
