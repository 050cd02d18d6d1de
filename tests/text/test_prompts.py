"""Prompts from options, files and JSON lines."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from gpt2cli.errors import BadDataError, MissingInputError, UsageError
from gpt2cli.text.prompts import read_prompts


def prompts(**options: Any) -> list[str]:
    return [request.text for request in read_prompts(**options)]


def written(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def test_all_prompts_come_in_the_order_of_the_options(tmp_path: Path) -> None:
    one = written(tmp_path / "one.txt", b"a\nb\n\n")
    several = written(tmp_path / "several.txt", b"c\r\n\n  d \n \ne")
    found = prompts(prompts=several, prefix_file=one, prefix=("y", "x"))
    assert found == ["y", "x", "a\nb\n", "c", "  d ", "e"]
    assert prompts() == [""]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", ""),
        (b"a", "a"),
        (b"a\n", "a"),
        (b"a\r\n", "a"),
        (b"a\r\nb\rc\r\n\r\n", "a\nb\nc\n"),
        ("\ufeffé\0\x1b[2J".encode(), "é\0\x1b[2J"),
    ],
)
def test_a_file_is_a_prompt_but_for_its_last_line_break(
    content: bytes, text: str, tmp_path: Path
) -> None:
    assert prompts(prefix_file=written(tmp_path / "a", content)) == [text]


def test_json_lines_hold_any_prompt(tmp_path: Path) -> None:
    content = b'{"prompt": "a\\nb", "x": 1}\n\n{"prompt": ""}\n{"prompt": "\\u0000 \\ud83d\\ude00"}'
    assert prompts(prompts=written(tmp_path / "p.jsonl", content)) == ["a\nb", "", "\0 😀"]
    # Only the name says that a file is JSON.
    assert prompts(prompts=written(tmp_path / "p.txt", b'{"prompt": 1}')) == ['{"prompt": 1}']


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", b"a\nb\xff\n", r"p\.txt, line 2: byte 2 of it \(0xff\) is not UTF-8 text"),
        ("p.txt", b"\n \n", r"p\.txt: no prompts in there"),
        ("p.txt", b"", r"p\.txt: no prompts in there"),
        ("p.csv", b"prompt,id\na,1\n", r"p\.csv is a table, and --prompts takes texts: one a line"),
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt"\n', r"p\.jsonl, line 2 is not JSON"),
        ("p.jsonl", b'\n{"text": "a"}', r'line 2: not a record with a text in "prompt": {"text"'),
        ("p.jsonl", b'{"prompt": 3}', r"line 1: not a record"),
        ("p.jsonl", b'["prompt"]', r"line 1: not a record"),
        ("p.jsonl", b"[" * 100_000, r"line 1 cannot be read as JSON: it nests too deep"),
        ("p.jsonl", b'{"prompt": "\\ud83d"}', r"line 1: the prompt holds U\+D83D, half a char"),
    ],
)
def test_a_bad_line_is_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadDataError, match=message):
        prompts(prompts=written(tmp_path / name, content))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for options in ({"prompts": "nowhere"}, {"prefix_file": "nowhere"}):
        with pytest.raises(MissingInputError, match="nowhere cannot be read"):
            prompts(**options)
    with pytest.raises(MissingInputError, match="cannot be read"):
        prompts(prompts=str(tmp_path))


def test_stdin_is_read_once() -> None:
    with pytest.raises(UsageError, match="--prefix-file - and --prompts -"):
        prompts(prompts="-", prefix_file="-")


PROGRAM = """
import sys
from gpt2cli.cli import replace_closed_outputs
from gpt2cli.text.prompts import read_prompts
replace_closed_outputs()
try:
    print(ascii([each.text for each in read_prompts(**eval(sys.argv[1]))]))
except Exception as error:
    print(type(error).__name__, error)
"""


def from_stdin(stdin: Any, options: str = "{}") -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, options],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        **stdin,
    )
    return str(done.stdout).strip()


def test_stdin_is_read_where_it_is_piped_and_nothing_else_is_given(tmp_path: Path) -> None:
    assert from_stdin({"input": "a\nb\n"}) == "['a', 'b']"
    assert from_stdin({"input": '\n{"prompt": "a"}\n{"prompt": "b\\n"}\n'}) == r"['a', 'b\n']"
    assert from_stdin({"input": '{"prompt"}'}).startswith("BadDataError stdin, line 1 is not JSON")
    assert from_stdin({"input": "a"}, "{'prefix': ('x',)}") == "['x']"
    assert from_stdin({"input": "a"}, "{'prefix': ('x',), 'prompts': '-'}") == "['x', 'a']"
    assert from_stdin({"input": "a\nb\n"}, "{'prefix_file': '-'}") == r"['a\nb']"
    with (tmp_path / "in").open("w+b") as file:
        file.write(b"from a file\n")
        file.seek(0)
        assert from_stdin({"stdin": file}) == "['from a file']"


def test_a_stdin_that_holds_nothing_is_no_prompt() -> None:
    assert from_stdin({"input": ""}) == "['']"
    assert from_stdin({"stdin": subprocess.DEVNULL}) == "['']"
    assert from_stdin({"preexec_fn": lambda: os.close(0)}) == "['']"
    assert "BadDataError stdin: no prompts" in from_stdin({"input": ""}, "{'prompts': '-'}")


def test_a_prefix_of_other_bytes_than_text_is_named() -> None:
    with pytest.raises(BadDataError, match=r"^--prefix: byte 1 of it \(0xff\) is not UTF-8 text"):
        prompts(prefix=("\udcff",))
    several = ("a", "é\udce9")
    with pytest.raises(BadDataError, match=r"^--prefix, number 2 of 2: byte 3 of it \(0xe9\)"):
        prompts(prefix=several)
    with pytest.raises(BadDataError, match=r"^--prefix: it holds U\+D83D, half a character"):
        prompts(prefix=("\ud83d",))


def test_line_ends_become_one_wherever_a_prompt_comes_from(tmp_path: Path) -> None:
    one = written(tmp_path / "one.txt", b"a\r\nb\rc\r\n")
    lines = written(tmp_path / "several.txt", b"a\r\nb\rc\n")
    records = written(tmp_path / "r.jsonl", b'{"prompt": "a\\r\\nb"}\r\n{"prompt": "c\\rd"}\r\n')
    assert prompts(prefix_file=one, prefix=("x\r\ny",)) == ["x\ny", "a\nb\nc"]
    assert prompts(prompts=lines) == ["a", "b", "c"]
    assert prompts(prompts=records) == ["a\nb", "c\nd"]
    kept = prompts(prefix_file=one, prefix=("x\r\ny",), prompts=records, keep_line_ends=True)
    assert kept == ["x\r\ny", "a\r\nb\rc", "a\r\nb", "c\rd"]


def test_prompts_in_an_array_of_json_are_read(tmp_path: Path) -> None:
    content = b'[{"prompt": "a\\nb"}, "c"]'
    assert prompts(prompts=written(tmp_path / "p.json", content)) == ["a\nb", "c"]
    assert prompts(prompts=written(tmp_path / "p.ndjson", b'{"prompt": "a"}\n"b"')) == ["a", "b"]
    with pytest.raises(BadDataError, match=r"p\.json, record 1: not a record"):
        prompts(prompts=written(tmp_path / "p.json", b'[{"text": "a"}]'))


@pytest.mark.parametrize("option", ["prompts", "prefix_file"])
def test_a_pipe_is_read_to_its_end(option: str, tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    content = b"a\n" * 50_000 + b'"b"'
    threading.Thread(target=path.write_bytes, args=(content,)).start()
    text = "\n".join(prompts(**{option: str(path)}))
    assert text == content.decode()


def test_json_in_a_pipe_is_known_by_its_first_letter(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    content = b'\n{"prompt": "a"}\n'
    threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(content,)).start()
    assert prompts(prompts=str(tmp_path / "pipe")) == ["a"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "cp1252"])
@pytest.mark.parametrize("option", ["prompts", "prefix_file"])
def test_prompts_in_another_encoding_are_refused_with_the_way_to_convert_them(
    option: str, encoding: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "p.txt", "I don’t know\n".encode(encoding))  # noqa: RUF001
    with pytest.raises(BadDataError, match=f"iconv -f {encoding[:6]} -t utf-8"):
        prompts(**{option: path})


def test_prompts_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpt2cli.text.prompts.MOST_BYTES", 1000)
    path = written(tmp_path / "p.txt.gz", gzip.compress(b"a\n" * 1000))
    with pytest.raises(BadDataError, match="over 1,000 bytes of prompts"):
        prompts(prompts=path)
