"""Conversations in records of JSON: `messages`, or a `prompt` and its `completion`; all checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gpt2cli.chat_template import NAMES, ROLES, Conversation, Message
from gpt2cli.config.shared import CorpusOptions
from gpt2cli.errors import BadDataError
from gpt2cli.json_reader import Json
from gpt2cli.text import records
from gpt2cli.text.encodings import normalized_line_ends
from gpt2cli.text.sources import RECORDS, ReadingState, Source

MESSAGES = "messages"
PAIR = ("prompt", "completion")
# Messages, the last of which is the user's, and the other fields of their record.
Unanswered = tuple[tuple[Message, ...], dict[str, Json]]
FORM = 'Write {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", …}]}.'


def are_in(source: Source, options: CorpusOptions) -> bool:
    """Returns whether a file's records are conversations, as its first one is.

    Raises:
        BadDataError: the first record is not JSON.
    """
    if source.kind not in RECORDS or options.text_field is not None:
        return False
    first = next(records.records(source, options, ReadingState()), None)
    return first is not None and is_conversation(first[1])


def is_conversation(record: object) -> bool:
    """Returns whether a record has the fields of a conversation, whatever they hold."""
    if not isinstance(record, dict):
        return False
    return isinstance(record.get(MESSAGES), list) or all(name in record for name in PAIR)


def documents(
    source: Source, options: CorpusOptions, state: ReadingState
) -> Iterator[Conversation]:
    """Yields the conversations of a file.

    Raises:
        BadDataError: a record is not a whole conversation; says which.
    """
    for where, record in records.records(source, options, state):
        messages = messages_of(record, where)
        check_answered(messages, where)
        if not options.keep_line_ends and any("\r" in each.content for each in messages):
            state.converted.add(source)
            messages = tuple(
                Message(role=each.role, content=normalized_line_ends(each.content))
                for each in messages
            )
        yield Conversation(messages)


def unanswered(source: Source) -> list[Unanswered]:
    """Returns the conversations of a file, and the other fields of their records.

    Each ends with what the user says.

    Raises:
        MissingInputError: the file cannot be read.
        BadDataError: there is none, or a record is something else; says which.
    """
    found = []
    for where, record in records.records(source, CorpusOptions(dataset=()), ReadingState()):
        messages = messages_of(record, where)
        if messages[-1].role != "user":
            raise BadDataError(
                f"{where}: the last of its {len(messages)} messages is the assistant's; there is "
                "nothing to answer. Leave it out."
            )
        fields = record if isinstance(record, dict) else {}
        found.append((messages, {n: v for n, v in fields.items() if n not in (MESSAGES, *PAIR)}))
    if not found:
        raise BadDataError(f"{source}: no conversations in there. {FORM}")
    return found


def description(source: Source, options: CorpusOptions) -> tuple[str, str]:
    """Returns what a file's records are, and its first message; raises as `documents` does."""
    first = next(documents(source, options, ReadingState())).messages[0]
    return "every record is a conversation", f"{NAMES[first.role]} {first.content}"


def messages_of(record: object, where: str) -> tuple[Message, ...]:
    """Returns the messages of a record, in an order in which people speak.

    Raises:
        BadDataError: it has none, or they are not messages, or out of order.
    """
    found = record if isinstance(record, dict) else {}
    if MESSAGES in found:
        listed = found[MESSAGES]
    elif all(name in found for name in PAIR):
        names = zip(("user", "assistant"), PAIR, strict=True)
        listed = [{"role": role, "content": found[name]} for role, name in names]
    else:
        raise BadDataError(
            f"{where}: not a conversation: {records.json_shown(record)}. {FORM} Put other texts "
            "into another file."
        )
    if not isinstance(listed, list) or not listed:
        raise BadDataError(f"{where}: its messages are {records.json_shown(listed)}. {FORM}")
    messages = tuple(
        message_of(each, f"{where}, message {number}") for number, each in enumerate(listed, 1)
    )
    check_order(messages, where)
    return messages


def message_of(record: object, where: str) -> Message:
    """Returns a message.

    Raises:
        BadDataError: it has no known role, or no content; says which.
    """
    if not isinstance(record, dict) or "role" not in record or "content" not in record:
        shown = records.json_shown(record)
        raise BadDataError(f"{where}: it lacks a role or a content: {shown}. {FORM}")
    role = record["role"]
    if role not in ROLES:
        raise BadDataError(
            f"{where}: its role is {records.json_shown(role)}; there are {', '.join(ROLES)}."
        )
    content = records.checked_text(record["content"], "content", where)
    if not content.strip():
        raise BadDataError(f"{where}: its content is empty. Leave out the conversation.")
    return Message(role=role, content=content)


def check_order(messages: Sequence[Message], where: str) -> None:
    """Checks that a user and the assistant speak in turn, after one system message at most.

    Raises:
        BadDataError: another one speaks.
    """
    first = 1 if messages[0].role == "system" else 0
    for number, message in enumerate(messages[first:]):
        expected = ("user", "assistant")[number % 2]
        if message.role != expected:
            place = number + first + 1
            raise BadDataError(
                f"{where}, message {place}: {message.role} speaks, and it is the turn of "
                f"{expected}. A conversation is: system (or not), then user and assistant in turn."
            )
    if len(messages) == first:
        raise BadDataError(f"{where}: nobody speaks after the system message. {FORM}")


def check_answered(messages: Sequence[Message], where: str) -> None:
    """Raises BadDataError unless the assistant has the last word: there is an answer to learn."""
    if messages[-1].role != "assistant":
        raise BadDataError(
            f"{where}: the last of its {len(messages)} messages is not answered. Leave it out, or "
            "give the assistant's answer."
        )
