"""What `gpt2cli generate` continues: texts from everywhere, as prompts that fit the window."""

from __future__ import annotations

import secrets
from collections.abc import Generator

from gpt2cli.chat_template import STOPS
from gpt2cli.config.chat import DEFAULT_LENGTH
from gpt2cli.config.generate import GenerateConfig
from gpt2cli.errors import BadDataError
from gpt2cli.inference.samples import Prompt
from gpt2cli.records import Alert, Progress, Record
from gpt2cli.storage.source import CheckpointSource
from gpt2cli.text import markers
from gpt2cli.text.chat_history import ChatHistory, prompt_room
from gpt2cli.text.conversations import Unanswered
from gpt2cli.text.prompts import Request, read_prompts, reads_stdin_unasked
from gpt2cli.text.sources import STDIN_NAMES
from gpt2cli.text.tokenizer import Tokenizer

SEED_BITS = 32


def answers_as_they_come(config: GenerateConfig) -> bool:
    """Returns whether each prompt on stdin is answered before the next is read."""
    others = config.prefix_file, config.prompts, config.messages
    unasked = reads_stdin_unasked(config.prefixes, *others)
    named = config.prompts in STDIN_NAMES and not config.prefixes and config.prefix_file is None
    return config.stream is True and (unasked or named)


def given_requests(config: GenerateConfig) -> Generator[Record, None, list[Request]]:
    """Returns all that is to be continued; yields a line if stdin is waited for unasked."""
    if reads_stdin_unasked(config.prefixes, config.prefix_file, config.prompts):
        # Whoever left a pipe open by mistake sees what is waited for.
        yield Progress("reading prompts from stdin")
    return read_prompts(
        prefix=config.prefixes,
        prefix_file=config.prefix_file,
        prompts=config.prompts,
        keep_line_ends=config.keep_line_ends,
    )


def chat_requests(
    chats: list[Unanswered],
    config: GenerateConfig,
    source: CheckpointSource,
    tokenizer: Tokenizer,
) -> Generator[Record, None, list[Request]]:
    """Returns conversations as texts; their oldest turns make room for an answer.

    Raises:
        BadDataError: the model was not tuned on conversations.
    """
    if not source.chat_template:
        raise BadDataError(
            f"{source.folder} was not tuned on conversations, and --messages needs that. Tune it, "
            "or give --prompts."
        )
    room = prompt_room(source.hparams.n_ctx, config.length or DEFAULT_LENGTH)
    requests = []
    for number, (messages, others) in enumerate(chats, 1):
        prompt = ChatHistory.of(messages, tokenizer).prompt(messages[-1].content, room)
        if prompt.dropped:
            yield Alert(f"conversation {number}: {prompt.remark(source.hparams.n_ctx)}")
        stops = (*config.stops, *STOPS)
        length = config.length or max(source.hparams.n_ctx - len(prompt.tokens), 1)
        requests.append(Request(text=prompt.text, length=length, stops=stops, others=others))
    return requests


def encoded(
    requests: list[Request],
    tokenizer: Tokenizer,
    config: GenerateConfig,
    *,
    n_ctx: int,
    first: int = 0,
) -> Generator[Record, None, list[Prompt]]:
    """Returns the requests as prompts that fit the window; yields a line for each that is cut.

    They are numbered from `first` on; one that has a seed of its own is the first of that seed.

    Raises:
        BadDataError: a text holds half a character.
    """
    yield from map(Alert, markers.remarks([each.text for each in requests], tokenizer))
    prompts = []
    seed = secrets.randbits(SEED_BITS) if config.seed is None else config.seed
    for number, request in enumerate(requests, first):
        tokens = tokenizer.encode(request.text, special=True) or [tokenizer.end_of_text]
        if len(tokens) > n_ctx:
            cut = len(tokens) - n_ctx
            yield Alert(f"prefix {number + 1}: {cut} tokens are cut from its left.")
            tokens = tokens[-n_ctx:]
        prompt = Prompt(
            number=number if request.seed is None else 0,
            text=request.text,
            tokens=tokens,
            length=request.length or config.length or max(n_ctx - len(tokens), 1),
            stops=config.stops if request.stops is None else request.stops,
            ignore_end=config.ignore_eos,
            seed=seed if request.seed is None else request.seed,
            others=request.others,
            is_chat=config.messages is not None,
        )
        prompts.append(prompt)
    return prompts
