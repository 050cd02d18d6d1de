"""How a conversation is written as text: a line begins with the speaker's name and a colon."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = get_args(Role)
# How a message's line begins. Ordinary text: every program that knows the model's tokens knows it.
NAMES: dict[Role, str] = {"system": "System:", "user": "User:", "assistant": "Assistant:"}
# An answer ends before one of these, or at the end of text.
STOPS = tuple(f"\n{name}" for name in NAMES.values())
# The same for transformers and llama.cpp, in Jinja.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '' if loop.first else '\\n' -}}"
    "{{- {'system': 'System: ', 'user': 'User: ', 'assistant': 'Assistant: '}[message['role']] -}}"
    "{{- message['content'] | trim"
    " | replace('\\nSystem:', '\\n System:')"
    " | replace('\\nUser:', '\\n User:')"
    " | replace('\\nAssistant:', '\\n Assistant:')"
    " | replace(eos_token, eos_token[:1] + ' ' + eos_token[1:]) -}}"
    "{%- endfor -%}"
    "{{- '\\nAssistant:' if add_generation_prompt else eos_token -}}"
)


@dataclass(frozen=True, kw_only=True)
class Message:
    """What one speaker says."""

    role: Role
    content: str


@dataclass(frozen=True)
class Conversation:
    """A document that is messages, in order; the last one is the assistant's."""

    messages: tuple[Message, ...]


class Part(NamedTuple):
    """A stretch of a conversation's text. Its first and last token reach into no other part.

    The assistant writes it if it `answers`: an answer, or what ends one.
    """

    text: str
    answers: bool


def parts(messages: Sequence[Message], end: str) -> Iterator[Part]:
    """Yields a conversation's text, which `end`, the text of the end-of-text token, closes."""
    answered = False
    for number, message in enumerate(messages):
        # The name after an answer is what ends it.
        yield Part(("\n" if number else "") + NAMES[message.role], answered)
        answered = message.role == "assistant"
        yield Part(" " + unmarked(message.content, end), answered)
    yield Part(end, answered)


def prompt(messages: Sequence[Message], end: str) -> str:
    """Returns the text after which the assistant's next answer begins; it begins with a space."""
    written = "".join(part.text for part in parts(messages, end))
    return f"{written.removesuffix(end)}\n{NAMES['assistant']}"


def unmarked(content: str, end: str) -> str:
    """Returns a content that nobody can take for a message's beginning or a conversation's end.

    White space around it is left out. A line in it that begins with a speaker's name gets a space
    before it, and the text of the end-of-text token a space after its first character.
    """
    text = content.strip()
    for stop in STOPS:
        text = text.replace(stop, f"\n {stop[1:]}")
    return text.replace(end, f"{end[:1]} {end[1:]}")
