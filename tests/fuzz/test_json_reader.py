from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2cli import json_reader
from gpt2cli.errors import BadDataError
from tests.fuzz.bounds import cases, refusals

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.fuzz
@cases(500)
@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_whatever_the_bytes_only_our_own_errors_come_out(content: bytes) -> None:
    with refusals():
        json_reader.parse(content, "it")


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "1" * 5_000])
def test_what_is_too_deep_or_too_long_a_number_is_refused(content: str) -> None:
    with pytest.raises(BadDataError, match="JSON"):
        json_reader.parse(content, "it", list)


def test_what_nests_as_deep_as_is_read_is_read_and_no_deeper() -> None:
    deepest = json_reader.MOST_DEPTH
    assert json_reader.depth(json_reader.parse("[" * deepest + "1" + "]" * deepest, "it", list))
    with pytest.raises(BadDataError, match="too deep"):
        json_reader.parse("[" * (deepest + 1) + "1" + "]" * (deepest + 1), "it", list)


@pytest.mark.parametrize("content", ["NaN", "[1, Infinity]", '{"a": -Infinity}'])
def test_numbers_that_json_has_not_are_refused(content: str) -> None:
    with pytest.raises(BadDataError, match="not a JSON number"):
        json_reader.parse(content, "it", object)


def test_a_byte_order_mark_is_passed_over() -> None:
    assert json_reader.parse(b'\xef\xbb\xbf{"a": 1}', "it") == {"a": 1}


def test_a_value_of_another_kind_is_refused_by_name() -> None:
    with pytest.raises(BadDataError, match="holds a JSON array, not object"):
        json_reader.parse("[1]", "it")


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadDataError, match="not a regular file"):
        json_reader.read(tmp_path / "pipe")


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BadDataError, match="bytes; at most"):
        json_reader.read(path)
