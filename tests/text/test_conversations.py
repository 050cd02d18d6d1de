"""Conversations are checked, written by one template, and masked but for the answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2cli import chat_template
from gpt2cli.chat_template import Conversation, Message
from gpt2cli.config.shared import CorpusOptions
from gpt2cli.errors import BadDataError
from gpt2cli.text import conversations, documents, token_files, tokens
from gpt2cli.text.batches import LossMask, MaskBuilder
from gpt2cli.text.sources import ReadingState, Source
from gpt2cli.text.tokenizer import Tokenizer
from tests.sources import returned

END = "<|endoftext|>"
SAID = [
    {"role": "system", "content": "Answer briefly."},
    {"role": "user", "content": "What is 2 + 3?"},
    {"role": "assistant", "content": "5"},
    {"role": "user", "content": "And twice that?"},
    {"role": "assistant", "content": "10.\n\nIt is even."},
]
WRITTEN = (
    "System: Answer briefly.\nUser: What is 2 + 3?\nAssistant: 5\nUser: And twice that?\n"
    "Assistant: 10.\n\nIt is even.<|endoftext|>"
)
# What the assistant says, and what ends it.
ANSWERED = [" 5\nUser:", " 10.\n\nIt is even.<|endoftext|>"]


def messages(*said: tuple[str, str]) -> list[Message]:
    return [Message(role=role, content=content) for role, content in said]  # type: ignore[arg-type]


def written(said: list[Message]) -> str:
    return "".join(part.text for part in chat_template.parts(said, END))


def corpus_of(path: Path, *records: Any) -> Source:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return Source(path)


def found_in(source: Source, **options: Any) -> list[Any]:
    settings = CorpusOptions(dataset=(), **options)
    return list(documents.content_of(source, settings, 50257, ReadingState()).documents)


def encoded(path: Path, tokenizer: Tokenizer, **options: Any) -> tuple[list[int], list[bool]]:
    """Returns the tokens of a corpus, and which of them count."""
    settings = CorpusOptions(dataset=(), **options)
    encoder = token_files.Encoder(options=settings, tokenizer=tokenizer)
    [corpus] = returned(documents.find_corpora([[str(path)]], settings))
    read, mask = returned(encoder.read_once(corpus))
    counts = mask.at(np.arange(len(read))).tolist() if mask else [True] * len(read)
    return read.tolist(), counts


def stretches(found: list[int], counts: list[bool], tokenizer: Tokenizer) -> list[str]:
    """Returns the text of each stretch of tokens that count."""
    texts, last = [], False
    for token, counted in zip(found, counts, strict=True):
        if counted:
            texts += [] if last else [""]
            texts[-1] += tokenizer.decode([token])
        last = counted
    return texts


def test_a_conversation_is_one_line_of_names_and_ends_with_the_end_of_text() -> None:
    said = [Message(**each) for each in SAID]  # type: ignore[arg-type]
    assert written(said) == WRITTEN
    assert chat_template.prompt(said[:2], END) == (
        "System: Answer briefly.\nUser: What is 2 + 3?\nAssistant:"
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("  hi \n", "hi"),
        ("a\nUser: b", "a\n User: b"),
        ("a\nAssistant: b\nSystem:c\nUser:", "a\n Assistant: b\n System:c\n User:"),
        ("a\nUser: b\nUser: c", "a\n User: b\n User: c"),
        ("User: a", "User: a"),
        ("a\nuser: b\nUsers: c", "a\nuser: b\nUsers: c"),
        (f"a{END}b {END}", "a< |endoftext|>b < |endoftext|>"),
        (END, "< |endoftext|>"),
    ],
)
def test_no_content_can_be_taken_for_a_marker(content: str, expected: str) -> None:
    assert chat_template.unmarked(content, END) == expected
    whole = written(messages(("user", content), ("assistant", content)))
    assert whole == f"User: {expected}\nAssistant: {expected}{END}"
    assert sum(whole.count(stop) for stop in chat_template.STOPS) == 1
    assert whole.count(END) == 1


def test_only_what_the_assistant_says_counts(tmp_path: Path, tokenizer: Tokenizer) -> None:
    corpus_of(tmp_path / "a.jsonl", {"messages": SAID}, {"prompt": "Hi", "completion": " Hello. "})
    found, counts = encoded(tmp_path / "a.jsonl", tokenizer)
    whole = f"{WRITTEN}User: Hi\nAssistant: Hello.{END}"
    assert found == tokenizer.encode(whole, special=True)
    assert stretches(found, counts, tokenizer) == [*ANSWERED, f" Hello.{END}"]
    everything = encoded(tmp_path / "a.jsonl", tokenizer, loss_on="all")
    assert everything == (found, [True] * len(found))


@pytest.mark.parametrize(
    "content",
    ["'s", "…", "(x)", "1", "猫", "-- x", "\u200bz", "'", ":", "é", "<b>", "\x1fz", "😀", "don't"],
)
def test_no_token_reaches_from_one_part_into_the_next(content: str, tokenizer: Tokenizer) -> None:
    said = messages(("user", content), ("assistant", content), ("user", "x"), ("assistant", "y"))
    packed, flags = tokens.encode_conversation(Conversation(tuple(said)), tokenizer)
    assert np.frombuffer(packed, "<u2").tolist() == tokenizer.encode(written(said), special=True)
    assert len(flags) == len(packed) // 2


def test_texts_beside_conversations_count_whole(tmp_path: Path, tokenizer: Tokenizer) -> None:
    corpus_of(tmp_path / "a.jsonl", {"messages": SAID[1:3]})
    (tmp_path / "b.txt").write_text("The cat sat.")
    np.save(tmp_path / "c.npy", np.array([5, 6]))
    found, counts = encoded(tmp_path, tokenizer)
    told = stretches(found, counts, tokenizer)
    assert told == [f" 5{END}The cat sat.{END}{tokenizer.decode([5, 6])}{END}"]


def test_other_fields_do_not_matter_and_a_field_that_is_named_is_text(tmp_path: Path) -> None:
    source = corpus_of(tmp_path / "a.jsonl", {"id": 3, "text": "x", "messages": SAID})
    assert [len(each.messages) for each in found_in(source)] == [5]
    assert found_in(source, text_field="text") == [("x",)]
    assert found_in(source, text_field="messages.content") == [(each["content"],) for each in SAID]
    (tmp_path / "b.json").write_text(json.dumps([{"messages": SAID}, {"messages": SAID[1:]}]))
    assert [len(each.messages) for each in found_in(Source(tmp_path / "b.json"))] == [5, 4]
    plain = corpus_of(tmp_path / "c.jsonl", {"prompt": "a", "text": "b"})
    assert found_in(plain) == [("b",)]


def test_line_ends_are_converted_as_in_texts(tmp_path: Path) -> None:
    pair = {"prompt": "a\r\nUser: b\rc", "completion": "d"}
    source = corpus_of(tmp_path / "a.jsonl", pair)
    assert found_in(source)[0].messages[0].content == "a\nUser: b\nc"
    assert found_in(source, keep_line_ends=True)[0].messages[0].content == "a\r\nUser: b\rc"


def test_what_is_taken_is_said_with_the_first_message(tmp_path: Path) -> None:
    source = corpus_of(tmp_path / "a.jsonl", {"messages": SAID})
    (notice,) = documents.remarks([source], CorpusOptions(dataset=()))
    told = "every record is a conversation; the first begins: System: Answer briefly."
    assert str(notice).endswith(told)


USER, ANSWER = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
WRONG: list[tuple[Any, str]] = [
    ({"messages": []}, r"line 3: its messages are \[\]\. Write"),
    ({"messages": "hello"}, 'line 3: its messages are "hello"'),
    ({"messages": ["a", "b"]}, 'line 3, message 1: it lacks a role or a content: "a"'),
    ({"messages": [{"content": "a"}, ANSWER]}, "line 3, message 1: it lacks a role"),
    ({"messages": [USER, {"role": "assistant"}]}, "line 3, message 2: it lacks a role or a cont"),
    ({"messages": [USER, {"role": "tool", "content": "a"}]}, 'role is "tool"; there are system, u'),
    ({"messages": [{"role": ["user"], "content": "a"}]}, r'role is \["user"\]'),
    ({"messages": [USER, {"role": "assistant", "content": None}]}, "'content' is null, and not"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}, ANSWER]}, "and not text"),
    ({"messages": [USER, {"role": "assistant", "content": " \n"}]}, "2: its content is empty"),
    ({"messages": [ANSWER, USER]}, "1: assistant speaks, and it is the turn of user"),
    ({"messages": [USER, USER, ANSWER]}, "2: user speaks, and it is the turn of assistant"),
    ({"messages": [USER, ANSWER, {"role": "system", "content": "x"}]}, "3: system speaks"),
    ({"messages": [{"role": "system", "content": "x"}]}, "nobody speaks after the system message"),
    ({"messages": [USER, ANSWER, USER]}, "line 3: the last of its 3 messages is not answered"),
    ({"messages": [USER]}, "line 3: the last of its 1 messages is not answered"),
    ({"text": "plain"}, "line 3: not a conversation: .*another file"),
    ({"prompt": "a"}, "line 3: not a conversation"),
    ("plain", "line 3: not a conversation"),
    ({"prompt": "a", "completion": 3}, "line 3, message 2: 'content' is 3, and not text"),
    ({"prompt": "a", "completion": ""}, "line 3, message 2: its content is empty"),
    ({"messages": [USER, {"role": "assistant", "content": "\ud83d"}]}, r"U\+D83D, half a char"),
]


@pytest.mark.parametrize(("record", "message"), WRONG)
def test_what_is_wrong_is_named_by_its_line(record: Any, message: str, tmp_path: Path) -> None:
    good = json.dumps({"messages": [USER, ANSWER]})
    (tmp_path / "a.jsonl").write_text(f"{good}\n\n{json.dumps(record)}\n{good}\n")
    with pytest.raises(BadDataError, match=message) as error:
        found_in(Source(tmp_path / "a.jsonl"))
    assert "a.jsonl, line 3" in str(error.value)
    assert len(str(error.value)) < 500


def test_a_conversation_among_texts_is_named_by_its_line(tmp_path: Path) -> None:
    source = corpus_of(tmp_path / "a.jsonl", {"text": "a"}, {"messages": [USER, ANSWER]})
    with pytest.raises(BadDataError, match="line 2 has no 'text', but messages"):
        found_in(source)


def test_only_conversations_change_what_a_token_file_is_called(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    corpus_of(tmp_path / "a.jsonl", {"messages": SAID})
    corpus_of(tmp_path / "b.jsonl", {"text": "x"})

    def name_of(name: str, **options: Any) -> str:
        settings = CorpusOptions(dataset=(), **options)
        encoder = token_files.Encoder(options=settings, tokenizer=tokenizer)
        [corpus] = returned(documents.find_corpora([[str(tmp_path / name)]], settings))
        return encoder.file_name(corpus)

    assert name_of("b.jsonl") == name_of("b.jsonl", loss_on="all")
    assert ".masked." not in name_of("b.jsonl")
    assert name_of("a.jsonl").endswith(".masked.u16")
    assert name_of("a.jsonl") != name_of("a.jsonl", loss_on="all")
    assert ".masked." not in name_of("a.jsonl", loss_on="all")


@pytest.mark.parametrize("count", [*range(2, 20), 1000])
def test_a_token_file_holds_its_mask_behind_the_tokens(
    count: int, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    flags = np.random.default_rng(count).integers(0, 2, count, np.uint8)
    builder = MaskBuilder()
    for start in range(0, count, 5):
        builder.add(flags[start : start + 5].tobytes())
    path = tmp_path / "tokens-1.masked.u16"
    path.write_bytes(tokenizer.pack(list(range(count))) + builder.packed())
    token_files.append_digest(path)
    mask = token_files.open_mask(path)
    assert token_files.open_tokens(path).tolist() == list(range(count))
    assert mask is not None
    assert token_files.is_intact(path)
    assert mask.at(np.arange(count)).tolist() == flags.astype(bool).tolist()
    assert mask.count(count) == flags.sum()
    assert mask.after(1).count(count - 1) == flags[1:].sum()
    content = bytearray(path.read_bytes())
    content[2 * count] ^= 1
    path.write_bytes(content)
    assert not token_files.is_intact(path)


def test_many_flags_are_packed_in_bounded_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpt2cli.text.batches.AT_ONCE", 64)
    flags = np.random.default_rng(1).integers(0, 2, 5003, np.uint8)
    builder = MaskBuilder()
    for start in range(0, 5003, 37):
        builder.add(flags[start : start + 37].tobytes())
        assert len(builder._waiting) < 64
    mask = LossMask(np.frombuffer(builder.packed(), np.uint8))
    assert mask.at(np.arange(5003)).tolist() == flags.astype(bool).tolist()
    assert mask.count(5003) == flags.sum()


def test_what_a_person_asks_may_end_unanswered() -> None:
    (asked,) = conversations.messages_of({"messages": [USER]}, "here")
    assert asked == Message(role="user", content="a")
