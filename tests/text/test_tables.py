"""Where the text in a csv is: headers are found, columns are named, broken rows are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpt2cli.config.shared import CorpusOptions
from gpt2cli.errors import BadDataError
from gpt2cli.text import tables
from gpt2cli.text.sources import Source

SOURCE = Source(Path("tweets.csv"))


def layout(text: str, column: str | None = None, header: bool | None = None) -> tables.Layout:
    found, _ = tables.text_cells(
        SOURCE,
        text.splitlines(keepends=True),
        CorpusOptions(dataset=(), csv_column=column, csv_header=header),
    )
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("text\nShall I compare thee?\n", True),
        ("Text,Label\nfine,good\n", True),
        ("Tweet Text,Likes\nGood morning.,12\nNo!,3\n", True),
        ("verse\nShall I compare thee to a day?\nThou art more lovely.\n", True),
        ("詩,作者\n床前明月光、疑是地上霜。,李白\n", True),
        ("Shall I compare thee?\nThou art more lovely.\n", False),
        ("Emma\nOlivia\nAva\n", False),
        ("Emma,12\nOlivia,7\n", False),
        ("good,good\nShall I compare thee?,x\n", False),
        ("Hello there, you.\n", False),
        ("Emma\n", False),
    ],
)
def test_a_header_is_found_where_the_first_row_is_of_another_kind(
    text: str, expected: bool
) -> None:
    assert layout(text).header is expected
    assert layout(text, header=not expected).header is not expected


def test_a_column_is_found_by_name_or_number() -> None:
    text = "id,body\n1,Good morning.\n"

    def column(text: str, *options: Any, **header: Any) -> tuple[int, bool, str]:
        found = layout(text, *options, **header)
        return found.column, found.header, found.name

    assert column(text, "body") == (1, True, "'body'")
    assert column(text, "2") == (1, True, "'body'")
    assert column(text, "2", header=False) == (1, False, "2")
    assert column(text) == (1, True, "'body'")
    assert column("2,Good morning.\n" * 3, "2") == (1, False, "2")
    assert column("2,1\n" * 3, "1", header=True) == (1, True, "'1'")
    assert str(layout(text, "body")) == "the first row is a header, the text is column 'body' of 2"


@pytest.mark.parametrize("column", ["text", "3", "0", "BODY"])
def test_a_column_that_is_not_there_is_refused_and_those_there_are_named(column: str) -> None:
    message = f"tweets.csv has no column '{column}'; its first row has 'id', 'body'.*--csv-column"
    with pytest.raises(BadDataError, match=message):
        layout("id,body\n1,Good morning.\n", column)


def test_a_row_without_the_column_is_named_by_its_line() -> None:
    with pytest.raises(BadDataError, match=r"tweets\.csv, line 4: the row has 1 cells"):
        texts('id,text\n1,"two\nlines"\n2\n', column="text")


@pytest.mark.parametrize("broken", ['2,"never closed\n', '2,"closed" early\n'])
def test_quotes_that_do_not_fit_are_named_by_their_line(broken: str) -> None:
    with pytest.raises(BadDataError, match=r"tweets\.csv, line 3: no csv"):
        list(tables.rows(SOURCE, ["id,text\n", "1,x\n", broken], ","))


def test_an_empty_csv_has_no_cells() -> None:
    assert texts("\n\n", column="text") == []


def texts(text: str, name: str = "tweets.csv", **options: Any) -> list[str]:
    source = Source(Path(name))
    lines = text.splitlines(keepends=True)
    settings = {f"csv_{name}": value for name, value in options.items()}
    return list(tables.text_cells(source, lines, CorpusOptions(dataset=(), **settings))[1])


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(delimiter: str) -> None:
    names = delimiter.join(["id", "text", "likes"])
    table = f'{names}\n1{delimiter}"a;b|c,d\te"{delimiter}3'
    for name in ("tweets.csv", "tweets.tsv"):
        assert texts(f"{table}\n", name) == ["a;b|c,d\te"]
        assert texts(f"sep={delimiter}\n{table}\n", name) == ["a;b|c,d\te"]


def test_a_delimiter_that_is_given_is_taken() -> None:
    assert texts("a;b\nc;d\n", delimiter=",") == ["a;b", "c;d"]
    assert texts("sep=,\na;b\n", delimiter=";") == ["a"]
    assert texts("Yes, sir.\nNo.\n", delimiter="\t") == ["Yes, sir.", "No."]


def test_text_with_commas_in_one_column_is_one_column() -> None:
    assert texts('text\n"Yes, sir."\n"No; well, no."\n') == ["Yes, sir.", "No; well, no."]


def test_an_index_as_pandas_writes_it_is_no_text() -> None:
    assert texts(',verse\n0,"Verse 0, the cat"\n1,Verse 1\n') == ["Verse 0, the cat", "Verse 1"]
    assert texts("Unnamed: 0,verse\n0,The cat sat.\n") == ["The cat sat."]


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("ID,Title,Content\n1,A very long title of a post,Short.\n", "'Content'"),
        ("ID,full_text\n1,Hello there.\n", "'full_text'"),
        ("Tweet Text,Date\nHello there.,2020-01-01\n", "'Tweet Text'"),
        ("id,verse,url\n1,Hello there.,https://example.org/a/very/long/address\n", "'verse'"),
        ("review,summary\n5,I would buy it again.\n", "'summary'"),
        ("text_id,verse\nabc-1,Shall I compare thee?\n", "'verse'"),
        ("1,Shall I compare thee?\n2,Thou art more lovely.\n", "2"),
    ],
)
def test_the_column_that_is_text_is_found_and_said(table: str, name: str) -> None:
    found = layout(table)
    assert found.name == name
    assert f"the text is column {name} of" in str(found)


@pytest.mark.parametrize("header", ["id,text\n", ""])
def test_a_row_that_would_be_cut_at_a_delimiter_is_refused(header: str) -> None:
    table = header + "1,Good morning.\n" * 30 + "2,Yes, sir.\n"
    line = table.count("\n")
    with pytest.raises(
        BadDataError, match=rf"line {line}: the row has 3 cells, and the first row 2"
    ):
        texts(table)
    assert texts(f"{header}1,Yes.,,\n") == ["Yes."]


def test_a_row_without_an_end_is_refused_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MOST_ROW", 1000)
    taken = []

    def lines() -> Iterator[str]:
        yield '"\n'
        for number in range(10_000):
            taken.append(number)
            yield '","\n'

    with pytest.raises(BadDataError, match="a row of over 1,000 characters"):
        list(tables.rows(SOURCE, lines(), ","))
    assert len(taken) < 1000
