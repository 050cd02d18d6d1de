"""One file over HTTP: what is asked for, and what is made of the answers."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from requests import Session

from gpt2cli.errors import RefusedError, TryLaterError, UsageError
from gpt2cli.fetching.partial_file import PartialFile
from gpt2cli.fetching.responses import new_session
from gpt2cli.fetching.transfer import (
    Connection,
    RetryPolicy,
    Transfer,
    retry_policy_from_environment,
)
from tests import misbehaving_server as host
from tests.misbehaving_server import Server

CONTENT = bytes(range(256)) * 1000
HASTE = RetryPolicy(wait_seconds=0, timeout_seconds=1)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server({"file": CONTENT}) as running:
        yield running


def transfer(
    session: Session,
    url: str,
    partial: PartialFile,
    *,
    sizes: tuple[int, ...] = (len(CONTENT),),
    pinned: bool = True,
    policy: RetryPolicy = HASTE,
) -> Transfer:
    connection = Connection(session=session, policy=policy)
    return Transfer(connection=connection, partial=partial, url=url, sizes=sizes, pinned=pinned)


def receive(
    server: Server,
    folder: Path,
    *,
    pinned: bool = True,
    sizes: tuple[int, ...] = (len(CONTENT),),
    policy: RetryPolicy = HASTE,
) -> list[str]:
    """Fetches the file into its part; returns the lines that were told."""
    part = PartialFile(folder / "file")
    with new_session() as session:
        url = f"{server.url}/file"
        begun = transfer(session, url, part, sizes=sizes, pinned=pinned, policy=policy)
        try:
            return [str(event) for event in begun.events()]
        finally:
            part.leave()


def part_of(folder: Path) -> bytes:
    path = folder / "file.part"
    return path.read_bytes() if path.exists() else b""


def stop_at(server: Server, folder: Path, size: int, *, pinned: bool = True) -> None:
    """Leaves a part of this size behind, as an earlier run would."""
    server.script("file", [host.cut(size), *[host.status(503)] * 6])
    with pytest.raises(TryLaterError):
        receive(server, folder, pinned=pinned, sizes=(len(CONTENT),) if pinned else ())
    assert len(part_of(folder)) == size
    server.behave()
    server.asked.clear()


@pytest.mark.parametrize("pinned", [True, False])
def test_a_later_run_asks_only_for_what_is_missing(
    server: Server, tmp_path: Path, pinned: bool
) -> None:
    stop_at(server, tmp_path, 100_000, pinned=pinned)
    receive(server, tmp_path, pinned=pinned)
    assert part_of(tmp_path) == CONTENT
    assert server.asked == [("file", "bytes=100000-")]


def test_a_file_that_changed_on_the_host_is_fetched_from_the_start(
    server: Server, tmp_path: Path
) -> None:
    stop_at(server, tmp_path, 100_000, pinned=False)
    server.files["file"] = CONTENT[::-1]
    lines = receive(server, tmp_path, pinned=False, sizes=())
    assert part_of(tmp_path) == CONTENT[::-1]
    assert any("it starts anew" in line for line in lines)


def test_an_unpinned_part_of_unknown_origin_is_not_continued(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "file.part").write_bytes(b"something else")
    receive(server, tmp_path, pinned=False, sizes=())
    assert server.asked == [("file", None)]
    assert part_of(tmp_path) == CONTENT


def test_a_pinned_part_of_unknown_origin_is_continued(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT[:5000])
    receive(server, tmp_path)
    assert server.asked == [("file", "bytes=5000-")]
    assert part_of(tmp_path) == CONTENT


def test_a_part_that_is_whole_needs_no_request(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT)
    receive(server, tmp_path)
    assert server.asked == []


def test_a_part_that_is_too_long_is_fetched_from_the_start(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT + b"more")
    receive(server, tmp_path)
    assert part_of(tmp_path) == CONTENT


def test_a_range_that_the_host_does_not_have_starts_the_file_anew(
    server: Server, tmp_path: Path
) -> None:
    stop_at(server, tmp_path, 100_000)
    server.script("file", [host.status(416)])
    receive(server, tmp_path)
    assert [asked for _, asked in server.asked] == ["bytes=100000-", None]
    assert part_of(tmp_path) == CONTENT


def test_a_page_in_place_of_the_rest_does_not_cost_what_has_come(
    server: Server, tmp_path: Path
) -> None:
    stop_at(server, tmp_path, 100_000)
    server.always("file", host.status(200, b"<html>" + b" " * (len(CONTENT) - 6)))
    with pytest.raises(RefusedError, match="a web page"):
        receive(server, tmp_path)
    assert part_of(tmp_path) == CONTENT[:100_000]


def test_a_host_that_always_cuts_is_left_only_when_it_makes_no_headway(
    server: Server, tmp_path: Path
) -> None:
    server.always("file", host.cut(len(CONTENT) // 50))
    receive(server, tmp_path)
    assert part_of(tmp_path) == CONTENT
    assert server.count("file") >= 50


def test_an_encoded_answer_is_refused(server: Server, tmp_path: Path) -> None:
    server.always("file", host.status(200, b"x" * len(CONTENT), Content_Encoding="gzip"))
    with pytest.raises(RefusedError, match="gzip-encoded"):
        receive(server, tmp_path)


def test_the_wait_that_a_host_asks_for_is_kept(server: Server, tmp_path: Path) -> None:
    server.script("file", [host.status(429, Retry_After="1")])
    began = time.monotonic()
    lines = receive(server, tmp_path)
    assert time.monotonic() - began >= 1
    assert any("trying again in 1 s" in line for line in lines)


def test_the_waits_between_tries_grow(server: Server, tmp_path: Path) -> None:
    server.always("file", host.status(500))
    policy = RetryPolicy(retries=4, wait_seconds=0.01, timeout_seconds=1)
    part = PartialFile(tmp_path / "file")
    told = []
    with new_session() as session, pytest.raises(TryLaterError, match="Tries: 5"):
        url = f"{server.url}/file"
        for event in transfer(session, url, part, sizes=(), policy=policy).events():
            told.append(str(event))
    part.leave()
    assert [line.rpartition("trying again")[2] for line in told] == [
        ".",
        " in 0.02 s.",
        " in 0.04 s.",
        " in 0.08 s.",
    ]


def test_a_connection_that_all_but_hangs_is_given_up(server: Server, tmp_path: Path) -> None:
    def crawl(handler: host.Handler, content: bytes) -> None:
        handler.begin(200, len(content))
        for _ in range(100):
            handler.wfile.write(b"x")
            time.sleep(0.2)

    server.always("file", crawl)
    with pytest.raises(TryLaterError, match="hangs"):
        receive(server, tmp_path, policy=RetryPolicy(retries=0, wait_seconds=0, timeout_seconds=1))


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("line", "drop"),
    [
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        (b"", b"x"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
        # The size of a part, at the begin of the body and later.
        (CHUNKED, b"0"),
        (CHUNKED + b"1\r\nx\r\n", b"0"),
    ],
)
def test_lines_that_drip_are_given_up(
    line: bytes, drop: bytes, server: Server, tmp_path: Path
) -> None:
    over = threading.Event()

    def drip(handler: host.Handler, content: bytes) -> None:
        handler.wfile.write(line)
        while not over.wait(0.1):
            handler.wfile.write(drop)

    server.always("file", drip)
    began = time.monotonic()
    with pytest.raises(TryLaterError, match="no answer in time"):
        receive(server, tmp_path, policy=RetryPolicy(retries=0, wait_seconds=0, timeout_seconds=1))
    took = time.monotonic() - began
    over.set()
    assert 1 <= took < 5


def test_the_hash_covers_what_an_earlier_run_brought(server: Server, tmp_path: Path) -> None:
    stop_at(server, tmp_path, 100_000)
    part = PartialFile(tmp_path / "file")
    with new_session() as session:
        url = f"{server.url}/file"
        for _ in transfer(session, url, part).events():
            pass
    part.leave()
    assert part.digest == hashlib.sha256(CONTENT).hexdigest()


def test_the_retry_policy_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPT2CLI_RETRY_SECONDS", "0.5")
    monkeypatch.setenv("GPT2CLI_TIMEOUT_SECONDS", "7")
    assert retry_policy_from_environment() == RetryPolicy(wait_seconds=0.5, timeout_seconds=7)
    for wrong in ("soon", "-1", "9" * 400, "nan", "\N{ARABIC-INDIC DIGIT TWO}"):
        monkeypatch.setenv("GPT2CLI_RETRY_SECONDS", wrong)
        with pytest.raises(UsageError, match="GPT2CLI_RETRY_SECONDS"):
            retry_policy_from_environment()
    monkeypatch.setenv("GPT2CLI_RETRY_SECONDS", "0")
    monkeypatch.setenv("GPT2CLI_TIMEOUT_SECONDS", "0")
    with pytest.raises(UsageError, match="GPT2CLI_TIMEOUT_SECONDS"):
        retry_policy_from_environment()


@pytest.mark.parametrize(
    "asked",
    ["Fri, 31 Dec 99999 23:59:59 GMT", "9" * 5000, "-5", "soon", "1e3", "", "\N{SUPERSCRIPT TWO}"],
)
def test_a_wait_that_is_none_is_left_out(asked: str, server: Server, tmp_path: Path) -> None:
    server.script("file", [host.status(503, Retry_After=asked)])
    try:
        receive(server, tmp_path)
    except TryLaterError as later:
        assert "1000000 s" in str(later)
    else:
        assert part_of(tmp_path) == CONTENT


@pytest.mark.parametrize("place", ["Content-Length", "Content-Range"])
def test_a_size_of_5000_digits_is_none(place: str, server: Server, tmp_path: Path) -> None:
    digits = "9" * 5000

    def boast(handler: host.Handler, content: bytes) -> None:
        told = digits if place == "Content-Length" else f"bytes {digits}-{digits}/{digits}"
        handler.begin(200 if place == "Content-Length" else 206, None, **{place: told})
        handler.wfile.write(content)
        handler.close_connection = True

    server.always("file", boast)
    with contextlib.suppress(RefusedError, TryLaterError):
        receive(server, tmp_path)


@pytest.mark.parametrize(
    "target",
    [
        *("http://[::bad/", "file:///etc/passwd", "ftp://host/file", "http://", "http://a:99999/"),
        *("data:,x", "http://a b/", "//[", "http://\xff/"),
    ],
)
def test_a_redirect_to_what_is_no_address_is_refused(
    target: str, server: Server, tmp_path: Path
) -> None:
    server.always("file", host.redirect(target))
    with pytest.raises((RefusedError, TryLaterError)) as refusal:
        receive(server, tmp_path, policy=RetryPolicy(retries=0, wait_seconds=0, timeout_seconds=1))
    assert str(refusal.value).isprintable()
    if target.startswith(("file:", "http://[")):
        assert isinstance(refusal.value, RefusedError)


def test_what_comes_with_a_redirect_is_not_read(server: Server, tmp_path: Path) -> None:
    def endless(handler: host.Handler, content: bytes) -> None:
        handler.begin(302, None, Location="/other")
        while True:
            handler.wfile.write(bytes(1 << 16))

    server.files["other"] = CONTENT
    server.script("file", [endless])
    receive(server, tmp_path)
    assert part_of(tmp_path) == CONTENT


def test_what_a_host_says_is_shown_short_and_printable(server: Server, tmp_path: Path) -> None:
    def shout(handler: host.Handler, content: bytes) -> None:
        handler.wfile.write(b"HTTP/1.1 403 \x1b[31m" + b"no " * 20_000 + b"\r\n")
        handler.wfile.write(b"Content-Type: \x1b[31m" + b"x" * 9_000 + b"\r\n\r\nbody")
        handler.close_connection = True

    server.always("file", shout)
    with pytest.raises(RefusedError) as refusal:
        receive(server, tmp_path)
    assert "403" in str(refusal.value)
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 500


def test_a_password_in_an_address_is_sent_and_never_shown_or_kept(
    server: Server, tmp_path: Path
) -> None:
    asked: list[str | None] = []

    def note(handler: host.Handler, content: bytes) -> None:
        asked.append(handler.headers.get("Authorization"))
        host.cut(1000)(handler, content)

    server.script("file", [note, host.status(503), host.status(404)])
    part = PartialFile(tmp_path / "file")
    url = f"{server.url}/file".replace("://", "://me:secret@")
    told = []
    with new_session() as session, pytest.raises(RefusedError) as refusal:
        for event in transfer(session, url, part).events():
            told.append(str(event))
    part.leave()
    assert asked == ["Basic bWU6c2VjcmV0"]
    assert part_of(tmp_path) == CONTENT[:1000]
    shown = f"{told} {refusal.value} {(tmp_path / 'file.part.json').read_text()}"
    assert "secret" not in shown
    assert "://…@127.0.0.1" in shown
    # And the part goes on where it was.
    server.asked.clear()
    part = PartialFile(tmp_path / "file")
    with new_session() as session:
        list(transfer(session, url, part).events())
    part.leave()
    assert server.asked == [("file", "bytes=1000-")]
