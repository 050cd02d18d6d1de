"""Files of every kind become documents; what is wrong in them is named by place."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from gpt2cli.chat_template import Conversation
from gpt2cli.config.shared import CorpusOptions
from gpt2cli.errors import BadDataError
from gpt2cli.text import documents, sources, token_files
from gpt2cli.text.sources import ReadingState, Source
from tests.marks import few

POEM = "床前明月光、疑是地上霜。\n舉頭望明月、低頭思故鄉。\n"


def texts(path: Path, **options: Any) -> list[str]:
    """Returns the text of each document of a file."""
    settings = CorpusOptions(dataset=(), **options)
    found = documents.content_of(Source(path), settings, 50257, ReadingState()).documents
    plain = [each for each in found if not isinstance(each, Conversation)]
    return ["".join(piece for piece in each if isinstance(piece, str)) for each in plain]


@pytest.mark.parametrize("size", [4, 1 << 20])
def test_bytes_that_are_not_utf8_are_named_with_their_offset(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "READ_BYTES", size)
    path = tmp_path / "latin.txt"
    path.write_bytes("naïve ".encode() + "café".encode("latin-1") + b" au lait")
    with pytest.raises(BadDataError, match=r"latin\.txt: byte 10 \(0xe9\).*--encoding"):
        texts(path)


def test_a_file_that_ends_inside_a_character_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.txt"
    path.write_bytes("naïve".encode()[:3])
    with pytest.raises(BadDataError, match="byte 2"):
        texts(path)


def test_a_byte_order_mark_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "windows.txt"
    path.write_bytes(b"\xef\xbb\xbfhello\r\n")
    assert texts(path) == ["hello\n"]


@pytest.mark.parametrize("size", [1, 3, 1 << 20])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "gb18030", "big5"])
def test_text_is_read_in_the_encoding_that_is_said(
    encoding: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "READ_BYTES", size)
    (tmp_path / "a.txt").write_bytes(POEM.encode(encoding))
    assert texts(tmp_path / "a.txt", encoding=encoding) == [POEM]


def test_text_that_is_not_in_the_encoding_that_is_said_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("親譲りの無鉄砲".encode("shift-jis"))
    assert texts(tmp_path / "a.txt", encoding="shift-jis") == ["親譲りの無鉄砲"]
    with pytest.raises(BadDataError, match=r"byte 0 \(0x90\) is not UTF-8 text"):
        texts(tmp_path / "a.txt")


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_every_row_of_a_csv_is_a_document(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "READ_BYTES", size)
    content = 'text,label\r\n"two\nlines, and ""quotes""",1\r\n\r\nnext\u2028one,2\r\n,3\r\n'
    (tmp_path / "a.csv").write_bytes(content.encode())
    assert texts(tmp_path / "a.csv") == ['two\nlines, and "quotes"', "next\u2028one", ""]
    assert texts(tmp_path / "a.csv", csv_column="label") == ["1", "2", "3"]
    assert texts(tmp_path / "a.csv", csv_header=False)[0] == "text"


def test_a_field_of_a_csv_may_be_huge(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,text\n1,"' + "word\n" * 500_000 + '"\n')
    (text,) = texts(tmp_path / "a.csv", csv_column="text")
    assert text == "word\n" * 500_000


def test_a_zipped_csv_is_a_csv(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress("text\nसभी मनुष्यों को\n".encode()))
    assert texts(tmp_path / "a.csv.gz") == ["सभी मनुष्यों को"]


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_every_line_of_jsonl_is_a_document(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "READ_BYTES", size)
    records = [{"text": "two\nlines", "body": "x"}, {"text": "next\u2028يولد", "body": "y"}]
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    (tmp_path / "a.jsonl").write_text("\n\n".join(lines) + "\r\n", encoding="utf-8", newline="")
    assert texts(tmp_path / "a.jsonl") == ["two\nlines", "next\u2028يولد"]
    assert texts(tmp_path / "a.jsonl", text_field="body") == ["x", "y"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "cut', r"a\.jsonl, line 3: no JSON"),
        ('{"body": "x", "id": 1}', r"a\.jsonl, line 3 has no 'text', but body, id.*--text-field"),
        ('["x"]', r"line 3 has no 'text'"),
        ('{"text": null}', r"line 3: 'text' is null, and not text"),
        ('{"text": "\\ud83d"}', r"line 3: 'text' holds U\+D83D, half a character"),
        ("[" * 100_000, "line 3: no JSON"),
    ],
)
def test_a_broken_line_of_jsonl_is_named(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"text": "fine"}}\n\n{line}\n{{"text": "fine"}}\n')
    with pytest.raises(BadDataError, match=message):
        texts(tmp_path / "a.jsonl")


def test_only_options_that_matter_to_the_files_make_a_difference() -> None:
    def facts(name: str, **options: Any) -> Any:
        settings = CorpusOptions(dataset=(), **options)
        return token_files.relevant_options([Source(Path(name))], settings)

    assert facts("a.txt", csv_column="x", text_field="y") == facts("a.txt")
    assert facts("a.txt", encoding="UTF8") == facts("a.txt")
    assert facts("a.txt", encoding="latin-1") != facts("a.txt")
    assert facts("a.csv", csv_column="x") != facts("a.csv")
    assert facts("a.csv", csv_header=True) != facts("a.csv")
    assert facts("a.jsonl", text_field="y") != facts("a.jsonl")
    assert facts("a.tsv", csv_delimiter=";") != facts("a.tsv")
    for name in ("a.txt", "a.csv", "a.json"):
        assert facts(name, keep_line_ends=True) != facts(name)
    assert facts("a.npz", keep_line_ends=True) == facts("a.npz")
    assert facts("a.npz", encoding="latin-1", csv_column="x") == facts("a.npz")


def converted(path: Path, **options: Any) -> tuple[list[str], bool]:
    """Returns the documents of a file, and whether line ends were converted."""
    state = ReadingState()
    settings = CorpusOptions(dataset=(), **options)
    found = documents.content_of(Source(path), settings, 50257, state).documents
    plain = [each for each in found if not isinstance(each, Conversation)]
    return ["".join(map(str, each)) for each in plain], bool(state.converted)


@pytest.mark.parametrize("size", [1, 3, 1 << 20])
@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", "a\r\nb\rc\n\r\n", ["a\nb\nc\n\n"]),
        ("a.csv", 'text,n\r\n"a\r\nb\rc",1\r\n', ["a\nb\nc"]),
        ("a.jsonl", '{"text": "a\\r\\nb\\rc"}\n', ["a\nb\nc"]),
        ("a.json", '[{"text": "a\\r\\nb\\rc"}]', ["a\nb\nc"]),
    ],
)
def test_line_ends_become_one_in_files_of_every_kind(
    name: str,
    content: str,
    expected: list[str],
    size: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sources, "READ_BYTES", size)
    (tmp_path / name).write_bytes(content.encode())
    assert converted(tmp_path / name) == (expected, True)
    (kept,), told = converted(tmp_path / name, keep_line_ends=True)
    assert kept.startswith("a\r\nb\rc")
    assert not told
    (tmp_path / name).write_bytes(content.encode().replace(b"\r", b"").replace(b"\\r", b""))
    assert converted(tmp_path / name)[1] is False


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_utf_16_is_read_without_its_mark(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Verse 1: the cat\n".encode(encoding))
    assert texts(tmp_path / "a.txt", encoding=encoding[:6]) == ["Verse 1: the cat\n"]


def test_windows_quotes_are_answered_by_windows_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("I don’t know “why”.\n".encode("cp1252"))  # noqa: RUF001
    with pytest.raises(BadDataError, match="byte 5 .0x92.*I don’t know.*--encoding cp1252"):  # noqa: RUF001, RUF043
        texts(tmp_path / "a.txt")


@pytest.mark.parametrize("name", few(["a.csv.gz", "a.jsonl.gz", "a.tsv.gz"], 1))
def test_a_line_without_an_end_from_a_small_file_is_refused_in_bounded_memory(
    name: str, tmp_path: Path
) -> None:
    begin = b'{"text": "' if "jsonl" in name else b'id,text\n1,"'
    with gzip.open(tmp_path / name, "wb") as file:
        file.write(begin)
        for _ in range(60):
            file.write(b"a" * 10_000_000)
    assert (tmp_path / name).stat().st_size < 1_000_000
    tracemalloc.start()
    with pytest.raises(BadDataError, match="characters"):
        texts(tmp_path / name)
    assert tracemalloc.get_traced_memory()[1] < 200_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("name", "content", "taken"),
    [
        ("a.txt", "plain", None),
        (
            "a.csv",
            "id;text\n1;Hello\n",
            ("its delimiter is ';', the text is column 'text' of 2", "Hello"),
        ),
        ("a.json", '[{"paragraphs": ["Hello"]}]', ("field 'paragraphs' of each record", "Hello")),
        ("a.jsonl", '{"text": "Hello"}\n', ("field 'text' of each record", "Hello")),
        ("a.json", '["Hello"]', ("every record is a text", "Hello")),
        ("b.json", "[]", ("no records", "")),
    ],
)
def test_what_is_taken_is_described(name: str, content: str, taken: Any, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    told = [
        record.message
        for record in documents.remarks([Source(tmp_path / name)], CorpusOptions(dataset=()))
    ]
    assert len(told) == (taken is not None)
    for message in told:
        end = f"{taken[0]}; the first begins: {taken[1]}" if taken[1] else taken[0]
        assert message.endswith(end)
