"""A Hugging Face folder of a GPT-2: its shape, vocabulary and weights as OpenAI has them."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gpt2cli import json_reader, vocabulary
from gpt2cli.errors import BadDataError, MissingInputError, shortened
from gpt2cli.files import paths
from gpt2cli.hparams import HParams, parse_hparams, read_hparams
from gpt2cli.json_reader import Json
from gpt2cli.reading import needed
from gpt2cli.storage import bundle
from gpt2cli.storage.bundle import Entry

WEIGHTS = "model.safetensors"
# Which of several files holds which tensor.
SHARDS = "model.safetensors.index.json"
CONFIG = "config.json"
ADAPTER = "adapter_config.json"
VOCABULARY = "vocab.json"
MERGES = "merges.txt"
# transformers writes names with this prefix; openai-community/gpt2 has them without.
PREFIX = "transformer."
# What training in several processes, compiling, or a frame around the model put before that.
AROUND = re.compile(r"^(?:module\.|_orig_mod\.|model\.)*(?:transformer\.)?")
BLOCK = re.compile(r"h\.(\d+)\.")
HEAD, EMBEDDING = "lm_head.weight", "wte.weight"
LEAVES = {"w": "weight", "g": "weight", "b": "bias"}
# What OpenAI's GPT-2 has, for each key of which the config has a choice; the first value is what
# a config without the key means.
ARCHITECTURE: dict[str, tuple[Any, ...]] = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
}
# What a config may call a number; the first that it has counts.
NAMES = {
    "n_vocab": ("vocab_size",),
    "n_ctx": ("n_positions", "max_position_embeddings", "n_ctx"),
    "n_embd": ("n_embd", "hidden_size"),
    "n_head": ("n_head", "num_attention_heads"),
    "n_layer": ("n_layer", "num_hidden_layers"),
}
COMPARED_BYTES = 1 << 24


def is_folder(folder: Path) -> bool:
    """Returns whether a folder is Hugging Face's, and not OpenAI's."""
    return (folder / CONFIG).is_file() and not (folder / paths.HPARAMS).exists()


def is_weights(prefix: Path) -> bool:
    """Returns whether a checkpoint is a safetensors file, or the index of several."""
    name = prefix.name
    return name.endswith(".safetensors") or (
        name.startswith("model.safetensors.index.") and name.endswith(".json")
    )


def hparams(folder: Path) -> HParams:
    """Returns the shape of a folder's model, be it OpenAI's folder or Hugging Face's.

    Raises BadDataError if it is not a GPT-2, or one that is computed in another way than OpenAI's.
    """
    if not is_folder(folder):
        return read_hparams(folder / paths.HPARAMS)
    path = folder / CONFIG
    with needed(path):
        config: dict[str, Json] = json_reader.read(path)
    if config.get("model_type") != "gpt2":
        kind = shortened(repr(config.get("model_type")))
        raise BadDataError(f"{shortened(path)}: model_type is {kind}, not 'gpt2'.")
    for name, allowed in ARCHITECTURE.items():
        if config.get(name, allowed[0]) not in allowed:
            raise BadDataError(
                f"{shortened(path)}: {name} is {shortened(repr(config[name]))}; OpenAI's GPT-2 has "
                f"{allowed[0]!r}."
            )
    keys = {
        ours: next((n for n in names if n in config), names[0]) for ours, names in NAMES.items()
    }
    found = parse_hparams(config, path, keys)
    if config.get("n_inner") not in (None, 4 * found.n_embd):
        inner = shortened(repr(config["n_inner"]))
        raise BadDataError(f"{shortened(path)}: n_inner is {inner}, not four times n_embd.")
    return found


def vocabulary_files(folder: Path) -> tuple[Path, Path]:
    """Returns where a folder's tokens and merges are: in two files, or both in tokenizer.json."""
    if not is_folder(folder):
        return folder / paths.ENCODER, folder / paths.MERGES
    # transformers asks for it first.
    whole = folder / vocabulary.TOKENIZER
    return (whole, whole) if whole.exists() else (folder / VOCABULARY, folder / MERGES)


def static_files(folder: Path, *, trained: bool = False) -> dict[str, bytes]:
    """Returns what a folder of OpenAI's kind, or of a model `trained` here, holds beside weights.

    Raises MissingInputError, or BadDataError if a file is damaged or of another kind than GPT-2's.
    """
    shape = hparams(folder)
    found = vocabulary.read_vocabulary(*vocabulary_files(folder), shape.n_vocab)
    if trained:
        found = dataclasses.replace(found, specials=found.specials.trained())
    path = folder / paths.HPARAMS
    # As it is, whatever else it says.
    own = json.dumps(dataclasses.asdict(shape)).encode() if is_folder(folder) else path.read_bytes()
    return {paths.HPARAMS: own, **found.files()}


def weights(folder: Path) -> Path:
    """Returns the file that stands for a folder's weights; MissingInputError if it has none."""
    found = [path for path in (folder / WEIGHTS, folder / SHARDS) if path.is_file()]
    # As model.fp16.safetensors, which transformers calls a variant.
    found = found[:1] or [*folder.glob("model.safetensors.index.*.json")]
    found = found or [path for path in folder.glob("*.safetensors") if "-of-" not in path.name]
    if len(found) != 1:
        several = f"but {', '.join(sorted(path.name for path in found))}; rename one so. "
        raise MissingInputError(
            f"{shortened(folder)} has no {WEIGHTS}{f', {shortened(several)} ' if found else '. '}"
            "transformers writes it by save_pretrained(…, safe_serialization=True)."
        )
    return found[0]


def tensors(prefix: Path) -> dict[str, Entry]:
    """Returns where each tensor is, by its name without the prefix `transformer.`.

    Raises MissingInputError, or BadDataError if a file is cut or damaged.
    """
    from gpt2cli.storage import safetensors

    found: dict[str, Entry] = {}
    for file in [prefix] if prefix.suffix == ".safetensors" else shard_files(prefix):
        for name, entry in safetensors.read_header(file).items():
            short = AROUND.sub("", name)
            if short in found:
                raise BadDataError(
                    f"{shortened(file)}: {shortened(short)} is there twice, as {shortened(name)} "
                    "and under another name."
                )
            found[short] = entry
    return found


def shard_files(index: Path) -> list[Path]:
    """Returns the files that an index of several names; BadDataError unless they are beside it."""
    with needed(index):
        record: dict[str, Json] = json_reader.read(index)
    places = record.get("weight_map")
    names = set(map(str, places.values())) if isinstance(places, dict) else set()
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors") or "\0" in name:
            raise BadDataError(
                f"{shortened(index)}: {shortened(repr(name))} is not a file of weights beside it."
            )
    if not names:
        raise BadDataError(f"{shortened(index)} has no weight_map, which names each weight's file.")
    return [index.with_name(name) for name in sorted(names)]


def check(prefix: Path, shape_of: HParams) -> None:
    """Checks that safetensors hold a GPT-2's weights; other tensors in them are left alone.

    Raises as `tensors` does, and BadDataError if a weight is missing, of the wrong shape or type,
    or one that GPT-2 has no place for.
    """
    found, where = tensors(prefix), shortened(prefix)
    shapes = {
        tensor_name(name).removeprefix(PREFIX): tensor_shape(shape)
        for name, shape in shape_of.shapes().items()
    }
    bundle.check_tensors(where, found, shapes, CONFIG)
    for name in found:
        block = BLOCK.match(name)
        if block and (len(block[1]) > 5 or int(block[1]) >= shape_of.n_layer):
            raise BadDataError(
                f"{where} holds {shortened(name)}, and {CONFIG} says n_layer {shape_of.n_layer}: "
                "one of the two is of another model."
            )
    if HEAD in found and not is_same(found[HEAD], found[EMBEDDING]):
        raise BadDataError(
            f"{where}: {HEAD} is not {EMBEDDING}. GPT-2 as OpenAI made it has one matrix for both, "
            "and so has gpt2cli. Use this model by transformers; or set its lm_head.weight to "
            "transformer.wte.weight there, save it, and fine-tune it again."
        )


def is_same(one: Entry, other: Entry) -> bool:
    """Returns whether two tensors hold the same numbers; they are read a piece at a time."""
    from gpt2cli.storage import safetensors

    if one.shape != other.shape:
        return False
    if one.dtype != other.dtype:
        arrays = map(safetensors.read_tensor, (one, other))
        return one.dtype in bundle.FLOATS and bool((next(arrays) == next(arrays)).all())
    with one.file.open("rb") as first, other.file.open("rb") as second:
        first.seek(one.offset)
        second.seek(other.offset)
        left = range(one.size, 0, -COMPARED_BYTES)
        sizes = (min(COMPARED_BYTES, size) for size in left)
        return all(first.read(size) == second.read(size) for size in sizes)


def read_weights(prefix: Path, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Yields weights by OpenAI's names, in OpenAI's shapes, float32; raises as `tensors` does."""
    from gpt2cli.storage import bundle_reader, safetensors

    found = tensors(prefix)
    for name in names:
        there = tensor_name(name).removeprefix(PREFIX)
        if there not in found:
            raise BadDataError(f"{shortened(prefix)} lacks the weight {there}.")
        array = safetensors.read_tensor(found[there])
        bundle_reader.check_finite(array, found[there].file, there)
        yield name, array[None] if name.endswith("/w") else array


def tensor_name(name: str) -> str:
    """Returns what a weight is called: `model/h0/ln_1/g` is `transformer.h.0.ln_1.weight`."""
    *path, leaf = name.removeprefix("model/").split("/")
    dotted = ".".join([*path, LEAVES.get(leaf, f"{leaf}.weight")])
    return PREFIX + re.sub(r"^h(\d+)", r"h.\1", dotted)


def tensor_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns a weight's shape there: OpenAI's leading 1 of a convolution is left out."""
    return shape[1:] if shape[0] == 1 and len(shape) == 3 else shape
