"""What GPT-2 computes with on a CPU where Numba is there: weights of any precision, many texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import from_dtype, types

from gpt2cli import native
from gpt2cli.hardware import cores
from gpt2cli.network import attention_kernels, kernels
from gpt2cli.network.arithmetic import NORM_EPSILON, Arithmetic, Array
from gpt2cli.network.rounding import quantised, upper_halves

# Products with more rows than this are bound by arithmetic: BLAS does them best.
FEW_ROWS = 64
# A shorter prompt is not worth another loop.
LONG_PROMPT = 64


# What weights are held as, by precision.
HELD: dict[str, Any] = {
    "float32": np.float32,
    "bfloat16": kernels.BFLOAT16_BITS,
    "float16": kernels.FLOAT16_BITS,
    "int8": np.int8,
}


class NativeMatrix:
    """Weights by their columns, held in a precision.

    Attributes:
        kind: float32, bfloat16, float16 or int8.
    """

    def __init__(self, rows: Array, kind: str, few: int = FEW_ROWS) -> None:
        """Takes float32 (columns, width), and the precision in which they are held.

        Products with more than `few` rows are BLAS's.
        """
        self.kind, self._few = kind, few
        self._scale = np.ones(len(rows), np.float32)
        self._no_bias = np.zeros(len(rows), np.float32)
        # Compiled code knows arrays that may be written to; these are, but nobody does.
        rows = np.require(rows, np.float32, ["C", "W"])
        if kind == "int8":
            self._held, self._scale = quantised(rows)
        elif kind == "float16":
            self._held = rows.astype(np.float16).view(HELD[kind])
        elif kind == "bfloat16":
            self._held = upper_halves(rows)
        else:
            self._held = rows

    def times(self, x: Array, bias: Array | None = None) -> Array:
        """(many, width) → (many, columns)."""
        bias = self._no_bias if bias is None else bias
        if len(x) > self._few:
            found = x @ self._wide(slice(None)).T
            found += bias
            return np.asarray(found)
        found = np.empty((len(x), len(self._held)), np.float32)
        if len(x) == 1:
            kernels.one_row(x[0], self._held, self._scale, bias, found[0])
        else:
            kernels.few_rows(x, self._held, self._scale, bias, found)
        return found

    def rows(self, places: Sequence[int]) -> Array:
        """Returns float32 (places, width): what stands there."""
        return self._wide(list(places))

    def _wide(self, places: Any) -> Array:
        """Returns the rows at some places as float32."""
        held = self._held[places]
        if self.kind == "int8":
            return np.asarray(held * self._scale[places][:, None])
        if self.kind == "float16":
            return np.asarray(held.view(np.float16).astype(np.float32))
        if self.kind == "bfloat16":
            return np.asarray((held.astype(np.uint32) << 16).view(np.float32))
        return np.asarray(held)


class NativeArithmetic(Arithmetic):
    """GPT-2's arithmetic by compiled loops; products of many rows by NumPy's BLAS."""

    def __init__(self, kind: str = "float32", *, many: bool = True) -> None:
        """Takes in which precision weights are held, and whether several texts grow at once.

        Where it is one text, BLAS takes in its prompt: that is one loop less to compile.
        """
        self._kind = kind
        self._few = FEW_ROWS if many or kind != "float32" else 1

    def prepare(self) -> None:
        """Begins to compile what is needed, and starts the threads that share the work."""
        kernels.wake(np.empty(cores(), np.int64))
        native.compile_ahead(needed(HELD[self._kind], few=self._few > 1))

    def matrix(self, rows: Array) -> NativeMatrix:
        """Returns weights (columns, width) as they are read fastest."""
        return NativeMatrix(rows, self._kind, self._few)

    def norm(self, x: Array, gain: Array, bias: Array) -> Array:
        """(many, embed) → (many, embed) of mean 0 and variance 1, scaled and shifted."""
        found = np.empty_like(x)
        kernels.norm(x, gain, bias, NORM_EPSILON, found)
        return found

    def gelu(self, x: Array) -> Array:
        """The tanh approximation of GELU, as gpt2.gelu; x is used up."""
        kernels.gelu(x)
        return x

    def attend_prompt(self, mixed: Array, keys: Array, values: Array) -> Array:
        """Lets each position of a prompt attend to those before it and to itself."""
        if len(mixed) < LONG_PROMPT or keys.shape[-1] < kernels.TILE_COLUMNS:
            return super().attend_prompt(mixed, keys, values)
        found = np.empty((len(mixed), mixed.shape[1] // 3), np.float32)
        attention_kernels.attend_prompt(mixed, keys, values, found)
        return found

    def attend_newest(self, mixed: Array, keys: Array, values: Array, seen: Any) -> Array:
        """Adds each text's newest position to its keys and values, and attends to all of them."""
        found = np.empty((len(mixed), mixed.shape[1] // 3), np.float32)
        attention_kernels.attend_newest(mixed, keys, values, seen, found)
        return found


def needed(held: Any, *, few: bool) -> list[tuple[Any, tuple[Any, ...]]]:
    """Returns the loops that decoding needs, each with the types of what it takes.

    Args:
        held: NumPy's type of the weights, or of their bits.
        few: whether products with a few rows are among them.
    """
    weights, counts = from_dtype(np.dtype(held))[:, ::1], types.int64[::1]
    vector, rows = types.float32[::1], types.float32[:, ::1]
    cache = types.float32[:, :, :, ::1]
    loops: list[tuple[Any, tuple[Any, ...]]] = [
        (kernels.norm, (rows, vector, vector, types.float32, rows)),
        (kernels.one_row, (vector, weights, vector, vector, vector)),
        (attention_kernels.attend_newest, (rows, cache, cache, counts, rows)),
        (kernels.gelu, (rows,)),
    ]
    return [(kernels.few_rows, (rows, weights, vector, vector, rows)), *loops] if few else loops
