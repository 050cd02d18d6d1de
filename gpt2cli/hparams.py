"""The shape of a GPT-2: hparams.json, and the names and shapes of the weights that follow."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from gpt2cli.errors import BadDataError, MissingInputError

# From this embedding on, a CPU is faster in pieces (network/pieces.py): the products of narrower
# networks take less time than what beginning each piece costs.
WIDE = 768
# What stands beside the matrices where adapters are trained: see network/lora.py.
LORA_A, LORA_B, LORA_SCALE = "/lora_a", "/lora_b", "model/lora/scale"


@dataclasses.dataclass(frozen=True)
class HParams:
    """The five numbers that decide a GPT-2's architecture, spelled as in hparams.json.

    Attributes:
        n_vocab: tokens in the vocabulary.
        n_ctx: the longest window (tokens).
        n_embd: width of the hidden states.
        n_head: attention heads; they divide n_embd.
        n_layer: transformer blocks.
    """

    n_vocab: int
    n_ctx: int
    n_embd: int
    n_head: int
    n_layer: int

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the name and shape of every weight, as OpenAI's checkpoints hold them."""
        embed = self.n_embd
        shapes: dict[str, tuple[int, ...]] = {
            "model/wte": (self.n_vocab, embed),
            "model/wpe": (self.n_ctx, embed),
        }
        for layer in range(self.n_layer):
            shapes.update({f"model/h{layer}/{k}": v for k, v in block_shapes(embed).items()})
        return shapes | {"model/ln_f/g": (embed,), "model/ln_f/b": (embed,)}

    def lora_shapes(self, rank: int) -> dict[str, tuple[int, ...]]:
        """Returns the name and shape of every adapter of this rank, and of their common scale."""
        shapes: dict[str, tuple[int, ...]] = {LORA_SCALE: ()}
        for name, shape in self.shapes().items():
            if len(shape) == 3:
                _, width, columns = shape
                shapes |= {name + LORA_A: (width, rank), name + LORA_B: (rank, columns)}
        return shapes

    def count(self) -> int:
        """Returns the number of weights."""
        return sum(product(shape) for shape in self.shapes().values())


def block_shapes(embed: int) -> dict[str, tuple[int, ...]]:
    """Returns the name (below `model/hN/`) and shape of each weight of one block."""
    dense = {
        "attn/c_attn": (embed, 3 * embed),
        "attn/c_proj": (embed, embed),
        "mlp/c_fc": (embed, 4 * embed),
        "mlp/c_proj": (4 * embed, embed),
    }
    shapes: dict[str, tuple[int, ...]] = {}
    for norm in ("ln_1", "ln_2"):
        shapes |= {f"{norm}/g": (embed,), f"{norm}/b": (embed,)}
    for name, (width, columns) in dense.items():
        shapes |= {f"{name}/w": (1, width, columns), f"{name}/b": (columns,)}
    return shapes


def product(shape: tuple[int, ...]) -> int:
    """Returns the number of elements of a shape."""
    size = 1
    for length in shape:
        size *= length
    return size


def read_hparams(path: Path) -> HParams:
    """Returns what a hparams.json says; keys beyond the five are left out.

    Raises:
        MissingInputError: there is no such file.
        BadDataError: it is not JSON, lacks a number, or the numbers do not fit each other.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingInputError(f"{path} is missing.") from error
    except (ValueError, OSError) as error:
        raise BadDataError(f"{path} cannot be read as JSON: {error}.") from error
    return checked(values, path)


def checked(values: Any, path: Path) -> HParams:
    """Returns what a file's values say of the shape.

    Raises:
        BadDataError: a number is missing, or the numbers do not fit each other.
    """
    names = [field.name for field in dataclasses.fields(HParams)]
    for name in names:
        value = values.get(name) if isinstance(values, dict) else None
        if type(value) is not int or value < 1:
            raise BadDataError(f"{path}: {name} must be a whole number above 0, not {value!r}.")
    hparams = HParams(**{name: values[name] for name in names})
    if hparams.n_embd % hparams.n_head:
        raise BadDataError(
            f"{path}: n_head {hparams.n_head} does not divide n_embd {hparams.n_embd}."
        )
    return hparams
