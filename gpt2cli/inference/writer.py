"""Lets the samples of a batch grow on an engine: token by token, or found by a search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from gpt2cli.inference import beam_search, contrastive_search, decode
from gpt2cli.inference.beam_search import BeamParams, Group
from gpt2cli.inference.contrastive_search import ContrastParams
from gpt2cli.inference.decode import random_stream
from gpt2cli.inference.engine import Chosen, Engine
from gpt2cli.inference.samples import Sample
from gpt2cli.inference.sampling import SamplingParams
from gpt2cli.inference.speculation import Drafts, Text, speculate
from gpt2cli.text.tokenizer import Tokenizer


class Writer:
    """Continues prompts in one way, batch after batch."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        *,
        params: SamplingParams,
        search: BeamParams | ContrastParams | None = None,
        drafter: Drafts | None = None,
    ) -> None:
        """Takes how tokens are chosen: one by one, by beams, or by contrastive search.

        Args:
            engine: computes them.
            tokenizer: shows a stop text in a beam.
            params: which tokens are left to choose from.
            search: how texts are searched for; None: tokens are chosen one by one.
            drafter: guesses tokens, several of which are then computed in a pass.
        """
        self._engine, self._tokenizer = engine, tokenizer
        self._params, self._searched, self._drafter = params, search, drafter
        self._width, self._missing = 0, 0

    def grow(self, samples: Sequence[Sample]) -> Iterator[None]:
        """Lets all samples grow to their ends; yields after each token.

        With beams they are the best texts of each prompt, best first; a prompt's stand together.
        """
        if isinstance(self._searched, BeamParams):
            yield from self._search(samples, self._searched)
            return
        full = self._full(samples)
        single = len(full) == 1 or not self._engine.fixed_rows
        if self._drafter and single:
            yield from self._speculate(samples, self._drafter)
            return
        for chosen in self._tokens(full):
            # Those that only fill the batch come last.
            for place, sample in enumerate(samples):
                sample.add(chosen.tokens[place], chosen.log_probabilities[place])
            yield
            if all(sample.new.done for sample in samples):
                return

    def pop_warnings(self) -> list[str]:
        """Returns a line for each thing that went otherwise than asked, once."""
        missing, self._missing = self._missing, 0
        few = [f"The filters leave too few texts: {missing} repeat the best one."]
        return self._engine.pop_warnings() + (few if missing else [])

    def _tokens(self, samples: Sequence[Sample]) -> Iterator[Chosen]:
        prompts = [sample.prompt.tokens for sample in samples]
        length = max(sample.prompt.length for sample in samples)
        if isinstance(self._searched, ContrastParams):
            return contrastive_search.contrastive_tokens(
                self._engine, self._params, self._searched, prompts=prompts, length=length
            )
        streams = [stream_of(sample) for sample in samples]
        return decode.tokens(self._engine, self._params, prompts, streams, length)

    def _speculate(self, samples: Sequence[Sample], drafter: Drafts) -> Iterator[None]:
        texts = [
            Text(sample.prompt.tokens, stream_of(sample), sample.prompt.length)
            for sample in samples
        ]
        for _ in speculate(self._engine, self._params, drafter, texts):
            for sample, text in zip(samples, texts, strict=True):
                sample.passes += bool(text.new)
                for token in text.new:
                    sample.add(*token)
                if sample.new.done:
                    text.left = 0
            yield

    def _search(self, samples: Sequence[Sample], beams: BeamParams) -> Iterator[None]:
        count = sum(sample.prompt is samples[0].prompt for sample in samples)
        firsts = self._full(samples[::count])
        groups = [
            Group(beams, one.prompt.length, partial(one.prompt.ends, tokenizer=self._tokenizer))
            for one in firsts
        ]
        yield from beam_search.search(
            self._engine,
            self._params,
            prompts=[one.prompt.tokens for one in firsts],
            streams=[stream_of(one) for one in firsts],
            groups=groups,
        )
        for place, sample in enumerate(samples):
            found = groups[place // count].best(count)
            # If there are fewer texts than samples, the best one fills the others.
            self._missing += place % count >= len(found)
            beam = found[place % count] if place % count < len(found) else found[0]
            for token, log_probability in zip(beam.tokens, beam.log_probabilities, strict=True):
                sample.add(token, log_probability)
            sample.new.finish()

    def _full(self, samples: Sequence[Sample]) -> list[Sample]:
        """Returns samples, the last repeated up to the width for which the engine is compiled."""
        if self._engine.fixed_rows:
            self._width = self._width or len(samples)
        return [*samples, *[samples[-1]] * (self._width - len(samples))]


def stream_of(sample: Sample) -> Iterator[float]:
    """Returns a sample's random numbers."""
    return random_stream(sample.prompt.seed, sample.prompt.number, sample.number)
