"""A Hugging Face folder of a GPT-2: its shape, vocabulary and weights as OpenAI has them."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gpt2cli.errors import BadDataError, MissingInputError
from gpt2cli.hparams import HParams, checked, read_hparams
from gpt2cli.storage import bundle, folders
from gpt2cli.storage.bundle import Entry
from gpt2cli.vocabulary import TOKENIZER, read_vocabulary

WEIGHTS = "model.safetensors"
# Which of several files holds which tensor.
SHARDS = "model.safetensors.index.json"
CONFIG = "config.json"
VOCABULARY = "vocab.json"
MERGES = "merges.txt"
# transformers writes names with this prefix; openai-community/gpt2 has them without.
PREFIX = "transformer."
LEAVES = {"w": "weight", "g": "weight", "b": "bias"}
# What OpenAI's GPT-2 is, where the config has a choice; the first is what a config means that
# does not say.
ARCHITECTURE: dict[str, tuple[Any, ...]] = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
}
NAMES = {"n_vocab": "vocab_size", "n_ctx": "n_positions"}


def is_folder(folder: Path) -> bool:
    """Returns whether a folder is Hugging Face's, and not OpenAI's."""
    return (folder / CONFIG).is_file() and not (folder / folders.HPARAMS).exists()


def is_weights(prefix: Path) -> bool:
    """Returns whether a checkpoint is a safetensors file, or the index of several."""
    return prefix.name.endswith((".safetensors", SHARDS))


def hparams(folder: Path) -> HParams:
    """Returns the shape of a folder's model, be it OpenAI's folder or Hugging Face's.

    Raises:
        MissingInputError: the file that says it is missing.
        BadDataError: it is no GPT-2, or one that is computed in another way than OpenAI's.
    """
    if not is_folder(folder):
        return read_hparams(folder / folders.HPARAMS)
    path = folder / CONFIG
    config = read_json(path)
    if config.get("model_type") != "gpt2":
        raise BadDataError(f"{path}: model_type is {config.get('model_type')!r}, not 'gpt2'.")
    for name, allowed in ARCHITECTURE.items():
        if config.get(name, allowed[0]) not in allowed:
            raise BadDataError(
                f"{path}: {name} is {config[name]!r}; OpenAI's GPT-2 has {allowed[0]!r}."
            )
    found = checked(config | {ours: config.get(theirs) for ours, theirs in NAMES.items()}, path)
    if config.get("n_inner") not in (None, 4 * found.n_embd):
        raise BadDataError(f"{path}: n_inner is {config['n_inner']}, not four times n_embd.")
    return found


def read_json(path: Path) -> dict[str, Any]:
    """Returns what a file of JSON says.

    Raises:
        BadDataError: it cannot be read as such.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadDataError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(values, dict):
        raise BadDataError(f"{path} is not what a model folder has under that name.")
    return values


def vocabulary(folder: Path) -> tuple[Path, Path]:
    """Returns where a folder's tokens and merges are: in two files, or both in tokenizer.json."""
    if not is_folder(folder):
        return folder / folders.ENCODER, folder / folders.MERGES
    two = folder / VOCABULARY, folder / MERGES
    if not all(path.exists() for path in two) and (folder / TOKENIZER).exists():
        return folder / TOKENIZER, folder / TOKENIZER
    return two


def static_file(folder: Path, name: str) -> bytes:
    """Returns the content of a model's hparams.json, encoder.json or vocab.bpe."""
    if not is_folder(folder):
        return (folder / name).read_bytes()
    if name == folders.HPARAMS:
        return json.dumps(dataclasses.asdict(hparams(folder))).encode()
    return read_vocabulary(*vocabulary(folder))[0 if name == folders.ENCODER else 1]


def weights(folder: Path) -> Path:
    """Returns the file that stands for a folder's weights.

    Raises:
        MissingInputError: it has none in safetensors.
    """
    found = next((p for p in (folder / WEIGHTS, folder / SHARDS) if p.is_file()), None)
    if found is None:
        raise MissingInputError(
            f"{folder} has no {WEIGHTS}. transformers writes it by "
            "save_pretrained(…, safe_serialization=True)."
        )
    return found


def tensors(prefix: Path) -> dict[str, tuple[Path, Entry]]:
    """Returns where each tensor lies, by its name without the prefix `transformer.`.

    Raises:
        MissingInputError: a file is missing.
        BadDataError: a file is cut or damaged.
    """
    from gpt2cli.storage import safetensors

    files = [prefix]
    if prefix.name == SHARDS:
        named = read_json(prefix).get("weight_map", {}).values()
        files = [prefix.with_name(Path(name).name) for name in sorted(set(named))]
    return {
        name.removeprefix(PREFIX): (file, entry)
        for file in files
        for name, entry in safetensors.read_header(file).items()
    }


def check(prefix: Path, shape_of: HParams) -> None:
    """Checks that safetensors hold a GPT-2's weights; other tensors in them are left alone.

    Raises:
        MissingInputError: a file is missing.
        BadDataError: a weight is missing or of the wrong shape or type, or a file is cut.
    """
    found = tensors(prefix)
    for name, shape in shape_of.shapes().items():
        there = tensor_name(name).removeprefix(PREFIX)
        if there not in found:
            raise BadDataError(f"{prefix} lacks the weight {there} that {CONFIG} demands.")
        entry = found[there][1]
        wanted = tensor_shape(shape)
        if entry.shape != wanted or entry.dtype not in bundle.FLOATS:
            raise BadDataError(
                f"{prefix}: {there} is {entry.dtype} {entry.shape}; {CONFIG} demands {wanted}."
            )


def load(prefix: Path, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Yields weights by OpenAI's names and in OpenAI's shapes, float32, one at a time.

    Raises:
        MissingInputError: a file is missing.
        BadDataError: a file is cut or damaged, or lacks a weight.
    """
    from gpt2cli.storage import safetensors

    found = tensors(prefix)
    for name in names:
        there = tensor_name(name).removeprefix(PREFIX)
        if there not in found:
            raise BadDataError(f"{prefix} lacks the weight {there}.")
        array = safetensors.read_tensor(*found[there])
        yield name, array[None] if name.endswith("/w") else array


def tensor_name(name: str) -> str:
    """Returns what a weight is called: `model/h0/ln_1/g` is `transformer.h.0.ln_1.weight`."""
    *path, leaf = name.removeprefix("model/").split("/")
    dotted = ".".join([*path, LEAVES.get(leaf, f"{leaf}.weight")])
    return PREFIX + re.sub(r"^h(\d+)", r"h.\1", dotted)


def tensor_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns a weight's shape there: OpenAI's leading 1 of a convolution is left out."""
    return shape[1:] if shape[0] == 1 and len(shape) == 3 else shape
