"""The texts in JSON: a record a line or an array of them, whatever pieces it comes in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpt2cli.errors import BadDataError
from gpt2cli.text import records
from gpt2cli.text.sources import Source

SOURCE = Source(Path("poems.json"))


def texts(content: str, field: str | None = None, size: int = 1 << 20) -> list[str]:
    pieces = (content[at : at + size] for at in range(0, len(content), size))
    return list(records.texts(records.in_array(SOURCE, pieces), field))


@pytest.mark.parametrize("size", [1, 2, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_of_records_is_read_one_by_one(size: int, indent: int | None) -> None:
    values = [{"n": 12, "text": 'a "b" \\ ]'}, {"text": "\u2028é😀", "deep": [[{}]]}, {"text": ""}]
    content = f" \n{json.dumps(values, indent=indent)}\n "
    assert texts(content, size=size) == ['a "b" \\ ]', "\u2028é😀", ""]
    assert texts("[ ]", size=size) == []


@pytest.mark.parametrize("size", [1, 3, 1 << 20])
def test_records_one_after_another_are_read_too(size: int) -> None:
    assert texts('{"text": "a"}\n{"text": "b"} {"text":\n"c"}', size=size) == ["a", "b", "c"]
    assert texts('{"text": "only"}', size=size) == ["only"]
    assert texts("", size=size) == []


@pytest.mark.parametrize(
    ("content", "field", "expected"),
    [
        ('[{"paragraphs": ["a", "b"]}, {"paragraphs": ["c"]}]', None, ["a", "b", "c"]),
        ('["a", "b"]', None, ["a", "b"]),
        ('[{"a": {"b": "x"}}]', "a.b", ["x"]),
        ('[{"a.b": "x"}]', "a.b", ["x"]),
        ('[{"a": [{"b": "x"}, {"b": ["y", "z"]}]}]', "a.b", ["x", "y", "z"]),
        ('{"data": [{"text": "x"}]}', "data.text", ["x"]),
        # As pandas' to_json writes a table.
        ('{"id": {"0": 1, "1": 2}, "text": {"0": "x", "1": "y"}}', None, ["x", "y"]),
        ('[{"title": "t", "body": "x"}, {"title": "u", "body": "y"}]', None, ["x", "y"]),
        ('[{"text": []}]', None, []),
    ],
)
def test_the_field_may_be_nested_a_list_or_of_a_telling_name(
    content: str, field: str | None, expected: list[str]
) -> None:
    assert texts(content, field) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"text": "a"}, {"text": "b"', r"poems\.json, record 2: no JSON"),
        ('[{"text": "a"} {"text": "b"}]', "record 1: no JSON .neither a comma"),
        ('[{"text": "a"},]', "record 2: no JSON"),
        ('[{"text": "a"}] x', "something follows"),
        ("[", "record 1: no JSON"),
        ('[{"body": "a"}, {"text": "b"}]', "record 2 has no 'body', but text.*--text-field"),
        ('[{"id": 1}]', "record 1 has no 'text', but id"),
        ("[1]", "record 1 has no 'text', but no fields, as no object: 1"),
        ('[{"text": ["a", 1]}]', "record 1: 'text' is 1, and not text"),
        ('[{"text": "\\ud83d"}]', r"record 1: 'text' holds U\+D83D"),
        ("[" * 100_000, "nests too deep"),
        ('{"text": "a", "b": ' + "[" * 50 + "]" * 50 + "}", "record 1: no JSON.*nests too deep"),
        ("[" + "1" * 5000 + "]", "record 1: no JSON"),
    ],
)
@pytest.mark.parametrize("size", [5, 1 << 20])
def test_what_is_wrong_is_named(content: str, message: str, size: int) -> None:
    with pytest.raises(BadDataError, match=message):
        texts(content, size=size)


def test_a_fault_is_found_without_reading_on() -> None:
    def pieces() -> Any:
        yield '[{"text": "a"}, {"text" 1}' + " " * 100
        raise AssertionError

    with pytest.raises(BadDataError, match="record 2: no JSON"):
        list(records.texts(records.in_array(SOURCE, pieces()), None))


def test_a_record_without_an_end_is_refused_in_bounded_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(records, "MOST_RECORD", 1000)
    held = iter(range(10))

    def pieces() -> Any:
        yield '[{"text": "'
        for _ in held:
            yield "a" * 500

    with pytest.raises(BadDataError, match=r"record 1: a record of over 1,000 char.*\.jsonl"):
        list(records.texts(records.in_array(SOURCE, pieces()), None))
    assert next(held, 10) < 8
