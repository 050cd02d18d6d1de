"""generate as it is used: prompts, samples, ends, seeds, refusals."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from gpt2cli.commands.generate import generate
from gpt2cli.config.generate import GenerateConfig
from gpt2cli.errors import BadDataError, MissingInputError
from gpt2cli.records import Notice, Text
from gpt2cli.text.tokenizer import Tokenizer, read_tokenizer
from tests import models, oracle
from tests.conftest import Run

PROMPT = "the cat "


@pytest.fixture
def place(tmp_path: Path, mini_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with `models/small`."""
    shutil.copytree(mini_model, tmp_path / "models" / "small")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def texts(**options: Any) -> list[str]:
    """Generates from models/small in this process; returns the samples as they are printed."""
    settings: dict[str, Any] = {"model_name": "small", "seed": 1, "xla": False}
    config = GenerateConfig(**settings | options)
    return [record.text for record in generate(config) if isinstance(record, Text)]


@pytest.fixture(scope="session")
def tokens_of(mini_model: Path) -> Tokenizer:
    return read_tokenizer(mini_model / "encoder.json", mini_model / "vocab.bpe")


def greedy(tokenizer: Tokenizer, prompt: str, length: int) -> list[int]:
    weights = models.random_arrays(models.MINI)
    return oracle.greedy(weights, models.MINI.n_head, tokenizer.encode(prompt), length)


def test_the_greedy_text_is_the_oracles(place: Path, tokens_of: Tokenizer) -> None:
    (found,) = texts(prefix=(PROMPT,), temperature=0.0, length=12, ignore_eos=True)
    assert found == PROMPT + tokens_of.decode(greedy(tokens_of, PROMPT, 12)) + "\n"


def test_the_prefix_may_be_left_out(place: Path) -> None:
    (whole,) = texts(prefix=(PROMPT,), length=8)
    assert texts(prefix=(PROMPT,), length=8, include_prefix=False) == [whole.removeprefix(PROMPT)]


def test_samples_of_every_prompt_come_in_order_whatever_the_batch(place: Path) -> None:
    options: dict[str, Any] = {"prefix": ("a", "the cat sat"), "nsamples": 3, "length": 9}
    single = texts(**options)
    assert [text.removeprefix("=" * 20 + "\n")[0] for text in single] == list("aaattt")
    assert all(text.startswith("=" * 20 + "\n") for text in single[1:])
    assert len(set(single)) == 6
    for batch_size in (2, 4, 6):
        assert texts(**options, batch_size=batch_size) == single


def test_seeds_decide_and_their_absence_is_told(place: Path) -> None:
    assert texts(seed=5, length=10) == texts(seed=5, length=10)
    assert texts(seed=5, length=10) != texts(seed=6, length=10)
    records = [str(r) for r in generate(GenerateConfig(model_name="small", length=4))]
    seed = int(records[0].rsplit("seed ", 1)[1])
    assert texts(seed=seed, length=4) == records[1:]


def test_a_sample_ends_before_the_first_stop_text(place: Path) -> None:
    options: dict[str, Any] = {"prefix": (PROMPT,), "length": 20, "include_prefix": False}
    whole = texts(**options)[0].removesuffix("\n")
    expected = whole[: whole.index(whole[9:12])].removesuffix("\n") + "\n"
    assert texts(**options, stop=("never", whole[9:12])) == [expected]
    assert texts(**options, truncate=whole[9:12]) == [expected]


def test_a_stop_text_is_found_wherever_the_borders_of_tokens_are(tokens_of: Tokenizer) -> None:
    from gpt2cli.commands.generate import Prompt, Row

    text = "the weather, their other feather"
    for start in range(len(text) - 3):
        stop = text[start : start + 3]
        config = GenerateConfig(model_name="small", stop=("never", stop), length=100)
        row = Row(Prompt(0, "", [1]), 0, config, tokens_of, n_ctx=32)
        for token in tokens_of.encode(text):
            row.add(token)
        assert row.done
        assert row.text == text[: text.index(stop)]


def test_end_of_text_ends_a_sample_unless_told_otherwise(place: Path, tokens_of: Tokenizer) -> None:
    from gpt2cli.commands.generate import Prompt, Row

    for ignore, expected in ((False, "a"), (True, "a<|endoftext|>b")):
        config = GenerateConfig(model_name="small", ignore_eos=ignore, length=3)
        row = Row(Prompt(0, "", [1]), 0, config, tokens_of, n_ctx=32)
        for token in (*tokens_of.encode("a"), tokens_of.end_of_text, *tokens_of.encode("b")):
            row.add(token)
        assert row.done
        assert row.text == expected


def test_a_character_cut_by_the_length_becomes_a_replacement(tokens_of: Tokenizer) -> None:
    from gpt2cli.commands.generate import Prompt, Row

    config = GenerateConfig(model_name="small", length=2)
    row = Row(Prompt(0, "", [1]), 0, config, tokens_of, n_ctx=32)
    for token in tokens_of.encode("é…")[:2]:
        row.add(token)
    assert row.text == "é"
    row = Row(Prompt(0, "", [1]), 0, config, tokens_of, n_ctx=32)
    for token in tokens_of.encode("…")[:2]:
        assert row.text == ""
        row.add(token)
    assert row.text == "\ufffd"


def test_without_a_length_the_window_is_filled(place: Path, tokens_of: Tokenizer) -> None:
    options: dict[str, Any] = {"temperature": 0.0, "ignore_eos": True, "include_prefix": False}
    (found,) = texts(prefix=(PROMPT,), **options)
    left = models.MINI.n_ctx - len(tokens_of.encode(PROMPT))
    assert found == tokens_of.decode(greedy(tokens_of, PROMPT, left)).removesuffix("\n") + "\n"


def test_more_tokens_than_the_window_are_written(place: Path, tokens_of: Tokenizer) -> None:
    (found,) = texts(length=100, ignore_eos=True, temperature=2.0)
    assert len(tokens_of.encode(found)) > 60


def test_a_prompt_longer_than_the_window_is_cut_from_the_left_and_it_is_said(place: Path) -> None:
    records = list(
        generate(GenerateConfig(model_name="small", prefix=("x" * 50,), length=2, seed=1))
    )
    assert records[0] == Notice("prefix 1: 18 tokens are cut from its left.")
    assert isinstance(records[-1], Text)
    assert records[-1].text.startswith("x" * 50)


@pytest.mark.parametrize("prefix", ["", "\0\x01\x1b[2J", "é…👩", "<|endoftext|>", " ", "\n\n"])
def test_any_text_may_be_a_prefix(prefix: str, place: Path) -> None:
    (found,) = texts(prefix=(prefix,), length=3)
    assert found.startswith(prefix)


def test_half_a_character_as_prefix_is_refused(place: Path) -> None:
    with pytest.raises(BadDataError, match=r"U\+DCE9"):
        texts(prefix=("caf\udce9",))


def test_what_is_not_there_is_named(place: Path) -> None:
    with pytest.raises(MissingInputError, match=r"models/large; models holds small"):
        texts(model_name="large")
    with pytest.raises(MissingInputError, match="checkpoint/run1"):
        texts(model_name=None)


def test_the_command_writes_nothing_but_text_to_stdout(cli: Run, place: Path) -> None:
    arguments = ["generate", "--model-name", "small", "--prefix", "the", "--length", 8, "--seed", 3]
    done = cli(*arguments)
    assert done.returncode == 0
    assert done.stdout == texts(prefix=("the",), length=8, seed=3)[0]
    assert done.stderr == "from models/small/model.ckpt, seed 3\n"
    assert cli(*arguments, "--temperature", "0", "--top-k", 5, "-q").stderr == (
        "from models/small/model.ckpt, seed 3\n"
    )
