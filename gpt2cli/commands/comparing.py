"""`gpt2cli generate --compare`: the same texts continued in several ways, side by side."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
import sys
import textwrap
from collections.abc import Generator, Iterator

from gpt2cli import layout
from gpt2cli.commands.engines import LEANER, engine_of, found_model
from gpt2cli.commands.generate import Growth, Job, writer_of
from gpt2cli.commands.prompting import chosen_seed, encoded, given_requests
from gpt2cli.config.generate import GenerateConfig, LengthOptions, PromptOptions
from gpt2cli.config.shared import ReadingOptions, SourceOptions
from gpt2cli.config.strategies import strategies
from gpt2cli.errors import shortened
from gpt2cli.inference.engine import Engine
from gpt2cli.inference.samples import Sample
from gpt2cli.json_reader import Json
from gpt2cli.records import Alert, Notice, Record, Text
from gpt2cli.text.prompts import Request
from gpt2cli.training import memory

LEAST_TEXT_WIDTH = 24
HEADING = ["strategy", "log-prob.", "distinct", "seconds", "text"]
NUMBERS = (1, 2, 3)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Written:
    """A sample, the name of the strategy that wrote it, and the place of its text (from 0)."""

    strategy: str
    place: int
    sample: Sample

    @property
    def words(self) -> list[str]:
        """The words of the new text."""
        return self.sample.new.text.lower().split()

    def record(self) -> str:
        """Returns a line of JSON with all that is known of the sample."""
        words = self.words
        counts: dict[str, Json] = {"words": len(words), "distinct_words": len(set(words))}
        own: dict[str, Json] = {"strategy": self.strategy}
        # Once to be first, and once to count even if a prompt's record says something else.
        facts = own | self.sample.facts() | own | counts
        return json.dumps(facts, ensure_ascii=False) + "\n"

    def rows(self, width: int) -> Iterator[list[str]]:
        """Yields its rows in a table whose last column has a width (characters)."""
        words, total = self.words, sum(self.sample.log_probabilities)
        distinct = f"{len(set(words))} of {len(words)}"
        cells = [self.strategy, f"{total:.2f}", distinct, f"{self.sample.seconds:.2f}"]
        for line in self.sample.new.text.strip().splitlines() or [""]:
            for part in textwrap.wrap(shortened(line, sys.maxsize), width) or [""]:
                yield [*cells, part]
                cells = [""] * len(cells)


def compared(config: GenerateConfig) -> Iterator[Record]:
    """Yields what each strategy makes of each text: a table on a terminal, else lines of JSON."""
    as_table = sys.stdout.isatty() and config.format == "text"
    seed = chosen_seed(config.seed)
    asked = strategies(dataclasses.replace(config, seed=seed))
    requests = yield from given_requests(config.part(PromptOptions))
    yield Notice(f"seed {seed}")
    written: list[Written] = []
    # What decides which weights are loaded.
    for _, group in itertools.groupby(
        asked, key=lambda each: (each[1].part(SourceOptions), each[1].precision)
    ):
        for one in written_from_one_source(list(group), requests):
            if isinstance(one, Record):
                yield one
            elif as_table:
                written.append(one)
            else:
                yield Text(one.record())
    if as_table:
        width = shutil.get_terminal_size().columns
        yield from (Text(table) for table in tables(written, len(requests), width))


def written_from_one_source(
    several: list[tuple[str, GenerateConfig]], requests: list[Request]
) -> Iterator[Record | Written]:
    """Yields the samples of strategies that share a model, which is loaded once."""
    first = several[0][1]
    model = yield from found_model(first.part(SourceOptions))
    yield from map(Alert, model.source.remarks())
    yield Notice(f"{', '.join(name for name, _ in several)}: from {model.source.prefix}")
    with memory.explained(first.device, first.gpu_bytes, remedy=LEANER):
        engine: Engine | None = None
        for name, each in several:
            prompts = yield from encoded(
                requests, model, each.part(LengthOptions), seed=chosen_seed(each.seed)
            )
            if engine is None:
                engine = yield from engine_of(model, each.part(ReadingOptions))
            writer = writer_of(each, engine, model.tokenizer)
            job = Job(config=each, prompts=prompts, tokenizer=model.tokenizer, writer=writer)
            yield from samples_of(job, name)


def samples_of(job: Job, strategy: str) -> Generator[Record | Written, None, None]:
    """Yields the samples of one strategy as they end, and how far they are."""
    with Growth(job) as growth:
        for samples in job.batches():
            yield from itertools.chain.from_iterable(growth.of(samples))
            for sample in samples:
                place = next(n for n, each in enumerate(job.prompts) if each is sample.prompt)
                yield Written(strategy=strategy, place=place, sample=sample)


def tables(written: list[Written], prompts: int, width: int) -> Iterator[str]:
    """Yields a table for each of several texts, for a terminal of a width (characters)."""
    taken = max(len(each.strategy) for each in written) + sum(map(len, HEADING[1:4])) + 4 * 2 + 4
    for number in range(prompts):
        found = [each for each in written if each.place == number]
        room = max(width - taken, LEAST_TEXT_WIDTH)
        rows = [HEADING, *(row for each in found for row in each.rows(room))]
        title = f"{shortened(found[0].sample.prompt.text)}\n" if found[0].sample.prompt.text else ""
        between = "\n" if number else ""
        yield f"{between}{title}" + "".join(f"{line}\n" for line in layout.table(rows, NUMBERS))
