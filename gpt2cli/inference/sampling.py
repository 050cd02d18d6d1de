"""How the next token is chosen: which filters, and in which order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Generic, TypeVar

from gpt2cli.arrays import Array, Tensor

# Logits (…, vocab): NumPy's of one row, or TensorFlow's of a batch.
Scores = TypeVar("Scores", Array, Tensor)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How the next token is chosen; the filters work in this order.

    Attributes:
        temperature: logits are divided by it; 0: the likeliest token is taken.
        min_length: how many tokens a text has before it may get one of `ends`.
        ends: the tokens that end texts.
        repetition_penalty: logits of tokens in the text are divided by it if they are above 0,
            and multiplied if they are below (Keskar et al. 2019); 1: none.
        no_repeat_ngram_size: no run of this many tokens comes twice (Paulus et al. 2017); 0: any.
        top_k: how many of the likeliest tokens are left; 0: all.
        top_p: the likeliest tokens that together reach this probability are left; 0: all.
        min_p: tokens of at least this share of the likeliest's probability are left; 0: all.
        typical_p: the tokens whose surprise is nearest to the expected one, and that together
            reach this probability, are left (Meister et al. 2022); 1: all.
    """

    temperature: float = 1.0
    min_length: int = 0
    ends: tuple[int, ...] = ()
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    top_k: int = 0
    top_p: float = 0.0
    min_p: float = 0.0
    typical_p: float = 1.0

    @property
    def looks_back(self) -> bool:
        """Whether the tokens before have to be known."""
        return self.repetition_penalty != 1 or self.no_repeat_ngram_size > 0

    def after(self, length: int) -> SamplingParams:
        """Returns how the next token of a text is chosen that has got this many."""
        if length < self.min_length or not self.ends:
            return self
        return dataclasses.replace(self, min_length=0, ends=())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Filters(Generic[Scores]):
    """One implementation of the filters; each takes logits and returns what it leaves of them.

    Attributes:
        remove: takes tokens.
        penalise: the repetition penalty, from the tokens before.
        remove_repeats: no run of tokens twice, from the tokens before.
        keep_top_k: takes k.
        keep_top_p: takes p.
        keep_min_p: takes p.
        keep_typical_p: takes p.
    """

    remove: Callable[[Scores, tuple[int, ...]], Scores]
    penalise: Callable[[Scores, Scores, float], Scores]
    remove_repeats: Callable[[Scores, Scores, int], Scores]
    keep_top_k: Callable[[Scores, int], Scores]
    keep_top_p: Callable[[Scores, float], Scores]
    keep_min_p: Callable[[Scores, float], Scores]
    keep_typical_p: Callable[[Scores, float], Scores]

    def filtered(self, logits: Scores, history: Scores, params: SamplingParams) -> Scores:
        """Returns logits (…, vocab) after every filter; the temperature must not be 0."""
        logits = self.allowed(logits / params.temperature, history, params)
        if 0 < params.top_k < logits.shape[-1]:
            logits = self.keep_top_k(logits, params.top_k)
        if 0 < params.top_p < 1:
            logits = self.keep_top_p(logits, params.top_p)
        if params.min_p > 0:
            logits = self.keep_min_p(logits, params.min_p)
        if params.typical_p < 1:
            logits = self.keep_typical_p(logits, params.typical_p)
        return logits

    def allowed(self, logits: Scores, history: Scores, params: SamplingParams) -> Scores:
        """Returns logits (…, vocab) without early ends, and after the filters that look back."""
        if params.ends:
            logits = self.remove(logits, params.ends)
        if params.repetition_penalty != 1:
            logits = self.penalise(logits, history, params.repetition_penalty)
        if params.no_repeat_ngram_size:
            logits = self.remove_repeats(logits, history, params.no_repeat_ngram_size)
        return logits
