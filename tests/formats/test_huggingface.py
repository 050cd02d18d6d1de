"""A Hugging Face folder: what the library safetensors reads in it, its config and its card."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2cli import vocabulary
from gpt2cli.formats import huggingface
from gpt2cli.formats.model import Model
from gpt2cli.special_tokens import Specials
from gpt2cli.storage.state import State
from tests import models
from tests.formats.conftest import Export

safetensors = pytest.importorskip("safetensors.numpy", reason="needs the extra `interop`")


def expected(arrays: dict[str, Any]) -> dict[str, Any]:
    """Returns the weights as transformers names and shapes them; written without gpt2cli's code."""
    renamed = {}
    for name, array in arrays.items():
        dotted = re.sub(r"/h(\d+)/", r"/h/\1/", name).replace("model/", "transformer/")
        dotted = re.sub(r"/(w|g)$", "/weight", re.sub(r"/b$", "/bias", dotted))
        dotted = re.sub(r"/(wte|wpe)$", r"/\1/weight", dotted).replace("/", ".")
        renamed[dotted] = array[0] if array.ndim == 3 else array
    return renamed


def test_the_library_reads_every_weight_as_it_was(exported: Export) -> None:
    found = safetensors.load_file(exported("out") / "model.safetensors")
    wanted = expected(models.random_arrays(models.SMALL))
    assert found.keys() == wanted.keys()
    assert len(found) == 12 * models.SMALL.n_layer + 4
    assert "transformer.h.2.attn.c_attn.weight" in found
    for name, array in wanted.items():
        assert found[name].dtype == np.float32
        assert np.array_equal(found[name], array), name


def test_float16_is_the_nearest_and_half_the_size(exported: Export) -> None:
    folder = exported("out", precision="float16")
    found = safetensors.load_file(folder / "model.safetensors")
    for name, array in expected(models.random_arrays(models.SMALL)).items():
        assert found[name].dtype == np.float16
        assert np.array_equal(found[name], array.astype(np.float16)), name
    assert json.loads((folder / "config.json").read_text())["torch_dtype"] == "float16"
    assert (folder / "model.safetensors").stat().st_size < 2.2 * models.SMALL.count()


def test_the_folder_holds_config_and_vocabulary(exported: Export, small_model: Path) -> None:
    folder = exported("out")
    assert sorted(path.name for path in folder.iterdir()) == [
        *(
            ".gpt2cli-export.json",
            "README.md",
            "config.json",
            "generation_config.json",
            "merges.txt",
        ),
        *("model.safetensors", "tokenizer_config.json", "vocab.json"),
    ]
    assert (folder / "vocab.json").read_bytes() == (small_model / "encoder.json").read_bytes()
    assert (folder / "merges.txt").read_bytes() == (small_model / "vocab.bpe").read_bytes()
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["GPT2LMHeadModel"]
    names = ("vocab_size", "n_positions", "n_ctx", "n_embd", "n_layer", "n_head", "eos_token_id")
    assert [config[name] for name in names] == [260, 32, 32, 32, 3, 4, 259]


def test_the_card_says_how_it_was_trained_and_nothing_private(tmp_path: Path) -> None:
    state = State(step=1200, seed=1, model_name="355M").after(2.0, 5)
    state = dataclasses.replace(state, best_step=1000, best_loss=1.5, val_step=1201, val_loss=1.75)
    words = vocabulary.Vocabulary(
        tokens={},
        pairs=[],
        specials=Specials(added={}, end=0, ends=(0,)),
        encoder=b"{}",
        merges=b"",
    )
    model = Model(
        name="355M",
        folder=tmp_path,
        prefix=tmp_path / "model-1201",
        hparams=models.SMALL,
        vocabulary=words,
        state=state,
        settings={
            "learning_rate": 1e-4,
            "dataset": ["/home/ada/diary.txt"],
            "checkpoint_dir": "/home/ada",
        },
    )
    card = huggingface.card(model)
    assert "base_model: openai-community/gpt2-medium\n" in card
    assert "# GPT-2 355M, fine-tuned for 1,201 steps\n" in card
    assert "| training loss, moving average (nats per token) | 2.0000 |\n" in card
    assert "| validation loss (nats per token) | 1.7500 |\n" in card
    # Another step's loss is not this model's.
    assert "1.5" not in card
    later = dataclasses.replace(model, state=dataclasses.replace(state, val_step=1000))
    assert "validation loss" not in huggingface.card(later)
    assert "| learning rate | 0.0001 |\n" in card
    assert "ada" not in card
    assert str(tmp_path) not in card
