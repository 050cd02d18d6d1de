"""generate as it is used: prompts, samples, ends, seeds, refusals."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2cli import json_reader, progress
from gpt2cli.commands.generate import Job, generate
from gpt2cli.config.generate import GenerateConfig
from gpt2cli.errors import BadDataError, MissingInputError, OutputError
from gpt2cli.inference.samples import Prompt, Sample
from gpt2cli.inference.sampling import SamplingParams
from gpt2cli.inference.writer import Writer
from gpt2cli.records import Alert, Progress, Text
from gpt2cli.text.tokenizer import Tokenizer, read_tokenizer
from tests import models, oracle
from tests.conftest import Run
from tests.inference.engines import ARRAYS, engine_of

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
    records = [str(r) for r in generate(GenerateConfig(model_name="small", length=4, xla=False))]
    seed = int(records[0].rsplit("seed ", 1)[1])
    assert texts(seed=seed, length=4) == records[1:]


def test_a_sample_ends_before_the_first_stop_text(place: Path) -> None:
    options: dict[str, Any] = {"prefix": (PROMPT,), "length": 20, "include_prefix": False}
    whole = texts(**options)[0].removesuffix("\n")
    expected = whole[: whole.index(whole[9:12])].removesuffix("\n") + "\n"
    assert texts(**options, stop=("never", whole[9:12])) == [expected]
    assert texts(**options, truncate=whole[9:12]) == [expected]


@pytest.mark.parametrize("how", [{"speculate": True}, {"batch_size": 7}, {"num_beams": 3}], ids=str)
def test_no_end_of_text_comes_among_the_first_tokens(place: Path, how: dict[str, Any]) -> None:
    sampled = {"beam_sample": True} if "num_beams" in how else {"nsamples": 40, "top_k": 260}
    options: dict[str, Any] = how | sampled | {"temperature": 5.0, "length": 30, "format": "jsonl"}

    def ends(**late: int) -> list[int]:
        prefixes = [f"{number}" for number in range(30 if "num_beams" in how else 1)]
        records = map(json.loads, texts(prefix=prefixes, **options, **late))
        return [len(one["tokens"]) for one in records if one["finish_reason"] == "end_of_text"]

    assert min(ends()) < 20
    assert 20 <= min(ends(min_length=20)) < 30


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
        generate(
            GenerateConfig(model_name="small", prefix=("x" * 50,), length=2, seed=1, xla=False)
        )
    )
    assert records[0] == Alert("prefix 1: 18 tokens are cut from its left.")
    assert isinstance(records[-1], Text)
    assert records[-1].text.startswith("x" * 50)


@pytest.mark.parametrize("prefix", ["", "\0\x01\x1b[2J", "é…👩", "<|endoftext|>", " ", "\n\n"])
def test_any_text_may_be_a_prefix(prefix: str, place: Path) -> None:
    (found,) = texts(prefix=(prefix,), length=3)
    assert found.startswith(prefix)


def test_tokens_and_probabilities_are_told_as_json(place: Path, tokens_of: Tokenizer) -> None:
    options: dict[str, Any] = {"prefix": (PROMPT, "é"), "length": 9, "nsamples": 2, "batch_size": 3}
    records = [json.loads(line) for line in texts(**options, format="jsonl", ignore_eos=True)]
    printed = texts(**options, ignore_eos=True, sample_delim="")
    weights = models.random_arrays(models.MINI)
    assert [(r["prompt"], r["sample"]) for r in records] == [
        (PROMPT, 0),
        (PROMPT, 1),
        ("é", 0),
        ("é", 1),
    ]
    for record, text in zip(records, printed, strict=True):
        new = tokens_of.decode_bytes(record["tokens"]).decode(errors="replace")
        assert (record["prompt"] + new).startswith(record["text"])
        assert record["text"].removesuffix("\n") + "\n" == text
        assert (record["finish_reason"], record["seed"]) == ("length", 1)
        tokens = tokens_of.encode(record["prompt"]) + record["tokens"]
        logits = oracle.logits(weights, models.MINI.n_head, tokens[:-1])
        expected = np.log(oracle.softmax(logits))[range(-9, 0), record["tokens"]]
        np.testing.assert_allclose(record["log_probabilities"], expected, atol=2e-5)
        assert record["log_probability"] == pytest.approx(expected.sum(), abs=1e-4)
        assert record["tokens_per_second"] == pytest.approx(9 / record["seconds"], rel=1e-3)


def test_the_reason_for_an_end_is_told(place: Path) -> None:
    options: dict[str, Any] = {"prefix": (PROMPT,), "include_prefix": False, "format": "jsonl"}
    (whole,) = texts(**options, length=20)
    text = json.loads(whole)["text"]
    (line,) = texts(**options, length=20, stop=(text[5:8],))
    record = json.loads(line)
    assert record["text"] == text[: text.index(text[5:8])]
    assert record["finish_reason"] == "stop"
    assert len(record["tokens"]) == len(record["log_probabilities"]) < 20


def streamed(**options: Any) -> list[str]:
    return texts(**options, stream=True)


@pytest.mark.parametrize("stop", [(), ("e",), ("\n\n", "a")])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_streamed_text_is_the_same_in_pieces(
    stop: tuple[str, ...], batch_size: int, place: Path
) -> None:
    options: dict[str, Any] = {
        "prefix": (PROMPT, "x"),
        "nsamples": 2,
        "length": 25,
        "stop": stop,
        "batch_size": batch_size,
    }
    pieces = streamed(**options)
    assert "".join(pieces) == "".join(texts(**options))
    assert len(pieces) > (20 if not stop else 8)


def test_a_bad_option_is_refused_before_anything_is_fetched(place: Path) -> None:
    with pytest.raises(OutputError, match="README exists"):
        (place / "README").write_text("mine")
        texts(model_name="124M", destination_path="README")
    with pytest.raises(BadDataError, match="line 1"):
        (place / "prompts").write_bytes(b"\xff")
        texts(model_name="124M", prompts="prompts")
    assert {p.name for p in place.iterdir()} == {"models", "README", "prompts"}
    assert (place / "README").read_text() == "mine"


def test_all_samples_go_to_one_file(place: Path) -> None:
    options: dict[str, Any] = {"prefix": ("a", PROMPT), "length": 5, "nsamples": 2}
    assert texts(**options, destination_path="out/all.txt") == []
    path = place / "out" / "all.txt"
    assert path.read_text(encoding="utf-8") == "".join(texts(**options))
    with pytest.raises(OutputError, match=r"out/all.txt exists"):
        texts(**options, destination_path="out/all.txt")
    texts(**options, destination_path="out/all.txt", overwrite=True, format="jsonl")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["prompt"] for line in lines] == ["a", "a", PROMPT, PROMPT]
    assert list((place / "out").iterdir()) == [path]


def test_a_folder_gets_new_files_each_time(place: Path) -> None:
    folder = place / "gen"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    options: dict[str, Any] = {"prefix": (PROMPT,), "length": 5, "nsamples": 2}
    for _ in range(2):
        assert texts(**options, nfiles=2) == []
    assert (folder / "mine.txt").read_text() == "mine"
    files = sorted(folder.glob("gentext_*_?.txt"))
    contents = [file.read_text(encoding="utf-8") for file in files]
    assert len(files) == 4
    assert contents[:2] == contents[2:]
    together = "".join(texts(**options | {"nsamples": 4}))
    assert contents[0] + "=" * 20 + "\n" + contents[1] == together
    texts(**options, folder="one")
    assert len(list((place / "one").iterdir())) == 1


@pytest.mark.parametrize(
    ("options", "draws"),
    [
        ({"temperature": 0.0}, False),
        ({"num_beams": 2}, False),
        ({"penalty_alpha": 0.6, "top_k": 4}, False),
        ({"num_beams": 2, "beam_sample": True}, True),
        ({}, True),
    ],
)
def test_files_of_which_none_is_drawn_hold_the_same_and_it_is_said(
    options: dict[str, Any], draws: bool, place: Path
) -> None:
    settings: dict[str, Any] = {"model_name": "small", "seed": 1, "length": 9, "ignore_eos": True}
    settings |= options
    records = list(generate(GenerateConfig(**settings, prefix=(PROMPT,), nfiles=3)))
    said = [str(each) for each in records if "the same text" in str(each)]
    assert len(said) == (0 if draws else 1)
    contents = {file.read_text(encoding="utf-8") for file in (place / "gen").iterdir()}
    assert len(contents) == (3 if draws else 1)
    one = generate(GenerateConfig(**settings, prefix=(PROMPT,), nfiles=1))
    assert not [each for each in one if "the same text" in str(each)]


def test_what_is_stopped_half_way_leaves_no_file(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Writer, "pop_warnings", lambda _self: next(iter(())))
    with pytest.raises(RuntimeError):
        texts(destination_path="new/file.txt", length=2)
    assert [p.name for p in place.iterdir()] == ["models"]


def test_beams_come_best_first_and_end_before_a_stop_text(place: Path) -> None:
    options: dict[str, Any] = {"prefix": (PROMPT, "x"), "num_beams": 4, "nsamples": 3, "length": 9}
    lines = texts(**options, format="jsonl", batch_size=2, ignore_eos=True)
    records = [json.loads(line) for line in lines]
    assert [(r["prompt"], r["sample"]) for r in records] == [
        (prompt, number) for prompt in (PROMPT, "x") for number in range(3)
    ]
    for three in (records[:3], records[3:]):
        sums = [record["log_probability"] for record in three]
        assert sums == sorted(sums, reverse=True)
        assert len({tuple(record["tokens"]) for record in three}) == 3
    three_prompts: dict[str, Any] = options | {"prefix": (PROMPT, "x", "a cat")}
    assert texts(**three_prompts, ignore_eos=True, batch_size=2) == texts(
        **three_prompts, ignore_eos=True
    )
    assert texts(**options, format="text", ignore_eos=True, include_prefix=False)[0] == (
        records[0]["text"].removeprefix(PROMPT).removesuffix("\n") + "\n"
    )
    new = records[0]["text"].removeprefix(PROMPT)
    options |= {"nsamples": 1, "include_prefix": False, "format": "jsonl", "stop": (new[3:5],)}
    record = json.loads(texts(**options, early_stopping=True)[0])
    assert new[3:5] not in record["text"]
    assert record["finish_reason"] == "stop"
    assert len(record["tokens"]) < 9


def test_beams_may_be_drawn(place: Path) -> None:
    options: dict[str, Any] = {"prefix": (PROMPT,), "num_beams": 3, "beam_sample": True}
    options |= {"temperature": 0.7, "top_k": 50, "no_repeat_ngram_size": 2, "length": 12}
    assert texts(**options, seed=1) == texts(**options, seed=1)
    assert texts(**options, seed=1) != texts(**options, seed=2)
    records = list(
        generate(
            GenerateConfig(
                model_name="small", seed=1, xla=False, nsamples=3, **options | {"top_k": 1}
            )
        )
    )
    assert "The filters leave too few texts: 2 repeat the best one." in map(str, records)


def test_contrastive_search_is_another_text_than_the_greedy_one(place: Path) -> None:
    options: dict[str, Any] = {"prefix": (PROMPT, "x"), "length": 20, "batch_size": 2}
    contrastive = texts(**options, penalty_alpha=0.8, top_k=6)
    assert contrastive != texts(**options, temperature=0.0)
    assert contrastive == texts(**options, penalty_alpha=0.8, top_k=6, seed=9)
    assert "".join(streamed(**options, penalty_alpha=0.8, top_k=6)) == "".join(contrastive)


def test_a_hundred_samples_use_one_program_and_one_cache(place: Path) -> None:
    import tensorflow as tf

    from gpt2cli.inference.tensorflow_engine import TensorFlowEngine

    made = []
    real = tf.Variable

    def counted(value: Any, **settings: Any) -> Any:
        made.append(value.shape)
        return real(value, **settings)

    traced = []
    graph = TensorFlowEngine._step_graph

    def watched(self: Any, *arguments: Any, **cache: Any) -> Any:
        traced.append(arguments[0].shape)
        return graph(self, *arguments, **cache)

    with pytest.MonkeyPatch.context() as patch:
        # Where there is no Numba, TensorFlow writes them.
        patch.setitem(sys.modules, "numba", None)
        patch.setattr(tf, "Variable", counted)
        patch.setattr(TensorFlowEngine, "_step_graph", watched)
        prefixes = ("a", "the cat sat", "b", "x" * 14, "c") * 4
        assert (
            len(texts(prefix=prefixes, nsamples=5, batch_size=4, length=4, ignore_eos=True)) == 100
        )
    # Two of one layer for a cache; the weights are variables, too.
    assert len(made) == 2 + len(models.MINI.shapes())
    assert len(traced) == 1


def test_a_prefix_that_is_no_text_is_refused(place: Path) -> None:
    with pytest.raises(BadDataError, match=r"--prefix: byte 4 of it \(0xe9\) is not UTF-8"):
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
    assert cli(*arguments, "--temperature", "0", "--top-k", 5, "-q").stderr == ""


def test_samples_are_planned_batch_by_batch(tokens_of: Tokenizer) -> None:
    config = GenerateConfig(model_name="small", nsamples=10**12, batch_size=3)
    writer = Writer(engine_of("cpu"), tokens_of, params=SamplingParams())
    prompt = Prompt(number=0, text="a", tokens=[1], length=9)
    job = Job(config=config, prompts=[prompt], tokenizer=tokens_of, writer=writer)
    found = itertools.islice(job.batches(5), 2)
    assert [[sample.number for sample in some] for some in found] == [[5, 6, 7], [8, 9, 10]]


def test_a_model_that_has_diverged_gives_json_too(tokens_of: Tokenizer) -> None:
    broken = {name: array * np.float32(1e38) for name, array in ARRAYS.items()}
    writer = Writer(engine_of("cpu", broken), tokens_of, params=SamplingParams())
    sample = Sample(Prompt(number=0, text="a", tokens=[1], length=3), 0, tokens_of)
    assert len(list(writer.grow([sample]))) == 3
    facts = json_reader.parse(sample.record(), "the record", dict)
    assert (facts["log_probabilities"], facts["log_probability"]) == ([None] * 3, None)


@pytest.mark.parametrize("where", ["a file", "stdout"])
def test_how_far_it_is_is_told_where_the_text_is_not_seen(
    where: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    more: dict[str, Any] = {"destination_path": "out.txt"} if where == "a file" else {}
    options: dict[str, Any] = {
        "model_name": "small",
        "length": 2,
        "nsamples": 2,
        "ignore_eos": True,
    }
    lines = [str(r) for r in generate(GenerateConfig(**options | more)) if isinstance(r, Progress)]
    assert lines == [
        "writing 0 of 2 samples: token 1",
        "writing 0 of 2 samples: token 2",
        "writing 1 of 2 samples",
        "writing 1 of 2 samples: token 1",
        "writing 1 of 2 samples: token 2",
        "writing 2 of 2 samples",
    ]
    more |= {"overwrite": True} if more else {"stream": True}
    shown = generate(GenerateConfig(**options | more, quiet=bool(more.get("overwrite"))))
    assert not [record for record in shown if isinstance(record, Progress)]
