"""Texts with and without speculation: the same tokens and log-probabilities, to the bit."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from gpt2cli.hparams import HParams
from gpt2cli.inference import decode
from gpt2cli.inference.cpu.engine import CPUEngine
from gpt2cli.inference.drafts import Drafter
from gpt2cli.inference.engine import Engine
from gpt2cli.inference.model_drafts import ModelDrafter
from gpt2cli.inference.samples import Prompt, Sample
from gpt2cli.inference.sampling import SamplingParams
from gpt2cli.inference.speculation import Drafts, Text, speculate
from gpt2cli.inference.writer import Writer
from gpt2cli.text.corpus_index import CorpusIndex, ordered_positions
from gpt2cli.text.tokenizer import Tokenizer, read_tokenizer
from tests import models
from tests.marks import few

Written = list[list[tuple[int, float]]]
LENGTH = 60
PRECISIONS = ("float32", "int8", "bfloat16", "float16")
# Costs of passes by which long drafts pay, so that many are tried.
CHEAP = (1.0, 1.2, 1.4, 1.6, 1.8)
# The shape of GPT-2's layers, but one.
WIDE = HParams(n_vocab=300, n_ctx=64, n_embd=768, n_head=12, n_layer=1)
# All filters, by themselves and together.
PARAMS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.7},
    {"temperature": 0},
    {"temperature": 0.5, "repetition_penalty": 1.3},
    {"temperature": 0.6, "no_repeat_ngram_size": 3},
    {"temperature": 0, "no_repeat_ngram_size": 4, "repetition_penalty": 0.8},
    # Of several texts some are beyond these tokens while others are not.
    {"temperature": 0.6, "min_length": 25, "ends": tuple(range(60))},
    {"top_k": 5},
    {"top_p": 0.6},
    {"min_p": 0.2},
    {"typical_p": 0.5, "temperature": 0.8},
    {"temperature": 0.3, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.1},
)


def new_engine(precision: str = "float32", hparams: HParams = models.SMALL) -> CPUEngine:
    return CPUEngine(models.random_arrays(hparams, deviation=0.15).items(), hparams, precision)


def index_of(tokens: list[int]) -> CorpusIndex:
    array = np.array(tokens, np.uint16)
    return CorpusIndex(array, np.concatenate([*ordered_positions(array), np.zeros(0, np.uint32)]))


def one_by_one(
    engine: Engine, params: SamplingParams, prompts: list[list[int]], seed: int
) -> Written:
    """Returns each prompt's new tokens with their log-probabilities, decoded in one batch."""
    streams = [decode.random_stream(seed, 0, number) for number in range(len(prompts))]
    steps = decode.tokens(engine, params, prompts, streams, LENGTH)
    pairs = [zip(step.tokens, step.log_probabilities, strict=True) for step in steps]
    return [list(row) for row in zip(*pairs, strict=True)]


def speculated(
    engine: Engine,
    params: SamplingParams,
    prompts: list[list[int]],
    seed: int,
    drafter: Drafts,
) -> tuple[Written, int]:
    """Returns the same by way of drafts, and the number of passes."""
    streams = [decode.random_stream(seed, 0, number) for number in range(len(prompts))]
    texts = [Text(*pair, LENGTH) for pair in zip(prompts, streams, strict=True)]
    written: Written = [[] for _ in prompts]
    passes = 0
    for _ in speculate(engine, params, drafter, texts):
        passes += 1
        for row, text in zip(written, texts, strict=True):
            row += text.new
    return written, passes


def spoilt(tokens: list[int], noise: np.random.Generator) -> list[int]:
    """Returns tokens with some wrong ones, a few of which the model has not."""
    return [int(noise.integers(0, 300)) if noise.random() < 0.1 else token for token in tokens]


def compare(engine: Engine, seeds: range) -> float:
    """Asserts that texts are the same with and without; returns tokens a pass."""
    tokens, passes = 0, 0
    for seed in seeds:
        noise, params = np.random.default_rng(seed), SamplingParams(**PARAMS[seed % len(PARAMS)])
        rows = 1 if seed % 3 or engine.fixed_rows else 1 + seed % 4
        prompts = [noise.integers(0, 260, noise.integers(1, 20)).tolist() for _ in range(rows)]
        expected = one_by_one(engine, params, prompts, seed)
        corpus = spoilt([token for row in expected for token, _ in row] * 2, noise)
        drafter = Drafter(index_of(corpus) if seed % 5 else None, engine.hparams.n_vocab, CHEAP)
        found, count = speculated(engine, params, prompts, seed, drafter)
        if isinstance(engine, CPUEngine):
            assert found == expected, seed
        for row, other in zip(found, expected, strict=True):
            assert [token for token, _ in row] == [token for token, _ in other], seed
            np.testing.assert_allclose(row, other, rtol=1e-4, atol=1e-4)
        tokens, passes = tokens + LENGTH, passes + count
    return tokens / passes


@pytest.mark.parametrize("precision", few(PRECISIONS, 2))
def test_the_texts_are_the_same_to_the_bit(precision: str) -> None:
    assert compare(new_engine(precision), range(10)) > 1.5


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_hundred_texts_are_the_same_to_the_bit(precision: str) -> None:
    assert compare(new_engine(precision), range(1000, 1100)) > 1.5


@pytest.mark.usefixtures("tensorflow")
@pytest.mark.parametrize(
    "seeds", [range(3), pytest.param(range(1000, 1100), marks=pytest.mark.slow)], ids=len
)
def test_tensorflows_engine_writes_the_same_tokens(seeds: range) -> None:
    from gpt2cli.inference.tensorflow_engine import TensorFlowEngine

    arrays = models.random_arrays(models.SMALL, deviation=0.15)
    assert compare(TensorFlowEngine(arrays, models.SMALL), seeds) > 1.5


def smaller(kind: str) -> CPUEngine:
    """Returns a model that is nearly the large one, that one with a short window, or another."""
    arrays, hparams = models.random_arrays(models.SMALL, deviation=0.15), models.SMALL
    if kind == "near":
        noise = np.random.default_rng(1)
        for name, array in arrays.items():
            arrays[name] = (array * noise.normal(1, 0.03, array.shape)).astype(np.float32)
    elif kind == "short":
        hparams = dataclasses.replace(hparams, n_ctx=9)
        arrays["model/wpe"] = arrays["model/wpe"][:9]
    else:
        arrays = models.random_arrays(hparams, seed=5, deviation=0.15)
    return CPUEngine(arrays.items(), hparams)


@pytest.mark.parametrize(("kind", "most"), few([("near", 0.85), ("short", 0.9), ("wrong", 1.0)], 2))
def test_a_smaller_model_guesses_and_the_text_is_the_same_to_the_bit(
    kind: str, most: float
) -> None:
    engine = new_engine()
    # As long drafts as there is room for, if they are right.
    drafter = ModelDrafter(smaller(kind), 0.01, (1.0, 1.0))
    tokens = passes = 0
    for seed, settings in enumerate(PARAMS[::2]):
        params = SamplingParams(**settings)
        prompt = np.random.default_rng(seed).integers(0, 260, 1 + 3 * seed).tolist()
        found, count = speculated(engine, params, [prompt], seed, drafter)
        assert found == one_by_one(engine, params, [prompt], seed)
        tokens, passes = tokens + LENGTH, passes + count
    assert passes / tokens <= most


@pytest.mark.slow
@pytest.mark.usefixtures("tensorflow")
def test_a_smaller_model_guesses_on_tensorflow_too() -> None:
    from gpt2cli.inference.tensorflow_engine import TensorFlowEngine

    arrays = models.random_arrays(models.MINI, deviation=0.15)
    engine, small = (TensorFlowEngine(arrays, models.MINI) for _ in range(2))
    params = SamplingParams(temperature=0.7)
    found, passes = speculated(engine, params, [[7, 8]], 3, ModelDrafter(small, 0.1, CHEAP))
    expected = one_by_one(engine, params, [[7, 8]], 3)
    assert [token for token, _ in found[0]] == [token for token, _ in expected[0]]
    assert passes <= LENGTH / 2


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("hparams", [models.SMALL, WIDE], ids=["small", "wide"])
def test_tokens_taken_in_at_once_have_the_bits_of_one_after_another(
    precision: str, hparams: HParams
) -> None:
    engine, other = new_engine(precision, hparams), new_engine(precision, hparams)
    for each in (engine, other):
        each.make_room(3, 5, 27)
        each.prefill([[7, 100, 3, 42, 250], [5], [9, 8, 7]])
    noise = np.random.default_rng(0)
    for counts in ((1, 1, 1), (4, 1, 1), (0, 2, 0), (1, 13, 9), (5, 0, 1)):
        rows = [noise.integers(0, 260, count).tolist() for count in counts]
        together = engine.logits(engine.extend(rows))
        # Another engine takes them in one by one, and what is taken back leaves no trace.
        single: list[list[Any]] = [[], [], []]
        for place in range(max(counts)):
            tokens = [row[place : place + 1] for row in rows]
            found = iter(other.logits(other.extend(tokens)))
            for scores, token in zip(single, tokens, strict=True):
                scores += [next(found) for _ in token]
        np.testing.assert_array_equal(together, np.stack([one for row in single for one in row]))
        engine.extend([[1, 2, 3], [], [4]])
        engine.drop([3, 0, 1])


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = models.write_description(tmp_path_factory.mktemp("vocabulary"))
    return read_tokenizer(folder / "encoder.json", folder / "vocab.bpe")


def records(
    tokenizer: Tokenizer, seed: int, drafter: Drafter | None, **settings: Any
) -> list[dict[str, Any]]:
    """Returns the records of samples side by side, without what may differ."""
    prompts = [
        Prompt(number=n, text=text, tokens=tokenizer.encode(text), seed=seed, **settings)
        for n, text in enumerate(("one the", "two", "the other"))
    ]
    samples = [Sample(prompt, 0, tokenizer) for prompt in prompts]
    params = SamplingParams(temperature=0.4)
    writer = Writer(new_engine(), tokenizer, params=params, drafter=drafter)
    for _ in writer.grow(samples):
        pass
    found = []
    for sample in samples:
        record = json.loads(sample.record())
        assert record["passes"] + record["accepted"] == len(record["tokens"])
        assert bool(record["accepted"]) <= (drafter is not None)
        for name in ("seconds", "tokens_per_second", "passes", "accepted"):
            del record[name]
        found.append(record)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_stop_texts_and_lengths_and_the_end_of_a_text_are_where_they_were(
    tokenizer: Tokenizer, seed: int
) -> None:
    whole = records(tokenizer, seed, None, length=LENGTH, ignore_end=True)
    corpus = [token for record in whole for token in record["tokens"]] * 2
    stop = whole[0]["text"][20:22]
    settings: tuple[dict[str, Any], ...] = (
        {"length": LENGTH},
        {"length": 17},
        {"length": LENGTH, "stops": (stop,), "ignore_end": True},
    )
    for each in settings:
        drafter = Drafter(index_of(corpus), models.SMALL.n_vocab, CHEAP)
        assert records(tokenizer, seed, drafter, **each) == records(tokenizer, seed, None, **each)
