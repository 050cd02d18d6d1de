"""`gpt2cli chat`: lines of a user in, a model's answers out, until the lines end."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

from gpt2cli.chat_template import STOPS
from gpt2cli.commands.engines import SINGLE, FoundModel, engine_of, found_model
from gpt2cli.commands.prompting import SEED_BITS, chosen_seed
from gpt2cli.config.chat import ChatConfig
from gpt2cli.config.sampling import SamplingOptions
from gpt2cli.config.shared import ReadingOptions, SourceOptions
from gpt2cli.errors import Gpt2cliError, OutputError, UsageError, shortened
from gpt2cli.files import atomic, outputs
from gpt2cli.inference.engine import Engine
from gpt2cli.inference.samples import Prompt, Sample
from gpt2cli.inference.sampling import SamplingParams
from gpt2cli.inference.writer import Writer
from gpt2cli.records import Alert, Notice, Record, Text
from gpt2cli.runtime.signals import interrupts_caught
from gpt2cli.storage.source import CheckpointSource
from gpt2cli.text.chat_history import ChatHistory, prompt_room
from gpt2cli.text.prompts import arriving_lines
from gpt2cli.training import memory

ASKING = "> "
# The longest line that is read (bytes).
MOST_LINE = 1 << 20
MOST_SEED, SEED = 2**SEED_BITS - 1, re.compile(r"[0-9]{1,10}")
HELP = """\
/reset      forget all turns
/undo       forget the last turn
/seed N     choose other random numbers: the same seed gives the same answers
/save FILE  write the turns so far to a new file
/help       show this
A line that begins with // is a text that begins with /. Ctrl-C stops an answer, Ctrl-D ends."""


def chat(config: ChatConfig) -> Iterator[Record]:
    """Yields an answer to each line that is typed, or read from a pipe.

    Raises MissingInputError or BadDataError if the model is missing or damaged, UsageError if it
    knows no roles and a system message is given. If nobody types, the error of the first line that
    failed is raised once the others are answered.
    """
    config.check_device()
    model = yield from found_model(config.part(SourceOptions))
    check_system(config.system, model.source)
    yield from map(Alert, model.source.remarks())
    with memory.explained(config.device, config.gpu_bytes, remedy=SINGLE):
        engine = yield from engine_of(model, config.part(ReadingOptions))
        session = ChatSession(config, model, engine)
        yield Notice(f"from {model.source.prefix}, seed {session.seed}")
        yield Notice(session.greeting)
        failed: list[Gpt2cliError] = []
        for line in lines_read():
            try:
                yield from session.replied(line)
            except Gpt2cliError as error:
                failed.append(error)
                yield Alert(str(error))
    if sys.stdin.isatty():
        yield Text("\n")
    elif failed:
        count = "A line" if len(failed) == 1 else f"{len(failed)} lines"
        raise type(failed[0])(f"{count} of stdin failed, the first with: {failed[0]}")


def check_system(system: str | None, source: CheckpointSource) -> None:
    """Raises UsageError if a system message is given that the model could not understand."""
    if system is not None and not source.chat_template:
        raise UsageError(
            f"--system needs a run that was tuned on conversations, and {source.folder} was not."
        )
    if system is not None and not system.strip():
        raise UsageError("--system needs a text, not an empty one.")


def lines_read() -> Iterator[str]:
    """Yields the lines that are typed, or those of a pipe or file; empty ones are left out."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        # It lets `input` edit a line, and find the earlier ones.
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401
        with contextlib.suppress(EOFError):
            while True:
                yield from filter(str.strip, [input(ASKING)])
        return
    yield from (text for _, text in arriving_lines(MOST_LINE))


class ChatSession:
    """A chat with a model that stays loaded; `greeting` says in a line what the user can do."""

    def __init__(self, config: ChatConfig, model: FoundModel, engine: Engine) -> None:
        self.seed = chosen_seed(config.seed)
        self._tokenizer, self._n_ctx, self._length = model.tokenizer, model.n_ctx, config.length
        params = SamplingParams(**vars(config.part(SamplingOptions)))
        self._writer = Writer(engine, model.tokenizer, params=params)
        self._has_roles = bool(model.source.chat_template)
        self._history = ChatHistory(
            model.tokenizer, has_roles=self._has_roles, system=config.system or ""
        )
        how = "The assistant answers each line" if self._has_roles else "Each line is continued"
        self.greeting = f"{how}. /help lists the commands; Ctrl-D ends."

    def replied(self, line: str) -> Iterator[Record]:
        """Yields what comes of a line: an answer, or what a command does.

        Raises UsageError if there is no such command, OutputError if a file cannot be written.
        """
        if line.startswith("/") and not line.startswith("//"):
            name, _, argument = line[1:].strip().partition(" ")
            yield from self._obeyed(name, argument.strip())
        else:
            yield from self._answered(line.removeprefix("/"))

    def _answered(self, said: str) -> Iterator[Record]:
        """Yields the answer as it grows, and adds both to the turns."""
        asked = self._history.prompt(said, prompt_room(self._n_ctx, self._length))
        if asked.dropped:
            yield Alert(asked.remark(self._n_ctx))
        if asked.cut:
            yield Alert(f"{asked.cut:,} tokens are cut from the left: the text is too long.")
        prompt = Prompt(
            number=len(self._history.turns),
            text=asked.text,
            tokens=asked.tokens,
            length=self._length,
            stops=STOPS if self._has_roles else (),
            seed=self.seed,
            is_chat=self._has_roles,
        )
        sample = Sample(prompt, 0, self._tokenizer, include_prefix=False)
        answer = yield from self._grown(sample)
        added = self._history.add(said, answer)
        yield from map(Notice, self._writer.pop_warnings())
        if not added:
            yield Notice("no answer; what you wrote is forgotten")
        elif sample.new.reason is None:
            yield Notice("stopped; /undo forgets this turn")
        elif sample.new.reason == "length":
            yield Notice(f"cut at --length {self._length}")

    def _grown(self, sample: Sample) -> Generator[Record, None, str]:
        """Yields a sample's text as it becomes certain, up to Ctrl-C; returns what was shown."""
        shown = ""
        with interrupts_caught() as stop:
            for _ in self._writer.grow([sample]):
                text = sample.whole if sample.new.done else sample.certain
                if len(text) > len(shown):
                    yield Text(text[len(shown) :])
                    shown = text
                if stop.interrupted:
                    break
        if not shown.endswith("\n"):
            yield Text("\n")
        return shown

    def _obeyed(self, name: str, argument: str) -> Iterator[Record]:
        """Does what a command says; raises as `replied`."""
        if name == "help":
            yield Alert(HELP)
        elif name == "reset":
            self._history.reset()
            yield Notice("All turns are forgotten.")
        elif name == "undo":
            done = self._history.undo()
            yield Notice("The last turn is forgotten." if done else "There is no turn to forget.")
        elif name == "seed":
            if not SEED.fullmatch(argument) or int(argument) > MOST_SEED:
                raise UsageError(f"/seed needs a number up to {MOST_SEED}: /seed 7")
            self.seed = int(argument)
            yield Notice(f"seed {self.seed}")
        elif name == "save":
            yield from self._saved(argument)
        else:
            raise UsageError(f"There is no command /{shortened(name, 40)}. /help lists them.")

    def _saved(self, name: str) -> Iterator[Record]:
        """Writes the turns to a new file; raises as `replied`."""
        if not name or not self._history.turns:
            raise UsageError("/save needs a turn, and the name of a new file: /save chat.jsonl")
        if "\0" in name:
            raise UsageError(f"No file can be called {shortened(name)}. Give another name.")
        path = Path(name)
        if os.path.lexists(path):
            raise OutputError(f"{shortened(path)} exists and stays as it is. Give another name.")
        with outputs.written(path, overwrite=False) as aside:
            atomic.write(aside, self._history.saved(), "ab")
        count = len(self._history.turns)
        yield Notice(f"{count} {'turn' if count == 1 else 'turns'} in {shortened(path)}")
