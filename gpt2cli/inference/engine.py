"""The contract of an engine: a GPT-2's weights and the KV cache of a batch of rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from gpt2cli.arrays import Array, Logits, Tensor
from gpt2cli.hparams import HParams
from gpt2cli.inference.sampling import SamplingParams

# Stands before a row's first token in a history.
NO_TOKEN = -1
# A history is as long as a multiple of this, so that few programs are compiled for it.
HISTORY_STEP = 64

# A row's tokens.
Row = Sequence[int]
# float32 (rows, embed): of an engine's own kind, or NumPy's.
Hidden = Tensor


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The next token of each row.

    Attributes:
        tokens: the tokens.
        log_probabilities: of the tokens, as the model sees them without filters (nats).
    """

    tokens: list[int]
    log_probabilities: list[float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidates:
    """Tokens that may come next, best first.

    Attributes:
        tokens: int (rows, count); of beams: beam * vocab + token, (prompts, count).
        scores: float32, like tokens: probabilities after the filters; of beams: the sum of the
            text's log-probabilities.
        log_probabilities: float32, like tokens, without filters (nats).
    """

    tokens: Array
    scores: Array
    log_probabilities: Array


class History:
    """The tokens so far of each row, for the filters that look back.

    Attributes:
        tokens: int32 (rows, slots), aligned at their ends, NO_TOKEN before them.
    """

    def __init__(self, prompts: Sequence[Row], length: int, *, wanted: bool = True) -> None:
        """Takes the prompts, and how many tokens are to come; unless wanted, it stays empty."""
        longest = max(map(len, prompts)) + length
        size = -(-longest // HISTORY_STEP) * HISTORY_STEP if wanted else 0
        self.tokens = np.full((len(prompts), size), NO_TOKEN, np.int32)
        if wanted:
            for row, prompt in zip(self.tokens, prompts, strict=True):
                row[size - len(prompt) :] = prompt

    def add(self, newest: Sequence[int], parents: Sequence[int] | None = None) -> None:
        """Adds a token to each row, after the row has become a copy of its parent, if given."""
        if self.tokens.shape[1]:
            kept = self.tokens if parents is None else self.tokens[parents]
            self.tokens = np.column_stack([kept[:, 1:], np.asarray(newest, np.int32)])

    def add_to(self, number: int, token: int) -> None:
        """Adds a token to one row."""
        if self.tokens.shape[1]:
            row = self.tokens[number]
            row[:-1], row[-1] = row[1:].copy(), token

    def row(self, number: int) -> Array:
        """Returns a row's tokens, int32 (tokens,)."""
        row = self.tokens[number]
        return np.asarray(row[row != NO_TOKEN])


@dataclasses.dataclass(frozen=True, kw_only=True)
class BeamStep:
    """What the next candidates of beams depend on, besides their hidden states.

    Attributes:
        count: how many candidates a prompt gets at most.
        totals: float32 (prompts, beams), each beam's log-probability so far; -inf: no text.
        uniforms: float32 (prompts, count), numbers that draw candidates one after the other, none
            of them twice; (prompts, 0) for the best.
        history: the tokens of prompts * beams rows.
    """

    count: int
    totals: Array
    uniforms: Array
    history: History


class Engine(Protocol):
    """Computes hidden states, and what follows from them; `decode.tokens` shows how it is used.

    First `make_room`, then `prefill` or `hidden_states`, then `step` or `extend` while there is
    room; after that, or if a window has filled, `prefill` again. Each of them returns the hidden
    states of the rows' newest tokens, from which `logits`, `choose`, `likeliest` and
    `beam_candidates` compute the scores of the tokens that may follow.

    Attributes:
        hparams: the model's shape.
        fixed_rows: whether a program is compiled for each number of rows, so that all batches
            should have the same; then only a single row is extended by several tokens.
        pass_costs: the time of a pass over one token, then over up to 2, 4, 6, … of them, as
            shares of the first.
    """

    hparams: HParams
    fixed_rows: bool
    pass_costs: tuple[float, ...]

    def make_room(self, rows: int, longest: int, length: int) -> None:
        """Makes an empty KV cache for rows of up to `longest` tokens and `length` more."""
        ...

    def prefill(self, rows: Sequence[Row]) -> Hidden:
        """Takes whole rows in; returns (rows of the cache, embed), of each row's last token.

        Each has from 1 to n_ctx tokens. If the cache has several times as many rows, each row
        fills as many of them, one behind the other.
        """
        ...

    def hidden_states(self, rows: Sequence[Row]) -> list[Array]:
        """Takes whole rows in as `prefill`; returns each row's (tokens, embed), float32."""
        ...

    def step(self, tokens: Sequence[int], parents: Sequence[int] | None = None) -> Hidden:
        """Takes a token a row in; returns (rows, embed).

        Args:
            tokens: one for each row of the cache.
            parents: the row whose keys and values each row goes on from; None: its own.
        """
        ...

    def extend(self, rows: Sequence[Row]) -> Hidden:
        """Takes some tokens a row in, or none; returns (tokens, embed), row after row.

        Each has the result that it has by itself. Those of a single row may be followed by those
        of padding.
        """
        ...

    def drop(self, counts: Sequence[int]) -> None:
        """Takes back each row's last tokens, by their counts."""
        ...

    def logits(self, hidden: Hidden) -> Logits:
        """(rows, embed) → (rows, vocab): the scores of the tokens that may follow."""
        ...

    def choose(
        self, hidden: Hidden, params: SamplingParams, uniforms: Sequence[float], history: History
    ) -> Chosen:
        """Returns each row's next token: the likeliest, or drawn by a number from 0 up to 1."""
        ...

    def choose_from(
        self, logits: Logits, params: SamplingParams, uniforms: Sequence[float], history: History
    ) -> Chosen:
        """Returns what `choose` does, from logits (rows, vocab)."""
        ...

    def likeliest(
        self, hidden: Hidden, params: SamplingParams, count: int, history: History
    ) -> Candidates:
        """Returns each row's likeliest tokens of those allowed."""
        ...

    def beam_candidates(self, hidden: Hidden, params: SamplingParams, step: BeamStep) -> Candidates:
        """Returns the best continuations of each prompt's beams, from (prompts * beams, embed).

        Without random numbers only early ends and repeats are filtered.
        """
        ...

    def pop_warnings(self) -> list[str]:
        """Returns a line for each thing that went otherwise than asked, once."""
        ...
