"""Conversations to tune on: sums, and what the commands of gpt2cli do.

    python -m tests.chat_corpus > chats.jsonl

They are made by a rule. Each of the SUMS smallest numbers is added to each; each command of
gpt2cli is asked for in WAYS. A conversation has one to three of these questions, in an order that
a random generator with a fixed seed draws.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator

from gpt2cli.application import SUMMARIES

SUMS = 10
WAYS = ("What does {} do?", "What is {} for?", "Tell me about {}.")
COUNT = 400
SYSTEM = "Answer briefly."

Message = dict[str, str]


def questions() -> list[tuple[str, str]]:
    """Returns each question with its answer."""
    sums = [
        (f"What is {a} plus {b}?", f"{a} plus {b} is {a + b}.")
        for a in range(SUMS)
        for b in range(SUMS)
    ]
    commands = [
        (way.format(name), f"{name}: {summary}")
        for name, summary in SUMMARIES.items()
        for way in WAYS
    ]
    return sums + commands * (len(sums) // len(commands))


def conversations() -> Iterator[list[Message]]:
    """Yields COUNT conversations, every third with a system message."""
    drawn = random.Random(1)
    for number in range(COUNT):
        messages = [{"role": "system", "content": SYSTEM}] if number % 3 == 0 else []
        for asked, answer in drawn.sample(questions(), 1 + number % 3):
            messages.append({"role": "user", "content": asked})
            messages.append({"role": "assistant", "content": answer})
        yield messages


def jsonl() -> str:
    """Returns the conversations as a file holds them."""
    return "".join(json.dumps({"messages": messages}) + "\n" for messages in conversations())


if __name__ == "__main__":
    sys.stdout.write(jsonl())
