"""How the next token is chosen: which filters, and in which order."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar


@dataclasses.dataclass(frozen=True)
class Choices:
    """How the next token is chosen; the filters work in this order.

    Attributes:
        temperature: logits are divided by it; 0: the likeliest token is taken.
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
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    top_k: int = 0
    top_p: float = 0.0
    min_p: float = 0.0
    typical_p: float = 1.0
    # The module whose functions filter: those of a batch in TensorFlow, or of a row in NumPy.
    filters: ClassVar[Any] = None

    @property
    def looks_back(self) -> bool:
        """Whether it needs to know the tokens before."""
        return self.repetition_penalty != 1 or self.no_repeat_ngram_size > 0

    def filtered(self, logits: Any, history: Any) -> Any:
        """Returns logits (…, vocab) after every filter; the temperature must not be 0."""
        logits = self.without_repeats(logits / self.temperature, history)
        if 0 < self.top_k < logits.shape[-1]:
            logits = self.filters.keep_top_k(logits, self.top_k)
        if 0 < self.top_p < 1:
            logits = self.filters.keep_top_p(logits, self.top_p)
        if self.min_p > 0:
            logits = self.filters.keep_min_p(logits, self.min_p)
        if self.typical_p < 1:
            logits = self.filters.keep_typical_p(logits, self.typical_p)
        return logits

    def without_repeats(self, logits: Any, history: Any) -> Any:
        """Returns logits (…, vocab) after the two filters that look back."""
        if self.repetition_penalty != 1:
            logits = self.filters.penalise(logits, history, self.repetition_penalty)
        if self.no_repeat_ngram_size:
            logits = self.filters.remove_repeats(logits, history, self.no_repeat_ngram_size)
        return logits
