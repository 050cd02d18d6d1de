"""The settings of `gpt2cli generate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from gpt2cli.config.sampling import DEFAULT_TEMPERATURE, SamplingOptions, SearchOptions
from gpt2cli.config.shared import ReadingOptions, SeedOptions, SourceOptions
from gpt2cli.errors import UsageError
from gpt2cli.options import Config, argument, flag, option

DEFAULT_DELIMITER = "=" * 20 + "\n"
DEFAULT_FOLDER = "gen"
# Options that contradict each other: one, and those that do not go with it.
CONTRADICTIONS = {
    "texts": "prefix messages",
    "prefix": "messages",
    "prefix_file": "messages",
    "prompts": "messages",
    "ignore_eos": "min_length",
    "penalty_alpha": "num_beams",
    "speculate": "num_beams penalty_alpha",
    "draft_model": "num_beams penalty_alpha",
    "destination_path": "folder nfiles",
    "stream": "num_beams destination_path folder nfiles",
    "compare": "stream messages speculate draft_model destination_path folder nfiles",
}


@dataclass(frozen=True, kw_only=True)
class PromptOptions(Config):
    """What is continued."""

    group = "Prompts"
    texts: tuple[str, ...] = argument("Texts to continue, as --prefix gives them.", default=())
    prefix: tuple[str, ...] = option((), "Text to continue (repeatable).")
    prefix_file: str | None = option(
        None, "File that holds one text to continue; a line break at its end is left out."
    )
    prompts: str | None = option(
        None,
        "File of texts to continue: one a line, or .json or .jsonl with `prompt`, which may set "
        "length, seed and stop. -: stdin, which is also read if it is a pipe and no text is given; "
        "with --stream each line is answered as it comes.",
    )
    messages: str | None = option(
        None,
        "File of conversations to answer: .json or .jsonl with `messages`, the last one of which "
        "is the user's; for runs tuned on conversations. -: stdin.",
    )
    keep_line_ends: bool = option(
        False, r"Keeps \r\n and \r in texts to continue; else they become \n."
    )

    @property
    def prefixes(self) -> tuple[str, ...]:
        """The texts that the command line gives."""
        return self.texts or self.prefix


@dataclass(frozen=True, kw_only=True)
class LengthOptions(Config):
    """Where a sample ends."""

    group = "Length"
    length: int | None = option(
        None, "Generates at most N tokens.", least=1, unset="what is left of the window"
    )
    min_length: int = option(
        0, "Generates at least N tokens before the end-of-text token (0: as it comes).", least=0
    )
    stop: tuple[str, ...] = option((), "Ends a sample before this text (repeatable).")
    truncate: str | None = option(None, "Another name of --stop.")
    ignore_eos: bool = option(False, "Goes on beyond the end-of-text token.")

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end a sample."""
        return self.stop if self.truncate is None else (*self.stop, self.truncate)


@dataclass(frozen=True, kw_only=True)
class BatchOptions(Config):
    """How many samples there are, and how many at once."""

    group = "Batch"
    nsamples: int = option(1, "Samples for each text; with beams: the N best ones.", least=1)
    batch_size: int = option(1, "Samples generated at once; with beams: texts.", least=1)
    speculate: bool | None = option(
        None,
        "Looks up in the text and in the run's corpus what may follow, and computes several "
        "tokens at once if it was right; the text stays the same.",
        unset="on with --batch-size 1 on a CPU with Numba",
    )
    draft_model: str | None = option(
        None,
        "Smaller model that guesses what may follow, in place of the look-up: as --model-name, or "
        "a run's folder; of the same vocabulary.",
    )


@dataclass(frozen=True, kw_only=True)
class OutputOptions(Config):
    """Where the samples go, and in which form."""

    group = "Output"
    compare: tuple[str, ...] = option(
        (),
        "Continues each text in several ways, side by side: greedy, beam5, top-k40, top-p0.9, "
        "contrastive, …, or name:option=value; commas between (repeatable).",
    )
    include_prefix: bool = option(True, "Begins each sample with its prefix.")
    sample_delim: str = option(DEFAULT_DELIMITER, "Text between two samples.")
    format: Literal["text", "jsonl"] = option(
        "text", "jsonl: a line of JSON for each sample, with its tokens and their probabilities."
    )
    stream: bool | None = option(
        None,
        "Shows the text while it is generated.",
        unset="on a terminal, if the other options allow it",
    )
    destination_path: str | None = option(
        None, "Writes all samples to this file instead of stdout."
    )
    nfiles: int | None = option(None, "Writes N files, each with all samples.", least=1, unset=1)
    folder: str | None = option(
        None,
        "Writes files into this folder, beside what is there.",
        unset=f"{DEFAULT_FOLDER} with --nfiles",
    )
    overwrite: bool = option(False, "Replaces --destination-path if it exists.")


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(
    PromptOptions,
    LengthOptions,
    BatchOptions,
    SamplingOptions,
    SearchOptions,
    OutputOptions,
    ReadingOptions,
    SeedOptions,
    SourceOptions,
):
    """Write text from a run, or from a base model.

    The text goes to stdout and everything else to stderr.

    Examples:
        gpt2cli generate "Once upon a time" --length 100
        gpt2cli generate --model-name 124M --nsamples 5 --top-k 40 --seed 1
        gpt2cli generate --prompts prompts.txt --format jsonl > samples.jsonl
    """

    group = "Memory and device"
    multi_gpu: bool = option(
        False, "Accepted from gpt-2-simple, and ignored: one device generates."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        values = ((field, getattr(self, field.name)) for field in fields(self))
        given = {field.name for field, value in values if value not in (field.default, False)}
        for one, others in CONTRADICTIONS.items():
            name = "TEXT" if one == "texts" else flag(one)
            for other in others.split():
                refuse_both({one, other} <= given, name, flag(other))
        as_json = self.format == "jsonl"
        refuse_both(as_json and "sample_delim" in given, "--sample-delim", "--format jsonl")
        if self.min_length > (self.length or self.min_length):
            raise UsageError(f"--min-length {self.min_length} is more than --length {self.length}.")
        if self.draft_model is not None:
            refuse_both(self.speculate is False, "--draft-model", "--no-speculate")
            refuse_both(self.batch_size > 1, "--draft-model", "--batch-size above 1")
        if "" in self.stops:
            raise UsageError("--stop and --truncate need a text, not an empty one.")
        if self.destination_path == "" or self.folder == "":
            raise UsageError("--destination-path and --folder need a name, not an empty one.")
        check_search(self)

    @property
    def speculates(self) -> bool:
        """Whether several tokens may be computed at once."""
        wanted = self.batch_size == 1 if self.speculate is None else self.speculate
        return wanted and self.search == "tokens"

    @property
    def draws(self) -> bool:
        """Whether random numbers choose the tokens."""
        if self.search == "beams":
            return self.beam_sample
        return self.search == "tokens" and self.temperature > 0

    @property
    def files(self) -> int:
        """How many files are written to a folder; 0: none."""
        return (self.nfiles or 1) if self.folder or self.nfiles else 0

    def streams(self, *, terminal: bool) -> bool:
        """Whether text is printed while it grows: as asked, else on a terminal, if it can be."""
        possible = self.format == "text" and self.search != "beams"
        return possible and (terminal if self.stream is None else self.stream)

    @property
    def search(self) -> Literal["tokens", "beams", "contrast"]:
        """The search that finds the text."""
        if self.num_beams > 1:
            return "beams"
        return "contrast" if self.penalty_alpha else "tokens"


def check_search(config: GenerateConfig) -> None:
    """Raises UsageError if options on how tokens are chosen contradict each other."""
    drawing = {
        "--temperature": config.temperature not in (0, DEFAULT_TEMPERATURE),
        "--top-p": 0 < config.top_p < 1,
        "--min-p": config.min_p > 0,
        "--typical-p": config.typical_p < 1,
    }
    searching = {"--beam-sample": config.beam_sample, "--early-stopping": config.early_stopping}
    searching["--length-penalty"] = config.length_penalty != 1
    if config.search == "beams":
        if config.nsamples > config.num_beams:
            raise UsageError(
                f"--nsamples {config.nsamples} is more than --num-beams {config.num_beams} find."
            )
        if config.beam_sample:
            refuse_both(config.temperature == 0, "--temperature 0", "--beam-sample")
        elif given := first_given(drawing | {"--top-k": config.top_k > 0}):
            raise UsageError(
                f"{given} and --num-beams contradict each other without --beam-sample: beams are "
                "the likeliest candidates, and none is drawn."
            )
    elif given := first_given(searching):
        raise UsageError(f"{given} is of beams; give --num-beams above 1.")
    if config.search == "contrast":
        if config.top_k < 2:
            raise UsageError("--penalty-alpha needs --top-k of 2 or more: how many candidates.")
        if given := first_given(drawing):
            raise UsageError(f"{given} and --penalty-alpha contradict each other: none is drawn.")


def refuse_both(given: bool, one: str, other: str) -> None:
    """Raises UsageError, naming both options, if two are given that contradict each other."""
    if given:
        raise UsageError(f"{one} and {other} contradict each other; give one of them.")


def first_given(options: Mapping[str, Any]) -> str | None:
    """Returns the name of the first option that was given, or None."""
    return next((name for name, given in options.items() if given), None)
