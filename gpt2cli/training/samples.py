"""The samples of a run in training: written from its weights, and kept in its folder."""

from __future__ import annotations

from collections.abc import Iterator

from gpt2cli.arrays import Weights
from gpt2cli.errors import DiskError, OutputError
from gpt2cli.inference import decode
from gpt2cli.inference.sampling import SamplingParams
from gpt2cli.inference.tensorflow_engine import TensorFlowEngine
from gpt2cli.progress import COMPILING, Count
from gpt2cli.records import Alert, Notice, Progress, Sample
from gpt2cli.runtime.signals import Stop
from gpt2cli.storage import run_log
from gpt2cli.storage.state import State
from gpt2cli.text.continuation import Continuation
from gpt2cli.training.beginning import has_samples
from gpt2cli.training.interruptible import interruptible
from gpt2cli.training.job import Job
from gpt2cli.training.schedule import is_due

TEMPERATURE = 0.7


class Sampler:
    """Writes samples from the model in training, and keeps them in the run folder."""

    def __init__(self, job: Job, weights: Weights) -> None:
        """Takes the run, and the variables in training."""
        self._job, self._options = job, job.samples
        self._engine = TensorFlowEngine(weights, job.start.hparams, xla=job.compute.xla)
        prefix = job.tokenizer.encode(self._options.sample_prefix, special=True)
        self._prompt = prefix or [job.tokenizer.end_of_text]

    def owes(self, step: int) -> bool:
        """Returns whether a step's samples are due and not in the run folder."""
        due = step > 0 and is_due(step, self._options.sample_every)
        return due and not has_samples(self._job.folder, step)

    def tokens(self, state: State) -> Iterator[list[int]]:
        """Yields the next token of every sample; a step's samples are always the same."""
        count, length = self._options.sample_num, self._options.sample_length
        streams = [decode.random_stream(state.seed, state.step, n) for n in range(count)]
        prompts, params = [self._prompt] * count, SamplingParams(temperature=TEMPERATURE)
        for chosen in decode.tokens(self._engine, params, prompts, streams, length):
            yield list(chosen.tokens)

    def samples(self, state: State, stop: Stop) -> Iterator[Sample | Notice | Progress]:
        """Yields a step's samples; after a signal there are none."""
        count, length = self._options.sample_num, self._options.sample_length
        rows = [Continuation(self._job.tokenizer, length) for _ in range(count)]
        with Count("sampling", length, quiet=self._job.quiet, unit="tokens") as meter:
            work = meter.named(interruptible(self.tokens(state), stop), COMPILING)
            for done, tokens in enumerate(work, 1):
                for row, token in zip(rows, tokens, strict=True):
                    if not row.done:
                        row.add(token)
                if all(row.done for row in rows):
                    break
                yield from meter.advance(done)
        if stop:
            return
        samples = [
            Sample(step=state.step, number=number, text=self._options.sample_prefix + row.text)
            for number, row in enumerate(rows, start=1)
        ]
        yield from map(Notice, self._engine.pop_warnings())
        try:
            run_log.write_samples(self._job.folder, state.step, "".join(map(str, samples)))
        except (DiskError, OutputError) as error:
            yield Alert(f"{error} Training goes on.")
        yield from samples
