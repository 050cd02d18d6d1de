"""evaluate against the oracle: every token judged once, in overlapping windows."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2cli.commands.evaluate import evaluate
from gpt2cli.commands.finetune import finetune
from gpt2cli.config.evaluate import EvaluateConfig
from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.errors import BadDataError, MissingInputError, UsageError
from gpt2cli.records import Notice, Text
from gpt2cli.text.tokenizer import Tokenizer, read_tokenizer
from tests import models, oracle
from tests.conftest import Run

TEXT = "The weather, their other feather, and the cat that sat there… 1984 times. é"
ARRAYS, HEADS, N_CTX = models.random_arrays(models.MINI), models.MINI.n_head, models.MINI.n_ctx


@pytest.fixture
def place(tmp_path: Path, mini_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with `models/small` and `text.txt`."""
    shutil.copytree(mini_model, tmp_path / "models" / "small")
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def tokens_of(mini_model: Path) -> Tokenizer:
    return read_tokenizer(mini_model / "encoder.json", mini_model / "vocab.bpe")


def judged(*dataset: str, **options: Any) -> dict[str, Any]:
    """Evaluates models/small in this process; returns the result."""
    settings: dict[str, Any] = {"model_name": "small", "xla": False, "format": "jsonl"}
    config = EvaluateConfig(dataset=dataset, **settings | options)
    (text,) = [record.text for record in evaluate(config) if isinstance(record, Text)]
    return json.loads(text)  # type: ignore[no-any-return]


def plain_losses(stream: list[int], stride: int, border: int) -> list[float]:
    """Returns the loss of each token but borders, from windows cut one by one."""
    losses, judged_to = [], 0
    for start in range(0, len(stream), stride):
        window = stream[start : start + N_CTX + 1]
        shares = oracle.softmax(oracle.logits(ARRAYS, HEADS, window[:-1]))
        for place in range(1, len(window)):
            if start + place > judged_to and window[place] != border:
                losses.append(-float(np.log(shares[place - 1, window[place]])))
        judged_to = start + len(window) - 1
        if judged_to == len(stream) - 1:
            break
    return losses


@pytest.mark.parametrize(
    ("stride", "batch_size"), [(None, 1), (1, 5), (7, 3), (N_CTX, 1), (N_CTX - 1, 2)]
)
def test_the_loss_is_that_of_a_plain_computation(
    stride: int | None, batch_size: int, place: Path, tokens_of: Tokenizer
) -> None:
    found = judged("text.txt", stride=stride, batch_size=batch_size)
    stream = [tokens_of.end_of_text, *tokens_of.encode(TEXT)]
    losses = plain_losses(stream, stride or N_CTX // 2, tokens_of.end_of_text)
    assert found["tokens"] == len(losses) == len(stream) - 1
    assert found["bytes"] == len(TEXT.encode())
    assert found["loss"] == pytest.approx(np.mean(losses), abs=1e-5)
    assert found["perplexity"] == pytest.approx(np.exp(np.mean(losses)), rel=1e-5)
    bits = sum(losses) / np.log(2) / len(TEXT.encode())
    assert found["bits_per_byte"] == pytest.approx(bits, abs=1e-5)


def test_a_stride_gives_context(place: Path) -> None:
    losses = {stride: judged("text.txt", stride=stride)["loss"] for stride in (1, 16, N_CTX)}
    assert len(set(losses.values())) == 3


@pytest.mark.parametrize("length", [1, 2, N_CTX - 1, N_CTX, N_CTX + 1, 2 * N_CTX])
def test_texts_of_any_length_are_judged_whole(
    length: int, place: Path, tokens_of: Tokenizer
) -> None:
    (place / "short.txt").write_text("x" * length)
    found = judged("short.txt")
    stream = [tokens_of.end_of_text, *tokens_of.encode("x" * length)]
    losses = plain_losses(stream, N_CTX // 2, tokens_of.end_of_text)
    assert (found["tokens"], found["bytes"]) == (length, length)
    assert found["loss"] == pytest.approx(np.mean(losses), abs=1e-5)


def test_documents_of_all_kinds_follow_each_other_behind_borders(
    place: Path, tokens_of: Tokenizer
) -> None:
    (place / "rows.csv").write_text("text,n\nthe first,1\nthe second,2\n")
    (place / "lines.jsonl.gz").write_bytes(gzip.compress(b'{"body": "the third"}\n'))
    np.save(place / "tokens.npy", np.array(tokens_of.encode("the fourth"), np.uint16))
    found = judged("rows.csv", "lines.jsonl.gz", "tokens.npy", "text.txt", text_field="body")
    border = tokens_of.end_of_text
    texts = ["the first", "the second", "the third", "the fourth", TEXT]
    stream = [border]
    for text in texts:
        stream += [*tokens_of.encode(text), border]
    losses = plain_losses(stream, N_CTX // 2, border)
    assert found["tokens"] == len(losses) == len(stream) - 6
    assert found["bytes"] == sum(len(text.encode()) for text in texts)
    assert found["loss"] == pytest.approx(np.mean(losses), abs=1e-5)


def test_the_result_is_a_line_for_people(cli: Run, place: Path) -> None:
    done = cli("evaluate", "text.txt", "--model-name", "small", "--no-xla")
    found = judged("text.txt")
    assert done.returncode == 0
    # A slow machine says so while TensorFlow loads.
    said = [line for line in done.stderr.splitlines() if not line.startswith("loading TensorFlow")]
    assert said == ["from models/small/model.ckpt"]
    assert done.stdout == (
        f"loss={found['loss']:.4f} perplexity={found['perplexity']:.2f} "
        f"bits_per_byte={found['bits_per_byte']:.4f} tokens={found['tokens']} bytes=78\n"
    )


def test_xla_finds_the_same(place: Path) -> None:
    found, compiled = judged("text.txt"), judged("text.txt", xla=True)
    assert compiled["loss"] == pytest.approx(found["loss"], abs=1e-6)


def test_nothing_is_left_in_the_folder_for_temporary_files(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place / "tmp"))
    judged("text.txt")
    with pytest.raises(BadDataError, match="byte 3"):
        (place / "bad.txt").write_bytes(b"caf\xe9")
        judged("bad.txt")
    assert list((place / "tmp").iterdir()) == []


def test_what_cannot_be_judged_is_refused(place: Path) -> None:
    (place / "empty.txt").write_text("")
    (place / "border.txt").write_text("<|endoftext|><|endoftext|>")
    with pytest.raises(BadDataError, match=r"empty\.txt: empty"):
        judged("empty.txt")
    with pytest.raises(BadDataError, match=r"border\.txt: there is no token to judge"):
        judged("border.txt")
    with pytest.raises(MissingInputError, match=r"nowhere\.txt"):
        judged("nowhere.txt")
    with pytest.raises(MissingInputError, match="models/large"):
        judged("text.txt", model_name="large")
    with pytest.raises(UsageError, match="--stride 33 is more than the model's window, 32"):
        judged("text.txt", stride=33)


def test_what_is_read_is_told_before_it_is_judged(place: Path) -> None:
    (place / "rows.csv").write_text("text,n\nthe first,1\n")
    config = EvaluateConfig(dataset=("rows.csv",), model_name="small", xla=False)
    notices = [str(record) for record in evaluate(config) if isinstance(record, Notice)]
    assert notices[0].startswith("rows.csv: ")


def train(steps: int) -> None:
    Path("corpus.txt").write_text("The cat sat on the mat, and the other cat sat there.\n" * 30)
    options: dict[str, Any] = {"model_name": "small", "seed": 1, "xla": False, "save_every": 1}
    options |= {"sample_every": 0, "val_every": 0, "accumulate_gradients": 1}
    list(finetune(FinetuneConfig(dataset=("corpus.txt",), steps=steps, **options)))


def test_the_result_names_the_checkpoint_that_was_loaded(place: Path) -> None:
    train(1)
    found = Notice("from checkpoint/run1/model-1")
    config = EvaluateConfig(dataset=("text.txt",), xla=False, format="jsonl")
    records = []
    for record in evaluate(config):
        records.append(record)
        if record == found:
            # The run goes on after its checkpoint was found, and removes it before it is loaded.
            train(2)
    assert found in records
    assert Notice("again, from checkpoint/run1/model-3") in records
    (result,) = [json.loads(record.text) for record in records if isinstance(record, Text)]
    assert result["checkpoint"] == "checkpoint/run1/model-3"
    again = [json.loads(r.text) for r in evaluate(config) if isinstance(r, Text)]
    assert again == [result]


def test_each_token_is_scored_as_the_oracle_scores_it(
    place: Path, tokens_of: Tokenizer, cli: Run
) -> None:
    ids, border = tokens_of.encode(TEXT), tokens_of.end_of_text
    for options in ((), ("--stride", 7)):
        done = cli("evaluate", "text.txt", "--model-name", "small", "--per-token", *options)
        assert done.returncode == 0, done.stderr
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert [each["id"] for each in found] == ids
        assert [each["position"] for each in found] == list(range(len(ids)))
        stride = options[1] if options else N_CTX // 2
        expected = plain_losses([border, *ids], int(stride), border)
        scores = [-each["log_probability"] for each in found]
        assert scores == pytest.approx(expected, abs=1e-4)
        assert f"loss={sum(expected) / len(expected):.4f} tokens={len(ids)}" in done.stderr
