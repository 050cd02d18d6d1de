"""Whatever a corpus or a file of prompts holds, only our own errors come out."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2cli.chat_template import Conversation
from gpt2cli.config.shared import CorpusOptions
from gpt2cli.text import decoding, documents, finding
from gpt2cli.text.prompts import read_prompts
from gpt2cli.text.sources import ReadingState
from tests.fuzz.bounds import cases, refusals

pytestmark = pytest.mark.fuzz

TEXT = "The King’s “cat”; été, 12 | 猫\tx\r\ny\rz\n"  # noqa: RUF001
DELIMITERS = (None, ",", ";", "\t", "|")
# What a table, JSON or a text is made of.
PARTS = st.sampled_from(
    [*',;|\t\n\r"\\[]{}:\0é\u2028\ufeff', "\r\n", '""', "sep=;", "text", '"text"', "id", "1",
     "null", '{"text": "a"}', "[" * 40, "1" * 5000, "NaN", "\ud83d", "x" * 200,
     '{"messages": [{"role": "user", "content": "a"}]}', '"messages"', '"role"', '"content"']
)  # fmt: skip
JUNK = st.lists(PARTS, max_size=30).map(lambda parts: "".join(parts).encode("utf-8", "replace"))
CONTENT = JUNK | st.binary(max_size=300) | st.text(max_size=100).map(
    lambda text: text.encode("utf-16", "replace")
)  # fmt: skip
CHANGES = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=4)
VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "a", "b", "0"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def read(path: Path, **options: Any) -> None:
    """Finds, describes and reads a corpus of one file, as a command does."""
    with refusals():
        settings = CorpusOptions(dataset=(), **options)
        for source in finding.find([str(path)], settings.encoding).files:
            list(documents.remarks([source], settings))
            content = documents.content_of(source, settings, 300, ReadingState())
            for document in content.documents:
                if isinstance(document, Conversation):
                    assert document.messages
                    continue
                for piece in document:
                    ends = settings.keep_line_ends or isinstance(piece, bytes) or "\r" not in piece
                    assert ends, piece


def damaged(content: bytes, changes: list[tuple[int, int]]) -> bytes:
    """Returns content with some bytes changed, and cut where the last change says so."""
    found = bytearray(content)
    for place, value in changes:
        found[place % len(found)] ^= value
    return bytes(found[: changes[-1][0] % len(found)] if changes[-1][1] < 60 else found)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@cases(300)
@given(
    content=CONTENT,
    options=st.fixed_dictionaries(
        {
            "csv_delimiter": st.sampled_from(DELIMITERS),
            "csv_column": st.sampled_from([None, "text", "1", "2", "9" * 50]),
            "csv_header": st.sampled_from([None, True, False]),
            "keep_line_ends": st.booleans(),
        }
    ),
)
def test_tables(name: str, content: bytes, options: dict[str, Any], place: Path) -> None:
    (place / name).write_bytes(content)
    read(place / name, **options)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.txt"])
@cases(300)
@given(
    content=CONTENT | VALUES.map(lambda value: json.dumps(value).encode()),
    field=st.sampled_from([None, "text", "a.b", "a..", "."]),
    encoding=st.sampled_from(["utf-8", "utf-16", "cp1252", "shift-jis", "utf-32"]),
)
def test_json_and_text(
    name: str, content: bytes, field: str | None, encoding: str, place: Path
) -> None:
    (place / name).write_bytes(content)
    read(place / name, text_field=field, encoding=encoding)


def arrays() -> Iterator[tuple[str, bytes]]:
    for name, save in (
        ("a.npy", np.save),
        ("a.npz", np.savez),
        ("b.npz", np.savez_compressed),
    ):
        file = io.BytesIO()
        save(file, np.arange(20, dtype=np.uint16))
        yield name, file.getvalue()
        yield f"{name}.gz", gzip.compress(file.getvalue())


@pytest.mark.parametrize(("name", "whole"), list(arrays()))
@cases(250)
@given(changes=CHANGES)
def test_damaged_arrays(
    name: str, whole: bytes, changes: list[tuple[int, int]], place: Path
) -> None:
    (place / name).write_bytes(damaged(whole, changes))
    read(place / name)


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_every_flipped_bit_of_an_array(name: str, place: Path) -> None:
    whole = dict(arrays())[name]
    for bit in range(8 * len(whole)):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        (place / name).write_bytes(content)
        read(place / name)


@cases(200)
@given(
    head=st.text(st.sampled_from("{}()'descrfotan_shp:<uiV2408,TFL \\n"), max_size=150),
    version=st.integers(0, 4),
    data=st.binary(max_size=20),
)
def test_headers_of_arrays(head: str, version: int, data: bytes, place: Path) -> None:
    size = len(head).to_bytes(2 if version == 1 else 4, "little")
    content = b"\x93NUMPY" + bytes([version, 0]) + size + head.encode() + data
    (place / "h.npy").write_bytes(content)
    with zipfile.ZipFile(place / "h.npz", "w") as archive:
        archive.writestr("a.npy", content)
    read(place / "h.npy")
    read(place / "h.npz")


@pytest.mark.parametrize("name", ["a.txt.gz", "a.csv.gz", "a.jsonl.gz"])
@cases(150)
@given(changes=CHANGES)
def test_damaged_zipped_files(name: str, changes: list[tuple[int, int]], place: Path) -> None:
    (place / name).write_bytes(damaged(gzip.compress(b'{"text": "a"}\n' * 20), changes))
    read(place / name)


@pytest.mark.parametrize("name", ["p.txt", "p.json", "p.jsonl", "p.txt.gz"])
@cases(200)
@given(content=CONTENT, keep=st.booleans())
def test_prompts(name: str, content: bytes, keep: bool, place: Path) -> None:
    (place / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    path = str(place / name)
    for option in ("prompts", "prefix_file"):
        with refusals():
            for prompt in read_prompts(**{option: path}, keep_line_ends=keep):
                assert keep or "\r" not in prompt.text


@cases(300)
@given(
    content=st.binary(min_size=1, max_size=200)
    | st.sampled_from(["cp1252", "koi8-r", "utf-16", "gb18030"]).map(
        lambda name: TEXT.encode(name, "ignore")
    ),
    place_of=st.integers(0, 199),
)
def test_proposals_of_encodings(content: bytes, place_of: int) -> None:
    told = decoding.remedy(content, place_of % len(content))
    assert told.isprintable()
    assert len(told) < 250


@cases(200)
@given(st.text(st.sampled_from("ab*?[]!/.\0é-"), max_size=20))
def test_patterns(pattern: str) -> None:
    # Not all of the disk.
    if not pattern.startswith(("/", "..", "*")):
        with refusals():
            finding.find([f"nowhere{pattern}"])


def test_names_that_no_file_has() -> None:
    for name in ("\0", "x" * 5000, "\udcff", "", "a/" * 3000):
        with refusals():
            finding.find([name])
