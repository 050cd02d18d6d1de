"""What a command names is found, but for its own files, and what is taken is told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpt2cli.commands.finetune import find_texts
from gpt2cli.config.evaluate import EvaluateConfig
from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.errors import UsageError
from gpt2cli.records import Record
from gpt2cli.text import documents


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("story.txt", "models/tiny/encoder.json", "checkpoint/run1/log.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    return tmp_path


def found(*dataset: str, **options: Any) -> list[str]:
    steps = find_texts(FinetuneConfig(dataset=dataset, **options))
    while True:
        try:
            next(steps)
        except StopIteration as end:
            corpus, held_out = end.value
            return [
                str(source) for each in filter(None, (corpus, held_out)) for source in each.files
            ]


def remarks(config: EvaluateConfig, *, all_skipped: bool = False) -> Iterator[Record]:
    """Yields what evaluate says of its corpus."""
    own = config.model_dir, config.checkpoint_dir
    yield from documents.find_corpora([config.dataset], config, own, all_skipped=all_skipped)


def test_a_second_run_in_a_folder_finds_what_the_first_one_found(place: Path) -> None:
    assert found(".") == ["story.txt"]
    assert found("*") == ["story.txt"]
    assert [str(each) for each in remarks(EvaluateConfig(dataset=(".",)))] == [
        "skipped checkpoint: gpt2cli's own",
        "skipped models: gpt2cli's own",
    ]


def test_a_model_that_is_named_by_its_path_is_no_corpus(place: Path) -> None:
    for name in ("base", "other"):
        (place / name).mkdir()
        (place / name / "merges.txt").write_text("text")
    assert found(".", model_name="base", restore_from="other") == ["story.txt"]
    assert found("other", model_name="base") == ["other/merges.txt"]


def test_a_pipe_is_either_trained_or_validated_on(place: Path) -> None:
    os.mkfifo("pipe")
    with pytest.raises(UsageError, match="pipe is given twice"):
        found("pipe", val_dataset=("./pipe",))
    with pytest.raises(UsageError, match="stdin is given twice"):
        found("-", val_dataset=("/dev/stdin",))
    Path("pipe").unlink()
    assert found("story.txt", val_dataset=("story.txt",)) == ["story.txt", "story.txt"]


def test_of_many_files_that_are_skipped_the_first_are_named(place: Path) -> None:
    config = EvaluateConfig(dataset=("texts",))
    (place / "texts").mkdir()
    for number in range(30):
        (place / "texts" / f"{number:02}.png").write_bytes(b"\0")
    (place / "texts" / "a.txt").write_text("text")
    told = [str(each) for each in remarks(config)]
    assert told[0] == "skipped texts/00.png: binary, not text"
    assert told[20:] == ["skipped 10 more; --verbose names them"]
    told = [str(each) for each in remarks(config, all_skipped=True)]
    assert len(told) == 30


def test_what_is_taken_of_tables_and_records_is_told_in_a_line(place: Path) -> None:
    Path("a.csv").write_text(";text\n0;The cat sat.\n")
    Path("b.json").write_text('[{"paragraphs": ["' + "A long story. " * 20 + '"]}]')
    config = EvaluateConfig(dataset=("a.csv", "b.json", "story.txt"))
    table, records = (str(each) for each in remarks(config))
    assert table == (
        "a.csv: the first row is a header, its delimiter is ';', the text is column 'text' of 2; "
        "the first begins: The cat sat."
    )
    begin = "b.json: the text is field 'paragraphs' of each record; the first begins: A long story."
    assert records.startswith(begin)
    assert len(records) < 150


@pytest.mark.parametrize("delimiter", ["", ",,", '"', "\n", "tabulator"])
def test_a_delimiter_is_one_character(delimiter: str) -> None:
    with pytest.raises(UsageError, match="--csv-delimiter must be one character"):
        EvaluateConfig(dataset=("a",), csv_delimiter=delimiter)
    assert EvaluateConfig(dataset=("a",), csv_delimiter="tab").delimiter == "\t"
    assert EvaluateConfig(dataset=("a",), csv_delimiter=r"\t").delimiter == "\t"
