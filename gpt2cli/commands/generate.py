"""`gpt2cli generate`: a run or a base model in, text out."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections import deque
from collections.abc import Generator, Iterator
from pathlib import Path

from gpt2cli.commands.drafting import drafter_of, model_drafter, small_model
from gpt2cli.commands.engines import LEANER, FoundModel, engine_of, found_model
from gpt2cli.commands.prompting import (
    chat_requests,
    chosen_seed,
    encoded,
    given_requests,
    only_stdin,
)
from gpt2cli.config.generate import DEFAULT_FOLDER, GenerateConfig, LengthOptions, PromptOptions
from gpt2cli.config.sampling import SamplingOptions
from gpt2cli.config.shared import ReadingOptions, SourceOptions
from gpt2cli.files import atomic, outputs
from gpt2cli.inference.beam_search import BeamParams
from gpt2cli.inference.contrastive_search import ContrastParams
from gpt2cli.inference.engine import Engine
from gpt2cli.inference.samples import Printer, Prompt, Sample
from gpt2cli.inference.sampling import SamplingParams
from gpt2cli.inference.speculation import Drafts
from gpt2cli.inference.writer import Writer
from gpt2cli.progress import COMPILING, Count
from gpt2cli.records import Alert, Notice, Record, Text
from gpt2cli.text.prompts import Request, arriving_prompts, unanswered
from gpt2cli.text.sources import source_of
from gpt2cli.text.tokenizer import Tokenizer
from gpt2cli.training import memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be continued, and with what."""

    config: GenerateConfig
    prompts: list[Prompt]
    tokenizer: Tokenizer
    writer: Writer

    def batches(self, first: int = 0) -> Iterator[list[Sample]]:
        """Yields the samples that grow at once, in order; each prompt's begin with a number."""
        config = self.config
        numbers = range(first, first + config.nsamples)
        pairs = ((prompt, number) for prompt in self.prompts for number in numbers)
        size = config.batch_size * (config.nsamples if config.search == "beams" else 1)
        prefix = config.include_prefix
        while several := list(itertools.islice(pairs, size)):
            yield [Sample(*pair, self.tokenizer, include_prefix=prefix) for pair in several]

    def printer(self) -> Printer:
        """Returns what makes text of samples."""
        return Printer(self.config.sample_delim, jsonl=self.config.format == "jsonl")


def generate(config: GenerateConfig) -> Iterator[Record]:
    """Yields the samples of every prompt, in order, as text; or writes them to files.

    Raises MissingInputError if there is no such run, model or file of prompts, BadDataError if a
    checkpoint is damaged or a prompt is not text, OutputError if a file exists or is not writable.
    """
    config.check_device()
    check_destination(config)
    if config.compare:
        # It builds on what is here.
        from gpt2cli.commands.comparing import compared

        yield from compared(config)
        return
    if config.files > 1 and not config.draws:
        yield Notice(
            f"--nfiles {config.files}: all files will hold the same text, as nothing in it is "
            "drawn. Give --nfiles 1, or a --temperature above 0."
        )
    given, ends = config.part(PromptOptions), config.part(LengthOptions)
    arriving = config.stream is True and only_stdin(given)
    chats = [] if config.messages is None else unanswered(source_of(config.messages))
    later = arriving or chats
    requests = [Request(text="")] if later else (yield from given_requests(given))
    model = yield from found_model(config.part(SourceOptions))
    if chats:
        requests = yield from chat_requests(chats, model, ends)
    seed = chosen_seed(config.seed)
    prompts = yield from encoded(requests, model, ends, seed=seed, is_chat=bool(chats))
    yield from map(Alert, model.source.remarks())
    yield Notice(f"from {model.source.prefix}, seed {prompts[0].seed}")
    with memory.explained(config.device, config.gpu_bytes, remedy=LEANER):
        writer = yield from loaded_writer(config, model, prompts)
        job = Job(config=config, prompts=prompts, tokenizer=model.tokenizer, writer=writer)
        yield from answered(job, model, seed) if arriving else delivered(job)


def loaded_writer(
    config: GenerateConfig, model: FoundModel, prompts: list[Prompt]
) -> Generator[Record, None, Writer]:
    """Returns what lets the samples grow; raises BadDataError if the checkpoint is damaged."""
    rows = min(config.batch_size, config.nsamples * len(prompts))
    small = None
    if config.draft_model is not None:
        small = yield from small_model(config.draft_model, config.part(SourceOptions), model)
    reading = config.part(ReadingOptions)
    engine = yield from engine_of(model, reading)
    drafter: Drafts | None = None
    if small is not None:
        drafter = yield from model_drafter(small, reading, engine)
    elif config.speculates:
        drafter = yield from drafter_of(
            model.source,
            engine,
            rows=rows,
            batch_size=config.batch_size,
            speculate=config.speculate,
            quiet=config.quiet,
        )
    return writer_of(config, engine, model.tokenizer, drafter)


def answered(job: Job, model: FoundModel, seed: int) -> Iterator[Record]:
    """Yields the samples of each prompt that comes on stdin, before the next is read.

    The model is loaded by then. The numbers of prompts count on, as those of a file do.
    """
    printer = job.printer()
    config = dataclasses.replace(job.config, quiet=True)
    ends = config.part(LengthOptions)
    for number, request in enumerate(arriving_prompts(keep_line_ends=config.keep_line_ends)):
        prompts = yield from encoded([request], model, ends, seed=seed, first=number)
        yield from to_stdout(dataclasses.replace(job, config=config, prompts=prompts), printer)


def writer_of(
    config: GenerateConfig, engine: Engine, tokenizer: Tokenizer, drafter: Drafts | None = None
) -> Writer:
    """Returns what lets samples grow, in the way that the options ask for."""
    params = SamplingParams(
        **vars(config.part(SamplingOptions)),
        min_length=config.min_length,
        ends=tuple(sorted(tokenizer.ends)) if config.min_length else (),
    )
    search: BeamParams | ContrastParams | None = None
    if config.search == "beams":
        search = BeamParams(
            count=config.num_beams,
            sample=config.beam_sample,
            length_penalty=config.length_penalty,
            early_stopping=config.early_stopping,
        )
    elif config.search == "contrast":
        search = ContrastParams(config.penalty_alpha)
    return Writer(engine, tokenizer, params=params, search=search, drafter=drafter)


def delivered(job: Job) -> Iterator[Record]:
    """Writes the samples to where they are wanted."""
    config = job.config
    if config.destination_path is not None:
        yield from to_file(job, Path(config.destination_path))
    elif config.files:
        folder = Path(config.folder or DEFAULT_FOLDER)
        outputs.clean_up(folder)
        ending = ".jsonl" if config.format == "jsonl" else ".txt"
        for number, path in enumerate(outputs.names(folder, config.files, ending)):
            yield from to_file(job, path, first=number * config.nsamples)
    else:
        yield from to_stdout(job)


def check_destination(config: GenerateConfig) -> None:
    """Raises OutputError if the output cannot go where the config wants it."""
    if config.destination_path is not None:
        outputs.check_file(Path(config.destination_path), overwrite=config.overwrite)
    elif config.files:
        outputs.check_folder(Path(config.folder or DEFAULT_FOLDER))


def to_stdout(job: Job, printer: Printer | None = None) -> Iterator[Record]:
    """Yields each sample as one text once it has ended, or all in pieces as they are certain."""
    printer = printer or job.printer()
    streams = job.config.streams(terminal=sys.stdout.isatty())
    with Growth(job, shown=streams or sys.stdout.isatty()) as growth:
        for samples in job.batches():
            waiting = deque(samples)
            for progress in growth.of(samples):
                yield from progress
                if streams:
                    yield from map(Text, printer.growing(waiting))
            for sample in waiting:
                yield Text(printer.finished(sample))


def to_file(job: Job, path: Path, *, first: int = 0) -> Iterator[Record]:
    """Writes all samples to a file; they are numbered from `first` on."""
    printer = job.printer()
    with outputs.written(path, overwrite=job.config.overwrite) as aside, Growth(job) as growth:
        for samples in job.batches(first):
            yield from itertools.chain.from_iterable(growth.of(samples))
            atomic.write(aside, "".join(map(printer.finished, samples)), "ab")
    yield Notice(f"{growth.done} sample{'s' if growth.done > 1 else ''} in {path}")


class Growth(Count):
    """Shows how many samples have ended, and how far the others are, if their text does not."""

    def __init__(self, job: Job, *, shown: bool = False) -> None:
        """Takes what is written, and whether its text is shown while it is."""
        total, quiet = len(job.prompts) * job.config.nsamples, job.config.quiet or shown
        super().__init__("writing", total, quiet=quiet, unit="samples")
        self._writer = job.writer

    def of(self, samples: list[Sample]) -> Iterator[Iterator[Record]]:
        """Lets samples grow to their ends; yields the progress whenever they have grown."""
        growing = self._writer.grow(samples)
        if not self.done:
            growing = self.named(growing, COMPILING)
        for steps, _ in enumerate(growing, 1):
            # A verified draft is several tokens in a step; a search adds them all at its end.
            tokens = max(steps, *(len(sample.new.tokens) for sample in samples))
            yield self.advance(self.done, f"token {tokens:,}")
        yield self.advance(self.done + len(samples))
        yield map(Notice, self._writer.pop_warnings())
