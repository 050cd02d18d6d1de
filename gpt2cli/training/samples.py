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
from gpt2cli.training.interruptible import interruptible
from gpt2cli.training.job import Job

TEMPERATURE = 0.7


class Sampler:
    """Writes samples from the model in training, and keeps them in the run folder."""

    def __init__(self, job: Job, weights: Weights) -> None:
        self._job, self._prefix = job, job.samples.sample_prefix
        self._count, self._length = job.samples.sample_num, job.samples.sample_length
        self._engine = TensorFlowEngine(weights, job.start.hparams, xla=job.compute.xla)
        prompt = job.tokenizer.encode(self._prefix, special=True)
        self._prompt = prompt or [job.tokenizer.end_of_text]

    def samples(self, state: State, stop: Stop) -> Iterator[Sample | Notice | Progress]:
        """Yields a step's samples, always the same; after a signal there are none."""
        rows = [Continuation(self._job.tokenizer, self._length) for _ in range(self._count)]
        streams = [decode.random_stream(state.seed, state.step, n) for n in range(self._count)]
        prompts, params = [self._prompt] * self._count, SamplingParams(temperature=TEMPERATURE)
        steps = decode.tokens(self._engine, params, prompts, streams, self._length)
        with Count("sampling", self._length, quiet=self._job.quiet, unit="tokens") as meter:
            work = meter.named(interruptible(steps, stop), COMPILING)
            for done, chosen in enumerate(work, 1):
                for row, token in zip(rows, chosen.tokens, strict=True):
                    if not row.done:
                        row.add(token)
                if all(row.done for row in rows):
                    break
                yield from meter.advance(done)
        if stop:
            return
        samples = [
            Sample(step=state.step, number=number, text=self._prefix + row.text)
            for number, row in enumerate(rows, start=1)
        ]
        yield from map(Notice, self._engine.pop_warnings())
        try:
            run_log.write_samples(self._job.folder, state.step, "".join(map(str, samples)))
        except (DiskError, OutputError) as error:
            yield Alert(f"{error} Training goes on.")
        yield from samples
