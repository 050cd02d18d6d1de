"""Hugging Face folders as models: written by hand here, and refused where they are none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2cli.config.export import ExportConfig
from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.config.generate import GenerateConfig
from gpt2cli.errors import BadDataError, Gpt2cliError, MissingInputError
from gpt2cli.storage import huggingface, safetensors
from gpt2cli.text.tokenizer import read_tokenizer
from tests import foreign_models, models
from tests.sources import fetched_for, source_of

CONFIG = {
    "model_type": "gpt2", "vocab_size": 260, "n_positions": 32, "n_embd": 16, "n_head": 2,
    "n_layer": 1,
}  # fmt: skip
# As openai-community/gpt2 has them: without a prefix, and with the buffers of masks.
NAMES = {
    "wte.weight": "model/wte", "wpe.weight": "model/wpe",
    "h.0.ln_1.weight": "model/h0/ln_1/g", "h.0.ln_1.bias": "model/h0/ln_1/b",
    "h.0.attn.c_attn.weight": "model/h0/attn/c_attn/w",
    "h.0.attn.c_attn.bias": "model/h0/attn/c_attn/b",
    "h.0.attn.c_proj.weight": "model/h0/attn/c_proj/w",
    "h.0.attn.c_proj.bias": "model/h0/attn/c_proj/b",
    "h.0.ln_2.weight": "model/h0/ln_2/g", "h.0.ln_2.bias": "model/h0/ln_2/b",
    "h.0.mlp.c_fc.weight": "model/h0/mlp/c_fc/w", "h.0.mlp.c_fc.bias": "model/h0/mlp/c_fc/b",
    "h.0.mlp.c_proj.weight": "model/h0/mlp/c_proj/w",
    "h.0.mlp.c_proj.bias": "model/h0/mlp/c_proj/b",
    "ln_f.weight": "model/ln_f/g", "ln_f.bias": "model/ln_f/b",
}  # fmt: skip


def tensors(prefix: str = "") -> dict[str, Any]:
    arrays = models.random_arrays(models.MINI)
    named = {prefix + theirs: arrays[ours] for theirs, ours in NAMES.items()}
    return {n: a[0] if a.ndim == 3 else a for n, a in named.items()}


def write(path: Path, arrays: dict[str, Any]) -> None:
    shapes = {name: array.shape for name, array in arrays.items()}
    safetensors.write(path, shapes, "float32", arrays.values())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a prefix and a mask, in two files of weights and one of the vocabulary."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    tokens, merges = models.byte_vocabulary(260)
    (folder / "vocab.json").write_text(json.dumps(tokens))
    lines = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges), ""])
    (folder / "merges.txt").write_text(lines, encoding="utf-8")
    write(folder / "model.safetensors", tensors() | {"h.0.attn.bias": np.ones((1, 1, 4, 4))})
    return folder


def loaded(folder: Path) -> dict[str, Any]:
    start = source_of(GenerateConfig(model_name=str(folder)))
    assert start.prefix is not None
    assert start.hparams == models.MINI
    return dict(huggingface.read_weights(start.prefix, start.hparams.shapes()))


def check_weights(folder: Path) -> None:
    found = loaded(folder)
    for name, array in models.random_arrays(models.MINI).items():
        assert found[name].shape == array.shape
        assert np.array_equal(found[name], array), name


def test_weights_come_under_openais_names_and_shapes(folder: Path) -> None:
    check_weights(folder)


def test_weights_in_several_files_are_found(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    arrays = tensors("transformer.")
    parts: dict[str, dict[str, Any]] = {
        "model-1-of-2.safetensors": {},
        "model-2-of-2.safetensors": {},
    }
    for number, (name, array) in enumerate(arrays.items()):
        parts[list(parts)[number % 2]][name] = array
    for file, part in parts.items():
        write(folder / file, part)
    places = {name: file for file, part in parts.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    check_weights(folder)
    (folder / "model-2-of-2.safetensors").unlink()
    with pytest.raises(MissingInputError, match="model-2-of-2"):
        loaded(folder)


def test_finetune_starts_from_a_path_by_either_option(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for options in (
        {"model_name": "mine"}, {"model_name": "./mine"}, {"restore_from": "mine"},
        {"model_name": str(folder)}, {"restore_from": "mine/model.safetensors"},
    ):  # fmt: skip
        config = FinetuneConfig(dataset=("x",), **options)  # type: ignore[arg-type]
        start = source_of(config)
        assert (start.model_name, start.step) == ("mine", 0)
        assert start.prefix is not None
        assert start.prefix.resolve() == folder / "model.safetensors"
    scratch = FinetuneConfig(dataset=("x",), model_name="mine", restore_from="scratch")
    assert source_of(scratch).hparams == models.MINI


def test_a_path_is_never_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("./124M", "./elsewhere/tiny", str(tmp_path / "124M")):
        config = ExportConfig(destination="x", model_name=name)
        assert fetched_for(config) == []
        with pytest.raises(MissingInputError, match="There is no model"):
            source_of(config)
    fetched = fetched_for(ExportConfig(destination="x", model_name="124M"))
    assert fetched == [Path("models/124M")]


def test_the_folder_of_models_comes_before_a_folder_here(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_model: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_model, tmp_path / "models" / "mine")
    assert source_of(GenerateConfig(model_name="mine")).hparams == models.SMALL
    assert source_of(GenerateConfig(model_name="./mine")).hparams == models.MINI


def test_the_vocabulary_is_read_from_either_kind_of_file(folder: Path) -> None:
    two = read_tokenizer(*huggingface.vocabulary_files(folder))
    tokens, merges = models.byte_vocabulary(260)
    whole = {
        "model": {"type": "BPE", "vocab": tokens, "merges": [list(pair) for pair in merges]},
        "added_tokens": [{"id": 259, "content": "<|endoftext|>"}],
    }
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    (folder / "merges.txt").unlink()
    one = read_tokenizer(*huggingface.vocabulary_files(folder))
    text = "the other<|endoftext|> é"
    assert one.encode(text, special=True) == two.encode(text, special=True)
    assert one.fingerprint == two.fingerprint


def change(name: str, value: Any) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps(CONFIG | {name: value}))

    return act


def lose(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def keep(*left_out: str, **changed: Any) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        arrays = {n: a for n, a in (tensors() | changed).items() if n not in left_out}
        write(folder / "model.safetensors", arrays)

    return act


@pytest.mark.parametrize(
    ("damage", "kind", "reason"),
    [
        (change("model_type", "llama"), BadDataError, "model_type is 'llama'"),
        (change("activation_function", "relu"), BadDataError, "activation_function is 'relu'"),
        (change("tie_word_embeddings", False), BadDataError, "tie_word_embeddings is False"),
        (change("n_inner", 60), BadDataError, "n_inner is 60"),
        (change("n_embd", None), BadDataError, "n_embd must be"),
        (change("n_layer", 2), BadDataError, "lacks the weight h.1.ln_1.weight"),
        (change("n_positions", 64), BadDataError, "wpe.weight is float32"),
        (lose("model.safetensors"), MissingInputError, "safe_serialization"),
        (lose("vocab.json"), MissingInputError, "vocab.json is missing"),
        (keep("ln_f.bias"), BadDataError, "lacks the weight ln_f.bias"),
        (keep(**{"ln_f.bias": np.zeros(3)}), BadDataError, r"float32 \(3,\)"),
        (lambda f: (f / "config.json").write_text("<html>"), BadDataError, "is not JSON"),
        (lambda f: (f / "model.safetensors").write_text("x"), BadDataError, "safetensors"),
    ],
)
def test_what_is_no_gpt_2_is_refused(
    damage: Callable[[Path], None], kind: type[Gpt2cliError], reason: str, folder: Path
) -> None:
    damage(folder)
    with pytest.raises(kind, match=reason):
        start = source_of(GenerateConfig(model_name=str(folder)))
        read_tokenizer(*start.vocabulary)


FOREIGN = GenerateConfig(model_name="./m")


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return foreign_models.write(tmp_path / "m")


def same_weights(prefix: Path | None) -> bool:
    assert prefix is not None
    found = dict(huggingface.read_weights(prefix, foreign_models.shape().shapes()))
    wanted = models.random_arrays(foreign_models.shape())
    return all(np.array_equal(found[name], array) for name, array in wanted.items())


def test_an_output_layer_of_its_own_is_refused_by_name(foreign: Path) -> None:
    named = foreign_models.arrays()
    wte = named["transformer.wte.weight"]
    foreign_models.write_weights(
        foreign / "model.safetensors", named | {"lm_head.weight": wte[::-1]}
    )
    with pytest.raises(BadDataError, match=r"lm_head.weight is not wte.weight.*save it"):
        source_of(FOREIGN)
    # In one of several files it is found as well.
    foreign_models.write_weights(foreign / "a.safetensors", named)
    foreign_models.write_weights(foreign / "b.safetensors", {"lm_head.weight": wte + 1})
    places = dict.fromkeys(named, "a.safetensors") | {"lm_head.weight": "b.safetensors"}
    (foreign / "model.safetensors").unlink()
    (foreign / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(BadDataError, match=r"lm_head.weight is not wte.weight"):
        source_of(FOREIGN)


def test_an_output_layer_that_is_the_embedding_again_is_read(foreign: Path) -> None:
    named = foreign_models.arrays()
    named["lm_head.weight"] = named["transformer.wte.weight"]
    foreign_models.write_weights(foreign / "model.safetensors", named)
    assert same_weights(source_of(FOREIGN).prefix)


def test_layers_that_the_config_leaves_out_are_not_passed_over(foreign: Path) -> None:
    named = foreign_models.arrays()
    more = {name.replace("h.0.", "h.1."): array for name, array in named.items()}
    foreign_models.write_weights(foreign / "model.safetensors", named | more)
    with pytest.raises(BadDataError, match=r"holds h\.1\..*n_layer 1"):
        source_of(FOREIGN)


@pytest.mark.parametrize("prefix", ["module.transformer.", "_orig_mod.transformer.", "module.", ""])
def test_what_frames_put_before_names_is_passed_over(prefix: str, foreign: Path) -> None:
    foreign_models.write_weights(
        foreign / "model.safetensors", foreign_models.arrays(prefix=prefix)
    )
    assert same_weights(source_of(FOREIGN).prefix)


def test_a_tensor_under_two_names_is_refused(foreign: Path) -> None:
    both = foreign_models.arrays() | foreign_models.arrays(prefix="")
    foreign_models.write_weights(foreign / "model.safetensors", both)
    with pytest.raises(BadDataError, match="is there twice"):
        source_of(FOREIGN)


def test_weights_of_float64_are_read(foreign: Path) -> None:
    foreign_models.write_weights(foreign / "model.safetensors", foreign_models.arrays(), "float64")
    assert same_weights(source_of(FOREIGN).prefix)


def test_weights_of_whole_numbers_are_refused_by_their_type(foreign: Path) -> None:
    foreign_models.write_weights(foreign / "model.safetensors", foreign_models.arrays(), "uint8")
    with pytest.raises(BadDataError, match="is uint8; weights are read from float32"):
        source_of(FOREIGN)


def test_a_variant_is_read_and_several_are_named(foreign: Path) -> None:
    (foreign / "model.safetensors").rename(foreign / "model.fp16.safetensors")
    prefix = source_of(FOREIGN).prefix
    assert prefix is not None
    assert prefix.name == "model.fp16.safetensors"
    assert same_weights(prefix)
    (foreign / "model.bf16.safetensors").write_bytes(prefix.read_bytes())
    with pytest.raises(MissingInputError, match=r"model\.bf16\.safetensors, model\.fp16"):
        source_of(FOREIGN)


def test_the_names_that_a_config_may_have_for_numbers_are_known(tmp_path: Path) -> None:
    for place, changed in enumerate(
        [
            {"n_positions": None, "n_ctx": 16},
            {"n_positions": None, "max_position_embeddings": 16, "n_embd": None, "hidden_size": 8},
        ]
    ):
        folder = foreign_models.write(tmp_path / str(place), config=changed)
        assert huggingface.hparams(folder) == foreign_models.shape()
    folder = foreign_models.write(tmp_path / "none", config={"vocab_size": None})
    with pytest.raises(BadDataError, match=r"vocab_size must be .* and is missing"):
        huggingface.hparams(folder)


def test_a_byte_order_mark_is_passed_over(foreign: Path) -> None:
    for name in ("config.json", "vocab.json"):
        (foreign / name).write_bytes(b"\xef\xbb\xbf" + (foreign / name).read_bytes())
    (foreign / "merges.txt").write_bytes(b"\xef\xbb\xbf" + (foreign / "merges.txt").read_bytes())
    start = source_of(FOREIGN)
    assert read_tokenizer(*start.vocabulary).encode("the") == [257]


@pytest.mark.parametrize(
    "index",
    ["[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', '{"weight_map": {"a": ".."}}',
     '{"weight_map": {"a": "../x.safetensors"}}', '{"weight_map": {"a": "\\u0000.safetensors"}}'],
)  # fmt: skip
def test_an_index_of_several_files_that_says_nonsense_is_named(index: str, foreign: Path) -> None:
    (foreign / "model.safetensors").unlink()
    (foreign / "model.safetensors.index.json").write_text(index)
    with pytest.raises(BadDataError, match=r"model\.safetensors\.index\.json"):
        source_of(FOREIGN)


@pytest.mark.parametrize("number", [4_000_000, 10**30, -1, 0, True, 1.5, "2", [1]])
def test_a_shape_that_no_gpt_2_has_is_refused_at_once(number: Any, foreign: Path) -> None:
    settings = foreign_models.config()
    (foreign / "config.json").write_text(json.dumps(settings | {"n_layer": number}))
    with pytest.raises(BadDataError, match="n_layer must be a whole number from 1 to 1,000"):
        source_of(FOREIGN)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_refused_by_name(value: float, foreign: Path) -> None:
    named = foreign_models.arrays()
    named["transformer.h.0.mlp.c_fc.weight"][2, 3] = value
    foreign_models.write_weights(foreign / "model.safetensors", named)
    kind = "NaN" if np.isnan(value) else "infinity"
    reason = rf"model\.safetensors: the weight h\.0\.mlp\.c_fc\.weight holds {kind}"
    prefix = source_of(FOREIGN).prefix
    with pytest.raises(BadDataError, match=reason):
        same_weights(prefix)


def test_what_float32_cannot_hold_is_refused_as_infinite(foreign: Path) -> None:
    named = {name: array.astype(np.float64) for name, array in foreign_models.arrays().items()}
    named["transformer.ln_f.bias"][0] = 1e300
    foreign_models.write_weights(foreign / "model.safetensors", named, "float64")
    prefix = source_of(FOREIGN).prefix
    with pytest.raises(BadDataError, match=r"ln_f\.bias holds infinity"):
        same_weights(prefix)


def test_weights_whose_sum_overflows_are_finite_all_the_same(foreign: Path) -> None:
    named = foreign_models.arrays()
    named["transformer.ln_f.bias"][:] = 3e38
    foreign_models.write_weights(foreign / "model.safetensors", named)
    prefix = source_of(FOREIGN).prefix
    assert prefix is not None
    found = dict(huggingface.read_weights(prefix, ["model/ln_f/b"]))
    assert found["model/ln_f/b"].max() == np.float32(3e38)
