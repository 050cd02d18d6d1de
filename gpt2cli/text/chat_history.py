"""A chat's turns, and as much of them as the model's window holds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from gpt2cli import chat_template
from gpt2cli.chat_template import Message
from gpt2cli.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatPrompt:
    """What the model sees of a chat: a text, and as many of its last tokens as there is room for.

    Attributes:
        dropped: turns that have no room any more, and had some before.
        cut: tokens that were cut from the text's left, as even the newest part is too long.
    """

    text: str
    tokens: list[int]
    dropped: int
    cut: int

    def remark(self, n_ctx: int) -> str:
        """Returns a line on the turns that have no room in a window."""
        turns = "turn" if self.dropped == 1 else f"{self.dropped} turns"
        return f"the oldest {turns} had no room in the window of {n_ctx:,} tokens."


def prompt_room(n_ctx: int, length: int) -> int:
    """Returns how many tokens of a prompt leave room for an answer of `length`.

    It is half the window at least: a longer answer slides the window.
    """
    return max(n_ctx - length, n_ctx // 2, 1)


class ChatHistory:
    """The turns of a chat so far, the oldest first."""

    def __init__(self, tokenizer: Tokenizer, *, has_roles: bool, system: str = "") -> None:
        """Takes whether the model knows roles, and the system message, if there is one."""
        # What the user has said, and what the model has answered.
        self.turns: list[tuple[str, str]] = []
        self._tokenizer, self._has_roles = tokenizer, has_roles
        self._system = [Message(role="system", content=system)] if system else []
        # The first turn that the model still sees.
        self._first = 0

    @classmethod
    def of(cls, messages: Sequence[Message], tokenizer: Tokenizer) -> ChatHistory:
        """Returns the turns of a conversation, but for a last message that is not answered."""
        first = 1 if messages[0].role == "system" else 0
        system = "".join(message.content for message in messages[:first])
        history = cls(tokenizer, has_roles=True, system=system)
        for asked, answer in zip(messages[first::2], messages[first + 1 :: 2], strict=False):
            history.add(asked.content, answer.content)
        return history

    def prompt(self, said: str, room: int) -> ChatPrompt:
        """Returns what the model is to continue after what the user has said now.

        The oldest turns make room for what is new: at most `room` tokens are seen.
        """
        before = self._first = min(self._first, len(self.turns))
        while True:
            text = self._written(said)
            tokens = self._tokenizer.encode(text, special=True)
            if len(tokens) <= room or self._first == len(self.turns):
                break
            self._first += 1
        return ChatPrompt(
            text=text,
            tokens=tokens[-room:],
            dropped=self._first - before,
            cut=max(len(tokens) - room, 0),
        )

    def add(self, said: str, answer: str) -> bool:
        """Adds a turn; returns False if it is not a turn: nobody can learn from an empty answer."""
        answered = bool(answer.strip()) or not self._has_roles
        if answered:
            self.turns.append((said, answer))
        return answered

    def undo(self) -> bool:
        """Removes the last turn; returns whether there was one."""
        self._first = 0
        return bool(self.turns) and bool(self.turns.pop())

    def reset(self) -> None:
        """Removes all turns; the system message stays."""
        self.turns.clear()
        self._first = 0

    def saved(self) -> str:
        """Returns all turns as a file holds them: `messages` in a line of JSON, or plain text."""
        if not self._has_roles:
            return self._plain(0)
        listed = [dataclasses.asdict(message) for message in self._messages(0)]
        return json.dumps({"messages": listed}, ensure_ascii=False) + "\n"

    def _messages(self, first: int) -> list[Message]:
        found = list(self._system)
        for said, answer in self.turns[first:]:
            found += Message(role="user", content=said), Message(role="assistant", content=answer)
        return found

    def _plain(self, first: int) -> str:
        return "".join(f"{said}{answer}\n" for said, answer in self.turns[first:])

    def _written(self, said: str) -> str:
        if self._has_roles:
            asked = [*self._messages(self._first), Message(role="user", content=said)]
            return chat_template.prompt(asked, self._tokenizer.end)
        return self._plain(self._first) + said
