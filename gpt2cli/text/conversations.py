"""Conversations in records of JSON: `messages`, or a `prompt` and its `completion`; all checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from gpt2cli.chat_template import ROLES, Conversation, Message
from gpt2cli.errors import BadDataError
from gpt2cli.text import records
from gpt2cli.text.records import Records

MESSAGES = "messages"
# Who says what the other form has in its fields.
PAIR = {"prompt": "user", "completion": "assistant"}
FORM = 'Write {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", …}]}.'


def is_conversation(record: object) -> bool:
    """Returns whether a record has the fields of a conversation, whatever they hold."""
    if not isinstance(record, dict):
        return False
    return isinstance(record.get(MESSAGES), list) or all(name in record for name in PAIR)


def documents(found: Records, normalized: Callable[[str], str]) -> Iterator[Conversation]:
    """Yields records' conversations, their contents normalized; raises BadDataError for others."""
    for where, record in found:
        messages = messages_of(record, where)
        if messages[-1].role != "assistant":
            raise BadDataError(
                f"{where}: the last of its {len(messages)} messages is not answered. Leave it out, "
                "or give the assistant's answer."
            )
        changed = (replace(each, content=normalized(each.content)) for each in messages)
        yield Conversation(tuple(changed))


def messages_of(record: object, where: str) -> tuple[Message, ...]:
    """Returns a record's messages; raises BadDataError if it has none, or out of order."""
    found = record if isinstance(record, dict) else {}
    if MESSAGES in found:
        listed = found[MESSAGES]
    elif all(name in found for name in PAIR):
        listed = [{"role": role, "content": found[name]} for name, role in PAIR.items()]
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
    """Returns a message; raises BadDataError if it has no known role, or no content."""
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
    """Raises BadDataError unless, after a system message or none, user and assistant alternate."""
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
