"""What a run does between steps: validations and samples, which a signal ends at once."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

from gpt2cli.arrays import Weights
from gpt2cli.errors import DiskError, Gpt2cliError, OutputError
from gpt2cli.inference import decode
from gpt2cli.inference.sampling import SamplingParams
from gpt2cli.inference.tensorflow_engine import TensorFlowEngine
from gpt2cli.progress import COMPILING, Count
from gpt2cli.records import Alert, Notice, Progress, Sample, Validation
from gpt2cli.runtime.signals import ABANDONED, Stop
from gpt2cli.storage import run_log
from gpt2cli.storage.state import State
from gpt2cli.text.batches import Windows
from gpt2cli.text.continuation import Continuation
from gpt2cli.training.evaluation import Evaluator, Score
from gpt2cli.training.job import Job
from gpt2cli.training.schedule import is_due

TEMPERATURE = 0.7
Item = TypeVar("Item")
# How often a signal is looked for.
SLICE_SECONDS = 0.1
END = object()


class Validator:
    """Computes the validation loss of the weights in training."""

    def __init__(self, job: Job, windows: Windows, weights: Weights) -> None:
        self._windows, self._name, self._quiet = windows, job.data.held_out_name, job.quiet
        self._every, self._batch_size = job.validation.val_every, job.batch.batch_size
        self._evaluator = Evaluator(weights, job.start.hparams, xla=job.compute.xla)

    def owes(self, state: State, *, ends: bool) -> bool:
        """Returns whether the present weights are to be validated, and were not yet.

        They are if the windows are new to the run, every --val-every steps, and at the end.
        """
        wanted = ends or is_due(state.step, self._every)
        return state.held_out != self._name or (state.val_step != state.step and wanted)

    def score(
        self, state: State, stop: Stop, *, seconds: float, safe: str
    ) -> Generator[Progress | Validation, None, State]:
        """Yields how far it is, and the score over the held-out windows; returns the state with it.

        After a signal the state is as if it had not begun. `seconds` is how long this process has
        trained, `safe` a sentence on what is safe on disk.

        Raises:
            Gpt2cliError: the loss is not a finite number.
        """
        score, count = Score(), math.ceil(len(self._windows) / self._batch_size)
        judged = interruptible(self._evaluator.batches(self._windows, self._batch_size), stop)
        with Count("validating", count, quiet=self._quiet, unit="batches") as meter:
            for done, batch in enumerate(meter.named(judged, COMPILING), 1):
                score += batch
                yield from meter.advance(done)
        if stop:
            return state
        if not math.isfinite(score.loss):
            raise Gpt2cliError(
                f"The validation loss of step {state.step} is {score.loss}; the step was not "
                f"saved. {safe} Try a lower --learning-rate, or other weights to start from."
            )
        yield Validation(
            step=state.step,
            seconds=seconds,
            loss=score.loss,
            perplexity=score.perplexity,
            accuracy=score.accuracy,
        )
        return state.validated(score.loss, self._name, due=is_due(state.step, self._every))


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


def interruptible(work: Iterator[Item], stop: Stop) -> Iterator[Item]:
    """Yields the items of some work, and ends early, within a moment, on a signal.

    XLA compiles in one call that may take seconds, so a thread does the work. After a signal
    nobody waits for that thread: it must change nothing that is saved.
    """
    wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
    made: queue.SimpleQueue[object] = queue.SimpleQueue()

    def make() -> None:
        """Makes an item whenever one is wanted; its errors are items, too."""
        while wanted.get():
            try:
                made.put(next(work, END))
            except BaseException as error:
                made.put(error)

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    wanted.put(not stop)
    try:
        while not stop:
            try:
                item = made.get(timeout=SLICE_SECONDS)
            except queue.Empty:
                continue
            if item is END:
                return
            if isinstance(item, BaseException):
                raise item
            yield item  # type: ignore[misc]
            wanted.put(not stop)
    finally:
        wanted.put(False)
        if stop:
            ABANDONED.append(thread)
