"""Text becomes what a run trains on: token files kept and removed, a part held out, progress."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2cli.commands import finetune
from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.errors import BadDataError, Gpt2cliError, UsageError
from gpt2cli.records import Record
from gpt2cli.text import batches, dataset, token_files
from gpt2cli.text.tokenizer import Tokenizer
from tests import models

WINDOW = 8
TAKEN = f"text.jsonl: the text is field 'text' of each record; the first begins: {' one' * 9}"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a text of 40 documents of 10 tokens in jsonl and an array."""
    monkeypatch.chdir(tmp_path)
    lines = [f'{{"text": "{" one" * 9}", "title": "{" two" * 9}"}}' for _ in range(40)]
    (tmp_path / "text.jsonl").write_text("\n".join(lines))
    np.save(tmp_path / "one.npy", np.arange(1, 400))
    (tmp_path / "run").mkdir()
    return tmp_path


def encoded(config: FinetuneConfig, tokenizer: Tokenizer) -> Generator[Record, None, dataset.Data]:
    corpus, held_out = yield from finetune.find_texts(config)
    encoder = token_files.Encoder(options=config, tokenizer=tokenizer)
    validation = finetune.validation_of(config, held_out)
    return (yield from dataset.encode_dataset(encoder, corpus, validation, Path("run"), WINDOW))


def prepared(tokenizer: Tokenizer, **options: Any) -> tuple[dataset.Data, list[str]]:
    """Returns the data that a config asks for, and the lines that were told."""
    config = FinetuneConfig(**{"dataset": ("text.jsonl",)} | options)
    told: list[Record] = []
    steps = encoded(config, tokenizer)
    while True:
        try:
            told.append(next(steps))
        except StopIteration as end:
            return end.value, [str(record) for record in told]


def files_made() -> set[str]:
    return {path.name for path in Path("run").iterdir()}


def test_the_last_documents_are_held_out(place: Path, tokenizer: Tokenizer) -> None:
    found, told = prepared(tokenizer)
    assert (len(found.tokens), found.held_out_tokens, told) == (380, 20, [TAKEN])
    assert found.tokens[-1] == 50256
    assert found.held_out is not None
    assert found.held_out.tolist()[0][:2] == tokenizer.encode(" one one")
    assert found.windows_per_epoch == 380 // WINDOW
    more, _ = prepared(tokenizer, val_fraction=0.1)
    assert (len(more.tokens), more.held_out_tokens) == (360, 40)
    assert len({found.name, more.name}) == len({found.held_out_name, more.held_out_name}) == 2


def test_of_a_text_without_documents_the_tail_is_held_out(
    place: Path, tokenizer: Tokenizer
) -> None:
    found, _ = prepared(tokenizer, dataset=("one.npy",))
    assert found.tokens.tolist() == list(range(1, 381))
    assert found.held_out_tokens == 20
    assert found.held_out is not None
    assert found.held_out.tolist() == [list(range(381, 390)), list(range(389, 398))]


@pytest.mark.parametrize("options", [{"val_fraction": 0.0}, {"val_every": 0}])
def test_nothing_is_held_out_where_nothing_is_validated(
    options: dict[str, Any], place: Path, tokenizer: Tokenizer
) -> None:
    found, told = prepared(tokenizer, **options)
    assert (len(found.tokens), found.held_out, found.held_out_name) == (400, None, "")
    assert told == [TAKEN]


def test_a_text_of_its_own_is_validated_on(place: Path, tokenizer: Tokenizer) -> None:
    (place / "other.txt").write_text(" three" * 100)
    found, _ = prepared(tokenizer, val_dataset=("other.txt",), val_batches=3, batch_size=2)
    assert (len(found.tokens), found.held_out_tokens) == (400, 101)
    assert found.held_out is not None
    assert found.held_out.shape == (6, WINDOW + 1)
    assert set(found.held_out.ravel().tolist()) == set(tokenizer.encode(" three"))


def test_a_text_too_small_to_be_split_is_trained_on_whole_and_it_is_said(
    place: Path, tokenizer: Tokenizer
) -> None:
    (place / "small.txt").write_text(" one" * 120)
    found, told = prepared(tokenizer, dataset=("small.txt",))
    assert (len(found.tokens), found.held_out) == (121, None)
    assert told == [
        "121 tokens are too few to hold out 0.05 of them for validation; give --val-dataset, "
        "or --val-fraction."
    ]
    asked, _ = prepared(tokenizer, dataset=("small.txt",), val_fraction=0.05)
    assert (len(asked.tokens), asked.held_out_tokens) == (115, 6)
    assert asked.held_out is not None
    assert asked.held_out[0].tolist()[5:] == [50256, *[batches.PADDING] * 3]


@pytest.mark.parametrize(
    ("fraction", "message"),
    [
        (0.001, "leaves 400 to train on and 0 to validate on; each needs 2.*--val-dataset"),
        (1.0, "leaves 0 to train on and 400 to validate on"),
    ],
)
def test_a_fraction_that_leaves_nothing_is_refused_with_figures(
    fraction: float, message: str, place: Path, tokenizer: Tokenizer
) -> None:
    with pytest.raises(BadDataError, match=message):
        prepared(tokenizer, val_fraction=fraction)
    assert files_made() == set()


def test_a_corpus_that_is_refused_leaves_no_file_of_the_other(
    place: Path, tokenizer: Tokenizer
) -> None:
    (place / "latin.txt").write_bytes(b"caf\xe9")
    for training, held_out in (("text.jsonl", "latin.txt"), ("latin.txt", "text.jsonl")):
        with pytest.raises(BadDataError, match=r"latin\.txt: byte 3"):
            prepared(tokenizer, dataset=(training,), val_dataset=(held_out,))
        assert files_made() == set()


def test_a_token_file_is_used_again(
    place: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = prepared(tokenizer)
    files = files_made()
    assert len(files) == 1
    monkeypatch.setattr("gpt2cli.text.token_files.encode_corpus", None)
    again, _ = prepared(tokenizer, val_fraction=0.1)
    assert files_made() == files
    assert first.tokens.tolist()[:360] == again.tokens.tolist()


def test_token_files_of_other_corpora_are_removed_when_the_new_one_is_complete(
    place: Path, tokenizer: Tokenizer
) -> None:
    prepared(tokenizer)
    old = files_made()
    (place / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(BadDataError, match=r"latin\.txt: byte 3"):
        prepared(tokenizer, dataset=("latin.txt",))
    assert files_made() == old
    prepared(tokenizer, text_field="title")
    assert len(files_made()) == 1
    assert files_made() != old


def test_what_is_validated_on_keeps_its_token_file(place: Path, tokenizer: Tokenizer) -> None:
    prepared(tokenizer, val_dataset=("one.npy",))
    files = files_made()
    assert len(files) == 2
    prepared(tokenizer, val_dataset=("one.npy",))
    assert files_made() == files


def test_how_a_csv_is_read_is_said(place: Path, tokenizer: Tokenizer) -> None:
    for name in ("a.csv", "b.csv"):
        (place / name).write_text("id,body\n" + "1,Good morning.\n" * 9)
    (place / "c.csv").write_text("2,Good morning.\n" * 9)
    found, told = prepared(
        tokenizer, dataset=("a.csv", "b.csv", "c.csv"), csv_column="2", val_fraction=0.0
    )
    assert told == [
        "a.csv and 1 more: the first row is a header, the text is column 'body' of 2; "
        "the first begins: Good morning.",
        "c.csv: no header, the text is column 2 of 2; the first begins: Good morning.",
    ]
    assert found.tokens.tolist() == [*tokenizer.encode("Good morning."), 50256] * 27


def test_a_large_corpus_tells_how_far_it_is(
    place: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prepared(tokenizer)[1] == [TAKEN]
    monkeypatch.setattr(token_files, "WORTH_A_BAR", 1)
    _, told = prepared(tokenizer, text_field="title")[1]
    assert told.startswith("encoding text.jsonl: 3,919 bytes in ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoding": "klingon"}, "--encoding: unknown encoding: klingon"),
        ({"encoding": "hex"}, "--encoding: 'hex' is not a text encoding"),
        ({"csv_header": False, "csv_column": "text"}, "--csv-column text needs a header"),
        ({"val_dataset": ("x",), "val_fraction": 0.1}, "--val-dataset and --val-fraction"),
        ({"dataset": ("-",), "val_dataset": ("-",)}, "stdin"),
        ({"val_fraction": 1.5}, "--val-fraction must be at most 1"),
    ],
)
def test_options_that_cannot_be_are_refused(
    options: dict[str, Any], message: str, place: Path, tokenizer: Tokenizer
) -> None:
    with pytest.raises(UsageError, match=message):
        prepared(tokenizer, **options)


def test_a_vocabulary_that_16_bits_cannot_hold_is_refused(place: Path) -> None:
    tokens, merges = models.byte_vocabulary(260)
    tokens |= {f"{a}{b}{c}{d}{e}": 0 for a, b, c, d, e in np.ndindex(10, 10, 10, 10, 10)}
    tokenizer = Tokenizer({symbol: number for number, symbol in enumerate(tokens)}, merges)
    with pytest.raises(BadDataError, match="100,260 tokens"):
        prepared(tokenizer)
    assert tokenizer.decode(tokenizer.encode("the tether")) == "the tether"


def test_an_array_of_one_token_is_too_short(place: Path, tokenizer: Tokenizer) -> None:
    np.save("short.npy", np.array([50256]))
    with pytest.raises(Gpt2cliError, match=r"short\.npy: 1 tokens found, and at least 2"):
        prepared(tokenizer, dataset=("short.npy",))
    assert files_made() == set()


@pytest.mark.slow
def test_a_hundred_megabytes_are_encoded_in_less_than_300(place: Path) -> None:
    sentence = "It is a truth universally acknowledged, number {}, that it wants a wife.\n"
    with (place / "large.txt").open("w") as file:
        for start in range(0, 1_370_000, 10_000):
            file.writelines(sentence.format(n) for n in range(start, start + 10_000))
    assert (place / "large.txt").stat().st_size > 100_000_000
    program = (
        "import resource\nfrom pathlib import Path\n"
        "from gpt2cli.config.finetune import FinetuneConfig\n"
        "from tests import models\nfrom tests.text.test_dataset import encoded\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "tokenizer, before = models.real_tokenizer(), peak()\n"
        "config = FinetuneConfig(dataset=('large.txt',))\n"
        "list(encoded(config, tokenizer))\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 300_000
