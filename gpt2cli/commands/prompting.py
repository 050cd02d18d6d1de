"""What `gpt2cli generate` continues: texts from everywhere, as prompts that fit the window."""

from __future__ import annotations

import secrets
from collections.abc import Generator

from gpt2cli.chat_template import STOPS
from gpt2cli.commands.engines import FoundModel
from gpt2cli.config.chat import DEFAULT_LENGTH
from gpt2cli.config.generate import LengthOptions, PromptOptions
from gpt2cli.errors import BadDataError
from gpt2cli.inference.samples import Prompt
from gpt2cli.records import Alert, Progress, Record
from gpt2cli.text import markers
from gpt2cli.text.chat_history import ChatHistory, prompt_room
from gpt2cli.text.prompts import Request, Unanswered, read_prompts, reads_stdin_unasked
from gpt2cli.text.sources import STDIN_NAMES

SEED_BITS = 32


def chosen_seed(given: int | None) -> int:
    """Returns the seed that is given, or a new one."""
    return secrets.randbits(SEED_BITS) if given is None else given


def only_stdin(options: PromptOptions) -> bool:
    """Returns whether stdin, and nothing else, is continued."""
    others = options.prefix_file, options.prompts, options.messages
    unasked = reads_stdin_unasked(options.prefixes, *others)
    named = options.prompts in STDIN_NAMES and not options.prefixes and options.prefix_file is None
    return unasked or named


def given_requests(options: PromptOptions) -> Generator[Record, None, list[Request]]:
    """Returns all that is to be continued; yields a line if stdin is waited for unasked."""
    if reads_stdin_unasked(options.prefixes, options.prefix_file, options.prompts):
        # Whoever left a pipe open by mistake sees what is waited for.
        yield Progress("reading prompts from stdin")
    return read_prompts(
        prefix=options.prefixes,
        prefix_file=options.prefix_file,
        prompts=options.prompts,
        keep_line_ends=options.keep_line_ends,
    )


def chat_requests(
    chats: list[Unanswered], model: FoundModel, ends: LengthOptions
) -> Generator[Record, None, list[Request]]:
    """Returns conversations as texts; their oldest turns make room for an answer."""
    if not model.source.chat_template:
        raise BadDataError(
            f"{model.source.folder} was not tuned on conversations, and --messages needs that. "
            "Tune it, or give --prompts."
        )
    room = prompt_room(model.n_ctx, ends.length or DEFAULT_LENGTH)
    requests = []
    for number, (messages, others) in enumerate(chats, 1):
        prompt = ChatHistory.of(messages, model.tokenizer).prompt(messages[-1].content, room)
        if prompt.dropped:
            yield Alert(f"conversation {number}: {prompt.remark(model.n_ctx)}")
        stops = (*ends.stops, *STOPS)
        length = ends.length or max(model.n_ctx - len(prompt.tokens), 1)
        requests.append(Request(text=prompt.text, length=length, stops=stops, others=others))
    return requests


def encoded(
    requests: list[Request],
    model: FoundModel,
    ends: LengthOptions,
    *,
    seed: int,
    is_chat: bool = False,
    first: int = 0,
) -> Generator[Record, None, list[Prompt]]:
    """Returns the requests as prompts that fit the window; yields a line for each that is cut.

    They are numbered from `first` on; one that has a seed of its own is the first of that seed.
    Raises BadDataError if a text holds half a character.
    """
    tokenizer, n_ctx = model.tokenizer, model.n_ctx
    yield from map(Alert, markers.remarks([each.text for each in requests], tokenizer))
    prompts = []
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
            length=request.length or ends.length or max(n_ctx - len(tokens), 1),
            stops=ends.stops if request.stops is None else request.stops,
            ignore_end=ends.ignore_eos,
            seed=seed if request.seed is None else request.seed,
            others=request.others,
            is_chat=is_chat,
        )
        prompts.append(prompt)
    return prompts
