"""generate with speculation: the same texts as ever, the index of the corpus, and without it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2cli import progress
from gpt2cli.commands.finetune import finetune
from gpt2cli.commands.generate import generate
from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.config.generate import GenerateConfig
from gpt2cli.errors import BadDataError, MissingInputError, UsageError
from gpt2cli.files import paths
from gpt2cli.records import Notice, Progress, Text
from gpt2cli.storage import checkpoint
from gpt2cli.text import corpus_index
from tests import models

TEXT = "".join(f"{n}. The cat sat on the mat, and the other cat sat there.\n" for n in range(60))
PROMPT = "7. The cat sat on"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, mini_model: Path) -> Path:
    """A folder with a run that has learned a little of a text."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text.txt").write_text(TEXT)
    config = FinetuneConfig(
        dataset=(str(folder / "text.txt"),),
        model_name=str(mini_model),
        checkpoint_dir=str(folder / "checkpoint"),
        steps=60,
        accumulate_gradients=1,
        batch_size=4,
        learning_rate=1e-2,
        sample_every=0,
        val_fraction=0.0,
        seed=1,
        xla=False,
    )
    for _ in finetune(config):
        pass
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run, in the current directory."""
    shutil.copytree(trained / "checkpoint", tmp_path / "checkpoint")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "checkpoint" / "run1"


def generated(**options: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns the samples' records, and the notices but for the first, which names the source."""
    settings: dict[str, Any] = {"prefix": (PROMPT,), "temperature": 0.0, "length": 100, "seed": 1}
    records = list(generate(GenerateConfig(format="jsonl", device="cpu", **settings | options)))
    samples = [json.loads(record.text) for record in records if isinstance(record, Text)]
    return samples, [str(record) for record in records if isinstance(record, Notice)][1:]


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    names = ("text", "tokens", "log_probabilities", "finish_reason")
    return all(one[name] == other[name] for name in names)


def test_the_index_of_the_corpus_is_kept_in_the_run_and_saves_passes(run: Path) -> None:
    (plain,), _ = generated(speculate=False)
    assert (plain["passes"], plain["accepted"]) == (100, 0)
    assert list(run.glob("tokens-*.index")) == []
    (found,), notices = generated()
    assert notices == []
    assert same(found, plain)
    assert found["passes"] + found["accepted"] == 100
    assert found["accepted"] > 20
    (index,) = run.glob("tokens-*.index")
    before = index.stat().st_mtime_ns
    (found,), _ = generated(temperature=0.7, top_k=5)
    (plain,), _ = generated(temperature=0.7, top_k=5, speculate=False)
    assert same(found, plain)
    assert index.stat().st_mtime_ns == before


@pytest.mark.usefixtures("run")
def test_progress_counts_tokens_and_not_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    config = GenerateConfig(prefix=(PROMPT,), temperature=0, length=100, seed=1, device="cpu")
    told = [str(record) for record in generate(config) if isinstance(record, Progress)]
    assert "writing 0 of 1 samples: token 100" in told
    assert len(told) < 90


def test_samples_side_by_side_speculate_if_asked(run: Path) -> None:
    options: dict[str, Any] = {"prefix": (PROMPT, "the mat"), "nsamples": 2, "temperature": 0.5}
    plain, _ = generated(**options, batch_size=4)
    assert all(sample["accepted"] == 0 for sample in plain)
    found, _ = generated(**options, batch_size=4, speculate=True)
    assert all(map(same, found, plain))
    assert any(sample["accepted"] for sample in found)


@pytest.mark.parametrize("damage", ["gone", "damaged", "another text", "no writing"])
def test_without_an_index_the_text_is_looked_up_in_itself_and_it_is_said(
    run: Path, damage: str
) -> None:
    (tokens,) = run.glob("*.u16")
    expected, _ = generated(speculate=False, nsamples=2)
    if damage == "gone":
        tokens.unlink()
    elif damage == "damaged":
        content = tokens.read_bytes()
        tokens.write_bytes(content[:6] + b"??" + content[8:])
    elif damage == "another text":
        tokens.write_bytes(b"\1\2" * 500)
    else:
        # What cannot be replaced, whoever writes.
        tokens.with_suffix(".index").mkdir()
    found, notices = generated(nsamples=2)
    assert all(map(same, found, expected))
    (notice,) = notices
    assert notice.startswith("What may follow is looked up in the text only. ")
    assert tokens.stem in notice


def test_speculation_and_searches_contradict_each_other() -> None:
    with pytest.raises(UsageError, match="--speculate and --num-beams contradict"):
        GenerateConfig(speculate=True, num_beams=3)
    with pytest.raises(UsageError, match="--speculate and --penalty-alpha contradict"):
        GenerateConfig(speculate=True, penalty_alpha=0.6, top_k=4)
    assert not GenerateConfig(num_beams=3).speculates
    assert not GenerateConfig(batch_size=2).speculates
    assert GenerateConfig().speculates


def test_a_large_corpus_is_indexed_only_if_asked(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_index, "MOST_IN_PASSING", 100)
    (plain,), _ = generated(speculate=False)
    (found,), notices = generated()
    assert same(found, plain)
    assert len(notices) == 1
    assert "--speculate does it, once." in notices[0]
    assert list(run.glob("tokens-*.index")) == []
    for options in ({"speculate": True}, {}):
        (found,), notices = generated(**options)
        assert same(found, plain)
        assert (notices, len(list(run.glob("tokens-*.index")))) == ([], 1)


@pytest.fixture
def deep(run: Path) -> Path:
    """A model that computes what the run's does, in twelve layers, eleven of which add nothing."""
    newest = paths.newest(run)
    assert newest is not None
    small = checkpoint.load(newest, models.MINI.shapes())
    hparams = dataclasses.replace(models.MINI, n_layer=12)
    weights = {name: np.zeros(shape, np.float32) for name, shape in hparams.shapes().items()}
    folder = models.write_description(run.parent.parent / "deep", hparams)
    checkpoint.save(folder / "model.ckpt", weights | dict(small))
    (folder / "checkpoint").write_text('model_checkpoint_path: "model.ckpt"\n')
    return folder


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_smaller_model_guesses(deep: Path, temperature: float) -> None:
    options: dict[str, Any] = {"model_name": str(deep), "temperature": temperature, "length": 29}
    (plain,), _ = generated(**options, speculate=False)
    (found,), _ = generated(**options, draft_model="checkpoint/run1")
    assert same(found, plain)
    assert found["accepted"] > 10


def test_a_smaller_model_of_another_vocabulary_is_refused(deep: Path) -> None:
    with pytest.raises(BadDataError, match=r"--draft-model tiny has other tokens than .*deep"):
        generated(model_name=str(deep), draft_model="tiny")
    wider = models.write_model(deep.parent / "wider", dataclasses.replace(models.MINI, n_vocab=270))
    for name in ("encoder.json", "vocab.bpe"):
        (wider / name).write_bytes((deep / name).read_bytes())
    with pytest.raises(BadDataError, match="other tokens"):
        generated(model_name=str(wider), draft_model=str(deep))
    # All of that is known before the large model is loaded, which would show its damage.
    data = deep / "model.ckpt.data-00000-of-00001"
    data.write_bytes(bytes(data.stat().st_size))
    with pytest.raises(BadDataError, match=r"damaged|checksum"):
        generated(model_name=str(deep))
    with pytest.raises(MissingInputError, match="elsewhere"):
        generated(model_name=str(deep), draft_model="elsewhere", offline=True)


@pytest.mark.parametrize(
    ("option", "settings"),
    [
        ("--no-speculate", {"speculate": False}),
        ("--batch-size above 1", {"batch_size": 2}),
        ("--num-beams", {"num_beams": 2}),
        ("--penalty-alpha", {"penalty_alpha": 0.6, "top_k": 4}),
        ("--compare", {"compare": ("greedy",)}),
    ],
)
def test_a_smaller_model_and_what_it_cannot_help_contradict_each_other(
    option: str, settings: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match=f"{option}.* contradict|--draft-model and {option}"):
        GenerateConfig(draft_model="tiny", **settings)


@pytest.mark.slow
def test_tensorflow_speculates_for_a_single_text_if_asked(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    (plain,), _ = generated()
    assert (plain["passes"], plain["accepted"]) == (100, 0)
    (found,), _ = generated(speculate=True)
    assert found["tokens"] == plain["tokens"]
    assert found["accepted"] > 20
    several, (notice,) = generated(speculate=True, nsamples=2, batch_size=2)
    assert notice.startswith("--speculate does nothing with --batch-size 2")
    assert [sample["accepted"] for sample in several] == [0, 0]
    assert several[0]["tokens"] == plain["tokens"]
