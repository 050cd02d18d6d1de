"""A GGUF file, read back by llama.cpp's own library, tensor by tensor."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2cli.errors import UsageError
from tests import foreign_models, models
from tests.foreign_models import added
from tests.formats.conftest import Export

gguf = pytest.importorskip("gguf", reason="needs the extra `export`")

PARTS = {
    "attn_norm": "ln_1", "attn_qkv": "attn/c_attn", "attn_output": "attn/c_proj",
    "ffn_norm": "ln_2", "ffn_up": "mlp/c_fc", "ffn_down": "mlp/c_proj",
}  # fmt: skip
NORMS = ("attn_norm", "ffn_norm")


def original(name: str) -> tuple[str, bool]:
    """Returns OpenAI's name of a tensor, and whether it is turned there."""
    if name in ("token_embd.weight", "position_embd.weight"):
        return {"t": "model/wte", "p": "model/wpe"}[name[0]], False
    if name.startswith("output_norm"):
        return f"model/ln_f/{'b' if name.endswith('bias') else 'g'}", False
    found = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    assert found
    layer, part, leaf = found.groups()
    last = "b" if leaf == "bias" else "g" if part in NORMS else "w"
    return f"model/h{layer}/{PARTS[part]}/{last}", last == "w"


def fields(reader: Any) -> dict[str, Any]:
    return {name: field.contents() for name, field in reader.fields.items()}


@pytest.mark.parametrize("precision", ["float32", "float16", "q8_0"])
def test_every_tensor_comes_back(precision: str, exported: Export) -> None:
    reader = gguf.GGUFReader(exported("out.gguf", precision=precision))
    arrays = models.random_arrays(models.SMALL)
    assert len(reader.tensors) == len(arrays)
    for tensor in reader.tensors:
        name, turned = original(tensor.name)
        wanted = arrays.pop(name)
        wanted = wanted[0].T if turned else wanted
        found = gguf.dequantize(tensor.data, tensor.tensor_type)
        wide = wanted.ndim == 1 or name == "model/wpe"
        kind = "F32" if wide else {"float32": "F32", "float16": "F16", "q8_0": "Q8_0"}[precision]
        assert tensor.tensor_type.name == kind, name
        assert found.shape == wanted.shape
        # A block's largest value is cut into 127 steps; rounding is off by half a step.
        off = {"F32": 0.0, "F16": 1e-3, "Q8_0": 0.51 / 127}[kind] * abs(wanted).max()
        assert np.abs(found - wanted).max() <= off, name
    assert arrays == {}


def test_the_keys_are_those_that_llama_cpp_needs(exported: Export, small_model: Path) -> None:
    found = fields(gguf.GGUFReader(exported("out.gguf", precision="q8_0")))
    shape = {k.removeprefix("gpt2."): v for k, v in found.items() if k.startswith("gpt2.")}
    assert shape.pop("attention.layer_norm_epsilon") == pytest.approx(1e-5)
    assert shape == {
        "block_count": 3, "context_length": 32, "embedding_length": 32,
        "feed_forward_length": 128, "attention.head_count": 4,
    }  # fmt: skip
    general = {k.removeprefix("general."): v for k, v in found.items() if "general." in k}
    assert general == {
        "architecture": "gpt2", "type": "model", "name": "GPT-2 small", "file_type": 7,
        "quantization_version": 2,
    }  # fmt: skip
    words = {k.removeprefix("tokenizer.ggml."): v for k, v in found.items() if ".ggml." in k}
    tokens, merges = models.byte_vocabulary(260)
    assert words == {
        "model": "gpt2", "pre": "gpt-2", "tokens": list(tokens), "token_type": [1] * 259 + [3],
        "merges": [" ".join(pair) for pair in merges], "bos_token_id": 259, "eos_token_id": 259,
        "add_bos_token": False,
    }  # fmt: skip


@pytest.mark.parametrize(("precision", "number"), [("float32", 0), ("float16", 1)])
def test_only_a_quantised_file_has_a_quantisation_version(
    precision: str, number: int, exported: Export
) -> None:
    found = fields(gguf.GGUFReader(exported("out.gguf", precision=precision)))
    assert found["general.file_type"] == number
    assert "general.quantization_version" not in found


def test_rows_without_a_token_get_a_name_of_their_own(exported: Export, tmp_path: Path) -> None:
    wide = dataclasses.replace(models.MINI, n_vocab=264)
    folder = models.write_model(tmp_path / "wide", wide)
    tokens, _ = models.byte_vocabulary(260)
    (folder / "encoder.json").write_text(json.dumps(tokens))
    found = fields(gguf.GGUFReader(exported("out.gguf", folder)))
    assert found["tokenizer.ggml.tokens"][259:] == [
        "<|endoftext|>", "[PAD260]", "[PAD261]", "[PAD262]", "[PAD263]",
    ]  # fmt: skip
    assert found["tokenizer.ggml.token_type"][258:] == [1, 3, 5, 5, 5, 5]


def test_added_tokens_are_told_apart_from_pieces_of_words(exported: Export, tmp_path: Path) -> None:
    folder = foreign_models.write(
        tmp_path / "m", 262, config={"eos_token_id": [260, 258]},
        tokenizer=foreign_models.tokenizer_json(
            *(added(259, "New York", special=False), added(260, "<|im_end|>"), added(261, "é "))
        ),
    )  # fmt: skip
    found = fields(gguf.GGUFReader(exported("out.gguf", folder)))
    assert found["tokenizer.ggml.tokens"][257:] == [
        "the", "<|endoftext|>", "New York", "<|im_end|>", "é ",
    ]  # fmt: skip
    control, defined = int(gguf.TokenType.CONTROL), int(gguf.TokenType.USER_DEFINED)
    kinds = [1, control, defined, control, control]
    assert found["tokenizer.ggml.token_type"][257:] == kinds
    ends = [found[f"tokenizer.ggml.{name}_token_id"] for name in ("eos", "eot", "bos")]
    assert ends == [260, 258, 260]


def test_a_shape_that_blocks_do_not_fit_is_refused(exported: Export, mini_model: Path) -> None:
    with pytest.raises(UsageError, match="32 divides, not 16; float16"):
        exported("out.gguf", mini_model, precision="q8_0")
