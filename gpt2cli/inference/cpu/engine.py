"""The CPU's engine, without TensorFlow: each row has a place of its own, and no padding.

A token multiplies each matrix by a row or a few. That is bound by memory, and XLA's products reach
about half of its speed. Besides, TensorFlow need not be loaded, and nothing is traced.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from gpt2cli.arrays import Array, Logits
from gpt2cli.hparams import HParams
from gpt2cli.inference.cpu import ops, sampling
from gpt2cli.inference.engine import BeamStep, Candidates, Chosen, History, Row
from gpt2cli.inference.sampling import SamplingParams

EMBEDDING = "model/wte"


class CPUEngine:
    """The weights of a model, and the KV cache of the rows that it has seen.

    Attributes:
        hparams: the model's shape.
        pass_costs: how long passes over several tokens take, see Engine.
    """

    fixed_rows = False

    def __init__(
        self, weights: Iterable[tuple[str, Array]], hparams: HParams, precision: str = "float32"
    ) -> None:
        """Takes named weights, float32, and the precision in which matrices are stored."""
        self.hparams, self.pass_costs = hparams, ops.pass_costs(precision)
        self._layers = Layers(weights, precision)
        # Keys and values of each layer, (rows, heads, slots, padded head), and the shape asked for.
        self._cache: list[tuple[Array, Array]] = []
        self._shape = 0, 0, 0, 0

    def make_room(self, rows: int, longest: int, length: int) -> None:
        """Makes an empty cache for rows of up to `longest` tokens and `length` more."""
        sizes = self.hparams
        slots = min(longest + length, sizes.n_ctx)
        shape = rows, sizes.n_head, slots, sizes.n_embd // sizes.n_head
        if not self._cache or shape != self._shape:
            # What was there goes before its successor comes.
            self._cache, self._shape = [], shape
            self._cache = [
                (ops.new_cache(shape), ops.new_cache(shape)) for _ in range(sizes.n_layer)
            ]
        # The tokens whose keys and values are in the cache, and how many each row has.
        self._tokens, self._seen = np.zeros((rows, slots), np.int64), np.zeros(rows, np.int64)

    def prefill(self, rows: Sequence[Row]) -> Array:
        """Takes whole rows in; returns (rows of the cache, embed), of each row's last token.

        What the cache holds already is not computed again.
        """
        copies = len(self._seen) // len(rows)
        filled: dict[tuple[int, ...], int] = {}
        for number, row in enumerate(row for row in rows for _ in range(copies)):
            before = tuple(row[:-1])
            if np.array_equal(self._tokens[number, : self._seen[number]], before):
                continue
            if before in filled:
                self._copy({number: filled[before]})
            else:
                self._fill(number, before, whole=False)
            filled[before] = number
        return self.step([row[-1] for row in rows for _ in range(copies)])

    def hidden_states(self, rows: Sequence[Row]) -> list[Array]:
        """Takes whole rows in as `prefill`; returns each row's (tokens, embed), float32."""
        found, copies = [], len(self._seen) // len(rows)
        for number, row in enumerate(rows):
            found.append(self._fill(number * copies, row, whole=True))
            same = range(number * copies + 1, (number + 1) * copies)
            self._copy(dict.fromkeys(same, number * copies))
        return found

    def step(self, tokens: Sequence[int], parents: Sequence[int] | None = None) -> Array:
        """Takes a token a row in; returns (rows, embed)."""
        if parents is not None:
            self._copy({row: parent for row, parent in enumerate(parents) if row != parent})
        return self.extend([[token] for token in tokens])

    @np.errstate(all="ignore")  # A model that has diverged must not cause warnings.
    def extend(self, rows: Sequence[Row]) -> Array:
        """Takes some tokens a row in, or none; returns (tokens, embed), row after row.

        A token's hidden state is the same to the bit as if it were taken in by itself.
        """
        starts = np.cumsum([0, *map(len, rows)])
        texts = np.repeat(np.arange(len(rows)), np.diff(starts))
        positions = np.arange(starts[-1]) + (self._seen - starts[:-1])[texts]
        tokens = [token for row in rows for token in row]
        x = self._layers.embed(tokens, positions)  # (tokens, embed)
        for layer, pair in enumerate(self._cache):
            mixed = self._layers.mixed(x, layer)
            x = self._layers.rest(x, ops.attend_newest(mixed, *pair, self._seen, starts), layer)
        self._tokens[texts, positions] = tokens
        self._seen += np.diff(starts)
        return self._layers.norm(x, "model/ln_f")

    def drop(self, counts: Sequence[int]) -> None:
        """Takes back each row's last tokens, by their counts."""
        self._seen -= counts

    @np.errstate(all="ignore")
    def logits(self, hidden: Array) -> Logits:
        """(rows, embed) → (rows, vocab): the scores of the tokens that may follow."""
        return self._layers.logits(hidden)

    def choose(
        self, hidden: Array, params: SamplingParams, uniforms: Sequence[float], history: History
    ) -> Chosen:
        """Returns each row's next token: the likeliest, or drawn by a number from 0 up to 1."""
        return self.choose_from(self.logits(hidden), params, uniforms, history)

    def choose_from(
        self, logits: Logits, params: SamplingParams, uniforms: Sequence[float], history: History
    ) -> Chosen:
        """Returns what `choose` does, from logits (rows, vocab)."""
        return sampling.choose(params, logits, uniforms, history)

    def likeliest(
        self, hidden: Array, params: SamplingParams, count: int, history: History
    ) -> Candidates:
        """Returns each row's likeliest tokens of those allowed."""
        return sampling.likeliest(params, count, self.logits(hidden), history)

    def beam_candidates(self, hidden: Array, params: SamplingParams, step: BeamStep) -> Candidates:
        """Returns the best continuations of each prompt's beams."""
        return sampling.beam_candidates(params, self.logits(hidden), step)

    def pop_warnings(self) -> list[str]:
        """Returns no lines: nothing can go otherwise than asked."""
        return []

    @np.errstate(all="ignore")
    def _fill(self, number: int, tokens: Row, *, whole: bool) -> Array:
        """Begins a row anew with tokens; returns their hidden states if wanted, (time, embed)."""
        self._tokens[number, : len(tokens)], self._seen[number] = tokens, len(tokens)
        x = self._layers.embed(tokens, np.arange(len(tokens)))  # (time, embed)
        for layer, pair in enumerate(self._cache if tokens else ()):
            mixed, keys, values = self._layers.mixed(x, layer), pair[0][number], pair[1][number]
            keep(mixed, keys, values)
            # Of the last layer only keys and values are needed.
            if whole or layer < len(self._cache) - 1:
                x = self._layers.rest(x, ops.attend_prompt(mixed, keys, values), layer)
        return self._layers.norm(x, "model/ln_f") if whole else x

    def _copy(self, parents: dict[int, int]) -> None:
        """Makes rows copies of their parents, all at once; what they share is left as it is."""
        tokens, seen = self._tokens.copy(), self._seen.copy()
        moved = []
        for row, parent in parents.items():
            common = shared(tokens[row, : seen[row]], tokens[parent, : seen[parent]])
            moved.append((row, parent, slice(common, seen[parent])))
            self._tokens[row], self._seen[row] = tokens[parent], seen[parent]
        for array in (array for pair in self._cache for array in pair):
            move_slots(array, moved)


def move_slots(array: Array, moved: Sequence[tuple[int, int, slice]]) -> None:
    """Copies slots of (rows, heads, slots, head) at once: into a row, from a parent, which ones."""
    new = [array[parent, :, part].copy() for _, parent, part in moved]
    for (row, _, part), slots in zip(moved, new, strict=True):
        array[row, :, part] = slots


class Layers:
    """A model's weights, and what its layers compute of rows but for attention."""

    def __init__(self, weights: Iterable[tuple[str, Array]], precision: str) -> None:
        """Takes named weights, float32, and the precision in which matrices are stored."""
        self._matrices, self._vectors = {}, {}
        for name, array in weights:
            if name == EMBEDDING:
                self._matrices[name] = ops.Matrix(array, precision)
            elif array.ndim == 3:
                self._matrices[name] = ops.Matrix(array[0].T, precision)
            else:
                # Compiled loops are made for arrays that may be written to.
                self._vectors[name] = np.require(np.squeeze(array), np.float32, ["C", "W"])

    def embed(self, tokens: Row, positions: Array) -> Array:
        """(rows,) → (rows, embed): the embeddings of tokens at their positions."""
        places = self._vectors["model/wpe"][positions]
        return np.asarray(self._matrices[EMBEDDING].rows(tokens) + places)

    def mixed(self, x: Array, layer: int) -> Array:
        """(rows, embed) → (rows, 3 * embed): queries, keys and values."""
        place = f"model/h{layer}/"
        return self._dense(self.norm(x, place + "ln_1"), place + "attn/c_attn")

    def rest(self, x: Array, attended: Array, layer: int) -> Array:
        """Returns a layer's output from its input and what attention found in it; (rows, embed)."""
        place = f"model/h{layer}/"
        x = x + self._dense(attended, place + "attn/c_proj")
        expanded = self._dense(self.norm(x, place + "ln_2"), place + "mlp/c_fc")
        x += self._dense(ops.gelu(expanded), place + "mlp/c_proj")
        return x

    def _dense(self, x: Array, name: str) -> Array:
        """(rows, width) → (rows, columns)."""
        return self._matrices[f"{name}/w"].times(x, self._vectors[f"{name}/b"])

    def norm(self, x: Array, name: str) -> Array:
        """Normalises the last axis to mean 0 and variance 1, then scales and shifts it."""
        return ops.norm(x, self._vectors[f"{name}/g"], self._vectors[f"{name}/b"])

    def logits(self, hidden: Array) -> Logits:
        """(rows, embed) → (rows, vocab)."""
        return self._matrices[EMBEDDING].times(hidden)


def keep(mixed: Array, keys: Array, values: Array) -> None:
    """Begins a row's keys and values.

    Args:
        mixed: (time, 3 * embed), of a row from its beginning: queries, keys and values.
        keys: (heads, slots, head), which are set.
        values: like keys.
    """
    heads, head = len(keys), mixed.shape[1] // (3 * len(keys))
    _, key, value = mixed.reshape(-1, 3, heads, head).transpose(1, 2, 0, 3)
    keys[:, : len(mixed), :head], values[:, : len(mixed), :head] = key, value


def shared(left: Array, right: Array) -> int:
    """Returns how many tokens two rows have in common from their beginning on."""
    both = min(len(left), len(right))
    differs = left[:both] != right[:both]
    return int(differs.argmax()) if differs.any() else both
