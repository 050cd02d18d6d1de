"""What comes from outside: hosts' answers, pins, part files, workers, variables, command lines."""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from gpt2cli import cli, errors, spelling
from gpt2cli.application import COMMANDS
from gpt2cli.config.download import is_address
from gpt2cli.distributed import cluster, rendezvous, wire
from gpt2cli.distributed.cluster import Cluster
from gpt2cli.errors import Gpt2cliError, RefusedError, UsageError
from gpt2cli.fetching import manifest, responses
from gpt2cli.fetching.hub_api import parsed_answer
from gpt2cli.fetching.hub_record import HubRecord, read_hub_record
from gpt2cli.fetching.partial_file import PartialFile, read_origin
from gpt2cli.fetching.responses import TransientError, new_session
from gpt2cli.fetching.transfer import Connection, RetryPolicy, Transfer
from gpt2cli.files.hub_names import HubName, parse_hub_name
from tests import hub_server
from tests.fuzz.bounds import cases, refusals

pytestmark = pytest.mark.fuzz
ODD = st.sampled_from(
    ["../x", "/etc/x", "a\0b", "", ".", "..", "file:///x", "http://[::bad/", "x" * 999, "\x1b[31m"]
)
TEXT = st.text(max_size=40) | ODD
NUMBERS = st.integers() | st.just(10**30) | st.floats() | st.booleans()
VALUES = st.recursive(
    st.none() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
HEADER = st.text(st.characters(max_codepoint=255), max_size=60) | st.sampled_from(
    [
        *("Fri, 31 Dec 99999 23:59:59 GMT", "-5", "9" * 5000, "1e9", "inf", "nan", "²"),
        *("Fri, 31 Dec 2026 23:59:59 +9999", "Sat, 01 Jan 0000 00:00:00 GMT", "\x1b[31m" * 9),
    ]
)


def mutated(draw: st.DrawFn, value: Any) -> Any:
    """Returns a value with some of its parts replaced."""
    if draw(st.integers(0, 9)) == 0:
        return draw(VALUES)
    if isinstance(value, dict):
        return {
            (draw(TEXT) if draw(st.integers(0, 19)) == 0 else key): mutated(draw, inner)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [mutated(draw, inner) for inner in value]
    return value


PINS = {
    "hosts": [{"url": "http://h/{model}/{file}", "models": ["small"]}],
    "models": {
        "small": {
            "hparams": {"n_vocab": 9, "n_ctx": 4, "n_embd": 4, "n_head": 2, "n_layer": 1},
            "files": {"a.json": {"size": 3, "sha256": "0" * 64, "also": [], "sure": "A"}},
        }
    },
}
ORIGIN = {"url": "http://h/f", "validator": '"a"', "size": 3, "ranges": True}
TF_CONFIG = {
    "cluster": {"chief": ["a:1"], "worker": ["b:2", "[::1]:3"]},
    "task": {"type": "worker", "index": 0},
}


@cases(600)
@given(st.data())
def test_pins_name_only_what_is_safe_to_write_and_to_ask(data: st.DataObject) -> None:
    known = data.draw(st.composite(lambda draw: mutated(draw, PINS))())
    with pytest.MonkeyPatch.context() as patch, refusals():
        path = Path(os.environ["XDG_CACHE_HOME"]) / "pins.json"
        path.write_text(json.dumps(known), encoding="utf-8")
        patch.setenv(manifest.PINS_VARIABLE, str(path))
        manifest.is_known("small")
        model = manifest.find_model("small")
        for file in model.files:
            assert Path(file.name).name == file.name
            assert not {"/", "\0"} & set(file.name)
            for host in model.hosts:
                assert is_address(manifest.address(host, model.name, file.name))


@cases(400)
@given(st.data())
def test_what_lies_beside_a_part_is_taken_only_where_it_is_sound(data: st.DataObject) -> None:
    known = data.draw(st.composite(lambda draw: mutated(draw, ORIGIN))())
    path = Path(os.environ["XDG_CACHE_HOME"]) / "file.part.json"
    path.write_text(json.dumps(known), encoding="utf-8")
    origin = read_origin(path)
    if origin is not None:
        assert isinstance(origin.url, str)
        assert origin.size is None or origin.size >= 0


@cases(800)
@given(HEADER, st.sampled_from(["Retry-After", "Content-Length", "ETag", "Last-Modified"]))
def test_whatever_a_header_says_it_is_read_or_left(value: str, name: str) -> None:
    response = requests.Response()
    response.headers[name] = value
    response.reason = value
    response.status_code = 200
    wait = responses.retry_after(response)
    assert wait is None or 0 <= wait <= responses.LONGEST_ASKED_SECONDS
    size = responses.size(response)
    assert size is None or 0 <= size < 10**15
    assert (responses.validator(response) or "").isprintable()
    assert responses.status(response).isprintable()


@cases(300)
@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 302 F\r\nLocation: "]),
)
def test_whatever_bytes_a_host_answers_only_our_own_errors_come_out(
    content: bytes, start: bytes
) -> None:
    folder = Path(os.environ["XDG_CACHE_HOME"])
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)

        def answer() -> None:
            with server.accept()[0] as connection:
                connection.recv(1 << 16)
                connection.sendall(start + content)

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://me:secret@127.0.0.1:{server.getsockname()[1]}/file"
        part = PartialFile(folder / "fuzzed")
        policy = RetryPolicy(retries=0, wait_seconds=0, timeout_seconds=1)
        with new_session() as session:
            try:
                with refusals():
                    connection = Connection(session=session, policy=policy)
                    transfer = Transfer(
                        connection=connection,
                        partial=part,
                        url=url,
                        sizes=(10**6,),
                        pinned=True,
                    )
                    assert "secret" not in str([*transfer.events()])
            except TransientError as error:
                pytest.fail(str(error))
            finally:
                part.discard()
        thread.join()


@cases(800)
@given(st.data())
def test_whatever_tf_config_holds_it_is_a_cluster_or_a_refusal(data: st.DataObject) -> None:
    facts = data.draw(st.composite(lambda draw: mutated(draw, TF_CONFIG))())
    with refusals():
        try:
            found = cluster.parsed(json.dumps(facts))
        except UsageError:
            raise
        except Gpt2cliError as error:
            pytest.fail(f"not code 2: {error}")
        if found is not None:
            assert 0 <= found.rank < found.size


@cases(300)
@given(st.text(max_size=100))
def test_whatever_text_tf_config_is_it_is_no_traceback(text: str) -> None:
    with refusals():
        cluster.parsed(text)


@cases(500)
@given(st.data())
def test_whatever_workers_say_it_is_a_line_or_none(data: st.DataObject) -> None:
    hello = {"rank": 1, "facts": {"a": "b"}, "seed": 7, "welcome": True}
    message = data.draw(st.composite(lambda draw: mutated(draw, hello))() | st.binary())
    content = message if isinstance(message, bytes) else json.dumps(message).encode()
    one, other = socket.socketpair()
    with one, other:
        one.sendall(content + b"\n")
        told = wire.received(other, 5)
    members = Cluster(("a:1", "b:2"), 0)
    number, facts = rendezvous.greeting(told, members, {})
    if facts is not None:
        assert number == 1
        with refusals():
            if wrong := rendezvous.difference(members, number, {"a": "b"}, facts):
                raise errors.BadDataError(wrong)
    with refusals():
        rendezvous.check(told or {})


WORDS = st.sampled_from(
    [
        *("finetune", "generate", "--", "-", "-q", "--overwrite", "True", "False", "--dataset"),
        *(
            "--steps",
            "3",
            "--lr",
            "--mode",
            "--mode=generate",
            "--top_k=",
            "--stop",
            "-x",
            "--=",
            "=",
        ),
    ]
) | st.text(max_size=12)


@cases(700)
@given(st.lists(WORDS, max_size=6))
def test_whatever_the_command_line_it_is_read_or_refused(words: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "perform", lambda _name, _settings: 0)
        lines: list[str] = []
        patch.setattr(cli, "say", lambda line: lines.append(errors.message(line)))
        patch.setattr("builtins.print", lambda *_words, **_more: None)
        patch.setattr("sys.stdout.write", lambda _text: 0, raising=False)
        code = cli.run_command(spelling.with_mode(words))
    assert code in (0, 2)
    for line in lines:
        assert len(line) < 500
        assert all(char.isprintable() or char == "\n" for char in line)


@cases(300)
@given(st.dictionaries(st.text(max_size=20).map("GPT2CLI_".__add__), TEXT, max_size=4))
def test_whatever_variables_there_are_each_line_can_be_read(variables: dict[str, str]) -> None:
    for line in spelling.strange_variables(variables, COMMANDS):
        assert len(errors.message(line)) < 500


@cases(500)
@given(st.text(), st.integers(3, 200))
def test_whatever_is_shown_is_short_and_printable(text: str, most: int) -> None:
    shown = errors.shortened(text, most)
    assert shown.isprintable()
    assert len(shown) <= most
    whole = errors.message(text * 100)
    assert len(whole) < 500
    assert all(char.isprintable() or char == "\n" for char in whole)


@cases(500)
@given(st.text(max_size=30) | ODD)
def test_an_address_is_one_that_can_be_asked_or_is_refused(text: str) -> None:
    url = f"http://{text}"
    if is_address(url):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("socket.getaddrinfo", refuse_to_look_up)
            with new_session() as session, refusals():
                try:
                    with responses.network_faults(url):
                        session.get(url, timeout=1)
                except (TransientError, RefusedError):
                    pass


def refuse_to_look_up(*_: object, **__: object) -> Any:
    raise socket.gaierror("no network here")


HUB = HubName(owner="o", name="n")
HUB_FILES = {
    "config.json": b"{}", "tokenizer.json": b"{}", "model-00001-of-00001.safetensors": b"w",
    "model.safetensors.index.json": b"{}", "../x": b"x",
}  # fmt: skip
HUB_ANSWER = {
    "id": "o/n", "sha": "a" * 40, "gated": False, "siblings": hub_server.siblings(HUB_FILES),
}  # fmt: skip
HUB_RECORD = {
    "name": "o/n", "revision": "main", "commit": "a" * 40,
    "files": {
        "tokenizer.json": {"size": 2, "git_sha1": "b" * 40},
        "model.safetensors": {"size": 2, "sha256": "c" * 64},
        "config.json": {"size": 2, "git_sha1": "b" * 40},
    },
}  # fmt: skip


def check_record(record: HubRecord) -> None:
    """Checks that a record names only what is safe to write and to ask."""
    assert record.files[-1].name == "config.json"
    for file in record.files:
        assert Path(file.name).name == file.name
        assert 0 < file.sizes[0] <= 1 << 40
        file.new_hash()
    for host in record.model().hosts:
        assert is_address(manifest.address(host, "o/n", record.files[0].name))


@cases(800)
@given(st.data())
def test_whatever_the_hub_says_of_a_model_it_is_a_record_or_a_refusal(data: st.DataObject) -> None:
    facts = data.draw(st.composite(lambda draw: mutated(draw, HUB_ANSWER))())
    with refusals():
        try:
            check_record(parsed_answer(HUB, facts))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            assert errors.shortened(error).isprintable()


@cases(600)
@given(st.data())
def test_whatever_hub_json_holds_it_is_a_record_or_a_refusal(data: st.DataObject) -> None:
    facts = data.draw(st.composite(lambda draw: mutated(draw, HUB_RECORD))())
    folder = Path(os.environ["XDG_CACHE_HOME"])
    (folder / "hub.json").write_text(json.dumps(facts), encoding="utf-8")
    with refusals():
        record = read_hub_record(folder, HUB)
        assert record is not None
        check_record(record)


@cases(800)
@given(st.text("ab-_./@:\\\0 é", max_size=30) | TEXT)
def test_whatever_a_name_is_its_folder_is_one_in_the_folder_of_models(name: str) -> None:
    hub = parse_hub_name(name)
    if hub is not None:
        folder = hub.folder("models")
        assert folder.parent == Path("models") and len(folder.name) < 110
        assert str(parse_hub_name(folder.name)) == str(hub)
        assert is_address(f"http://h/{hub}/resolve/{hub.wanted}/f")
