"""The shape of a GPT-2: hparams.json, and the names and shapes of the weights that follow."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt2cli import json_reader, reading
from gpt2cli.errors import BadDataError, shortened

# From this embedding on, a CPU is faster in clusters (network/xla_clusters.py): the products of
# narrower networks take less time than what beginning each cluster costs.
WIDE = 768
# Far beyond every GPT-2; what takes this long to look at is a damaged file.
MOST = {"n_layer": 1000, "n_embd": 1 << 20, "n_head": 1 << 20, "n_ctx": 1 << 26, "n_vocab": 1 << 26}
# What stands beside the matrices if adapters are trained: see network/lora.py.
LORA_A, LORA_B, LORA_SCALE = "/lora_a", "/lora_b", "model/lora/scale"
# A block's matrices: how many times as wide as the hidden states what comes in and goes out is.
MATRICES = {"attn/c_attn": (1, 3), "attn/c_proj": (1, 1), "mlp/c_fc": (1, 4), "mlp/c_proj": (4, 1)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class HParams:
    """The five numbers that decide a GPT-2's architecture, spelled as in hparams.json.

    `n_ctx` is the longest window (tokens), `n_embd` the width of the hidden states, and the number
    of attention heads, `n_head`, divides that.
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
        for block in (f"model/h{layer}" for layer in range(self.n_layer)):
            for norm in (f"{block}/ln_1", f"{block}/ln_2"):
                shapes |= {f"{norm}/g": (embed,), f"{norm}/b": (embed,)}
            for name, (rows, columns) in MATRICES.items():
                shapes[f"{block}/{name}/w"] = (1, rows * embed, columns * embed)
                shapes[f"{block}/{name}/b"] = (columns * embed,)
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
        return sum(map(math.prod, self.shapes().values()))


def read_hparams(path: Path) -> HParams:
    """Returns what a hparams.json says; raises as `parse_hparams` and `reading.needed` do."""
    with reading.needed(path):
        return parse_hparams(json_reader.read(path), path)


def parse_hparams(
    values: Mapping[str, Any], path: Path, keys: Mapping[str, str] | None = None
) -> HParams:
    """Returns what a file's values say of the shape; `keys` are its own names of the numbers.

    Keys beyond those are left out. Raises BadDataError if a number is missing or does not fit.
    """
    found = {}
    for name, most in MOST.items():
        key = (keys or {}).get(name, name)
        value = values.get(key)
        if type(value) is not int or not 1 <= value <= most:
            what = f"not {shortened(repr(value))}" if key in values else "and is missing"
            raise BadDataError(
                f"{shortened(path)}: {key} must be a whole number from 1 to {most:,}, {what}."
            )
        found[name] = value
    hparams = HParams(**found)
    if hparams.n_embd % hparams.n_head:
        raise BadDataError(
            f"{shortened(path)}: n_head {hparams.n_head} does not divide n_embd {hparams.n_embd}."
        )
    return hparams
