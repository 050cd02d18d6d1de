"""`gpt2cli tokens`: a text in, its tokens out; or tokens in, their text out."""

from __future__ import annotations

import itertools
import json
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path

from gpt2cli.config.tokens import TokensConfig
from gpt2cli.errors import MissingInputError, UsageError
from gpt2cli.fetching.manifest import BUNDLED, DATA
from gpt2cli.files import paths
from gpt2cli.files.hub_names import HubName
from gpt2cli.json_reader import Json
from gpt2cli.records import Notice, Record, Text
from gpt2cli.storage import huggingface
from gpt2cli.storage.source import CheckpointSource, find_base
from gpt2cli.text.prompts import stdin_is_piped, text_of
from gpt2cli.text.sources import STDIN, source_of
from gpt2cli.text.tokenizer import Tokenizer, quoted_piece, read_tokenizer, whole_text

# Tokens that are printed at once.
AT_ONCE = 1000


def tokens(config: TokensConfig) -> Iterator[Record]:
    """Yields the tokens of each text, a line for each; or the text of ids.

    Raises UsageError if there is nothing to look at or an id is beyond the vocabulary, and
    MissingInputError or BadDataError if a text or a vocabulary is missing or damaged.
    """
    if not (config.texts or config.file or config.ids or stdin_is_piped()):
        raise UsageError("There is no text: give TEXT, --file or --ids, or a pipe as stdin.")
    if config.probabilities or config.next:
        # Loading it would slow the start of what needs only the vocabulary.
        from gpt2cli.commands.scoring import scored

        yield from scored(config)
        return
    source = yield from vocabulary_source(config)
    tokenizer = read_tokenizer(*source.vocabulary, source.hparams.n_vocab)
    yield Notice(f"vocabulary: {vocabulary_title(source, tokenizer)}")
    lists = token_lists(config, tokenizer, source.model_name)
    if config.ids and config.format == "text":
        yield from (Text(f"{tokenizer.decode(ids)}\n") for ids in lists)
        return
    yield from listed(lists, tokenizer, config.format)
    count, size = sum(map(len, lists)), sum(len(tokenizer.decode_bytes(ids)) for ids in lists)
    yield Notice(f"{count:,} tokens, {size:,} bytes of text")


def token_lists(config: TokensConfig, tokenizer: Tokenizer, name: str) -> list[list[int]]:
    """Returns the tokens of each text, or the ids that are given; raises as `tokens` does."""
    if not config.ids:
        return [tokenizer.encode(text, special=True) for text in given_texts(config)]
    for number in itertools.chain(*config.id_lists):
        if number >= tokenizer.vocab:
            raise UsageError(
                f"--ids: {number} is beyond the vocabulary of {name}, which has "
                f"{tokenizer.vocab:,} tokens: give 0 to {tokenizer.vocab - 1}."
            )
    return config.id_lists


def given_texts(config: TokensConfig) -> Iterator[str]:
    """Yields the texts from the command line, from files and from stdin, as they are."""
    for text in config.texts:
        yield text_of(source_of(STDIN)) if text == STDIN else text
    yield from (text_of(source_of(name)) for name in config.file)
    if not config.texts and not config.file:
        yield text_of(source_of(STDIN))


def vocabulary_source(config: TokensConfig) -> Generator[Record, None, CheckpointSource]:
    """Returns where the vocabulary is that is meant; a model that is named is fetched."""
    if (name := config.model_name) is not None:
        fetch = partial(fetch_missing, config)
        return (yield from find_base(config.model_dir, name, fetch, with_weights=False))
    run = config.run_folder
    if config.run_name is None:
        folder = next(filter(has_vocabulary, [run, *model_folders(Path(config.model_dir))]))
    elif has_vocabulary(run):
        folder = run
    else:
        raise MissingInputError(
            f"There is no run {run} with a vocabulary; {paths.names_in(run.parent)}. Give another "
            "--run-name, or --model-name."
        )
    shape = huggingface.hparams(folder)
    return CheckpointSource(folder=folder, hparams=shape, prefix=None, model_name=folder.name)


def fetch_missing(config: TokensConfig, folder: Path, hub: HubName | None) -> Iterator[Record]:
    """Fetches a base model; raises as `fetch_base` does."""
    # Loading it would slow the start of a command whose model is there.
    from gpt2cli.fetching.base import fetch_base

    yield from fetch_base(folder, hub, offline=config.offline, quiet=config.quiet)


def model_folders(model_dir: Path) -> Iterator[Path]:
    """Yields where models may be, in the order in which their vocabularies are taken."""
    yield from (model_dir / name for name in paths.FETCHED if name not in BUNDLED)
    if model_dir.is_dir():
        yield from sorted(model_dir.iterdir())
    yield from (DATA / name for name in BUNDLED)


def has_vocabulary(folder: Path) -> bool:
    """Returns whether a folder holds a model's shape and tokens."""
    shape = huggingface.CONFIG if huggingface.is_folder(folder) else paths.HPARAMS
    return (folder / shape).is_file() and huggingface.vocabulary_files(folder)[0].is_file()


def vocabulary_title(source: CheckpointSource, tokenizer: Tokenizer) -> str:
    """Returns a vocabulary in words: whose it is, its size, and how to have OpenAI's instead."""
    count = f"{tokenizer.vocab:,} tokens"
    if source.folder.parent != DATA:
        return f"{source.folder}, {count}"
    return (
        f"{source.folder.name}, {count}, bundled with gpt2cli; OpenAI's comes with "
        "`gpt2cli download 124M`"
    )


def listed(lists: list[list[int]], tokenizer: Tokenizer, form: str) -> Iterator[Text]:
    """Yields the lines of all tokens, some at once; an empty line is between two texts."""
    width = len(str(tokenizer.vocab - 1))
    for number, ids in enumerate(lists):
        if number and form == "text":
            yield Text("\n")
        numbered = enumerate(ids)
        while some := list(itertools.islice(numbered, AT_ONCE)):
            if form == "text":
                pieces = ((each, tokenizer.decode_bytes([each])) for _, each in some)
                lines = (f"{each:>{width}}  {quoted_piece(piece)}\n" for each, piece in pieces)
            else:
                facts = ({"position": at, **token_facts(each, tokenizer)} for at, each in some)
                lines = (json.dumps({"text": number, **each}) + "\n" for each in facts)
            yield Text("".join(lines))


def token_facts(token: int, tokenizer: Tokenizer) -> dict[str, Json]:
    """Returns a token's id, its text if it is whole characters, and its bytes."""
    piece = tokenizer.decode_bytes([token])
    return {"id": token, "piece": whole_text(piece), "bytes": piece.hex()}
