"""Where the text in a csv is: headers are found, columns are named, broken rows are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt2cli.errors import BadDataError
from gpt2cli.text import tables
from gpt2cli.text.sources import Source

SOURCE = Source(Path("tweets.csv"))


def layout(text: str, column: str | None = None, header: bool | None = None) -> tables.Layout:
    return tables.layout(SOURCE, text.splitlines(keepends=True), column, header)


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
    assert layout(text, "body") == tables.Layout(1, True, "'body'", width=2)
    assert layout(text, "2") == tables.Layout(1, True, "'body'", width=2)
    assert layout(text, "2", header=False) == tables.Layout(1, False, "2", width=2)
    assert layout(text) == tables.Layout(1, True, "'body'", width=2)
    assert layout("2,Good morning.\n" * 3, "2") == tables.Layout(1, False, "2", width=2)
    assert layout("2,1\n" * 3, "1", header=True) == tables.Layout(1, True, "'1'", width=2)
    assert str(layout(text, "body")) == "the first row is a header, the text is column 'body' of 2"


@pytest.mark.parametrize("column", ["text", "3", "0", "BODY"])
def test_a_column_that_is_not_there_is_refused_and_those_there_are_named(column: str) -> None:
    message = f"tweets.csv has no column '{column}'; its first row has 'id', 'body'.*--csv-column"
    with pytest.raises(BadDataError, match=message):
        layout("id,body\n1,Good morning.\n", column)


def test_a_row_without_the_column_is_named_by_its_line() -> None:
    lines = ["id,text\n", '1,"two\n', 'lines"\n', "2\n"]
    where = layout("".join(lines), "text")
    with pytest.raises(BadDataError, match=r"tweets\.csv, line 4: the row has 1 cells"):
        list(tables.cells(SOURCE, where, lines))


@pytest.mark.parametrize("broken", ['2,"never closed\n', '2,"closed" early\n'])
def test_quotes_that_do_not_fit_are_named_by_their_line(broken: str) -> None:
    with pytest.raises(BadDataError, match=r"tweets\.csv, line 3: no csv"):
        list(tables.rows(SOURCE, ["id,text\n", "1,x\n", broken]))


def test_an_empty_csv_has_no_cells() -> None:
    where = layout("\n\n", "text")
    assert list(tables.cells(SOURCE, where, ["\n", "\n"])) == []
