"""A chat's turns are written as the model knows them, and the oldest make room for what is new."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpt2cli.chat_template import Conversation, Message
from gpt2cli.config.shared import CorpusOptions
from gpt2cli.text.chat_history import ChatHistory, prompt_room
from gpt2cli.text.documents import content_of
from gpt2cli.text.sources import ReadingState, source_of
from gpt2cli.text.tokenizer import Tokenizer


def talked(tokenizer: Tokenizer, *, has_roles: bool = True) -> ChatHistory:
    system = "Be kind." if has_roles else ""
    history = ChatHistory(tokenizer, has_roles=has_roles, system=system)
    history.add("one", "two")
    history.add("three", "four")
    return history


def test_with_roles_the_prompt_ends_where_the_assistant_begins(tokenizer: Tokenizer) -> None:
    found = talked(tokenizer).prompt("five", 100)
    assert found.text == (
        "System: Be kind.\nUser: one\nAssistant: two\nUser: three\nAssistant: four\n"
        "User: five\nAssistant:"
    )
    assert found.tokens == tokenizer.encode(found.text)
    assert (found.dropped, found.cut) == (0, 0)


def test_without_roles_the_text_goes_on(tokenizer: Tokenizer) -> None:
    found = talked(tokenizer, has_roles=False).prompt("five", 100)
    assert found.text == "onetwo\nthreefour\nfive"


def test_the_oldest_turns_make_room_and_it_is_said_once(tokenizer: Tokenizer) -> None:
    history = talked(tokenizer)
    whole = history.prompt("five", 100)
    found = history.prompt("five", len(whole.tokens) - 1)
    assert found.text.startswith("System: Be kind.\nUser: three\nAssistant: four\nUser: five")
    assert (found.dropped, found.cut) == (1, 0)
    assert found.tokens == tokenizer.encode(found.text)
    again = history.prompt("five", len(whole.tokens) - 1)
    assert (again.text, again.dropped) == (found.text, 0)
    assert len(history.turns) == 2
    history.undo()
    assert history.prompt("five", 100).text.startswith("System: Be kind.\nUser: one\nAssis")


def test_what_is_said_now_is_cut_only_if_it_is_too_long_by_itself(tokenizer: Tokenizer) -> None:
    found = talked(tokenizer).prompt(" word" * 50, 20)
    assert (found.dropped, len(found.tokens)) == (2, 20)
    assert found.cut == len(tokenizer.encode(found.text)) - 20
    assert found.tokens == tokenizer.encode(found.text)[-20:]


def test_what_is_saved_can_be_tuned_on_if_an_answer_was_empty(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    history = talked(tokenizer)
    assert not history.add("five", " \n")
    assert history.add("six", "seven")
    (tmp_path / "chat.jsonl").write_text(history.saved())
    source = source_of(str(tmp_path / "chat.jsonl"))
    (found,) = content_of(source, CorpusOptions(dataset=()), 50257, ReadingState()).documents
    assert isinstance(found, Conversation)
    told = ["Be kind.", "one", "two", "three", "four", "six", "seven"]
    assert [message.content for message in found.messages] == told
    # Without roles a line is part of the text, whatever follows.
    assert talked(tokenizer, has_roles=False).add("five", "")


def test_undo_and_reset_forget(tokenizer: Tokenizer) -> None:
    history = talked(tokenizer)
    assert history.undo()
    assert history.prompt("five", 100).text.endswith("two\nUser: five\nAssistant:")
    history.reset()
    assert history.prompt("five", 100).text == "System: Be kind.\nUser: five\nAssistant:"
    assert not history.undo()


def test_what_is_saved_is_a_corpus_of_one_conversation(tokenizer: Tokenizer) -> None:
    record = json.loads(talked(tokenizer).saved())
    said = [Message(**message) for message in record["messages"]]
    assert [message.content for message in said] == ["Be kind.", "one", "two", "three", "four"]
    again = ChatHistory.of(said, tokenizer)
    assert again.saved() == talked(tokenizer).saved()
    assert talked(tokenizer, has_roles=False).saved() == "onetwo\nthreefour\n"


def test_a_conversation_that_is_not_answered_gives_its_turns(tokenizer: Tokenizer) -> None:
    said = [Message(role="user", content=text) for text in ("a", "c")]
    said.insert(1, Message(role="assistant", content="b"))
    history = ChatHistory.of(said, tokenizer)
    assert history.prompt(said[-1].content, 100).text == (
        "User: a\nAssistant: b\nUser: c\nAssistant:"
    )


@pytest.mark.parametrize(
    ("n_ctx", "length", "room"), [(1024, 256, 768), (1024, 900, 512), (32, 256, 16), (1, 256, 1)]
)
def test_an_answer_has_room(n_ctx: int, length: int, room: int) -> None:
    assert prompt_room(n_ctx, length) == room
