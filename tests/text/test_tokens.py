"""Documents become a token file: the borders, the cuts, and that the tokens are right."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2cli.config.shared import CorpusOptions
from gpt2cli.errors import BadDataError
from gpt2cli.special_tokens import END_OF_TEXT, Added
from gpt2cli.text import finding, sources, token_files, tokens
from gpt2cli.text.added import AddedTokens
from gpt2cli.text.documents import find_corpora
from gpt2cli.text.sources import ReadingState
from gpt2cli.text.tokenizer import Tokenizer
from tests import models
from tests.sources import returned

ADDED = AddedTokens({50256: Added(text=END_OF_TEXT)})
VERSES = "Shall I compare thee to a summer's day?\n\n\n  Thou art more lovely…\tand\r\n" * 40
LANGUAGES = {
    "verses": VERSES,
    "tang": "床前明月光、疑是地上霜。\n舉頭望明月、低頭思故鄉。\n",
    "japanese": "親譲りの無鉄砲で小供の時から損ばかりしている。",
    "arabic": "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق. ",
    "hindi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता प्राप्त है। ",
    "contractions": "it's 'twas they'll''s 'sup x's'd don''t'",
    "spaces": "親譲りの無鉄砲 " * 20 + " " * 50 + "\n \n  end\u3000\u00a0 \x1c x",
    "borders": "a<|endoftext|>b <|endoftext|>\n<|endof<|endoftext|>text|> 1<|endoftext|>2|>3",
    "one word": "a" * 3000,
}


def tokens_of(patterns: list[str], tokenizer: Tokenizer, **options: Any) -> list[int]:
    found = finding.find(patterns, options.get("encoding", "utf-8"))
    options_given = CorpusOptions(dataset=(), **options)
    packed = b"".join(tokens.encode_corpus(found.files, options_given, tokenizer, ReadingState()))
    return [int(token) for token in np.frombuffer(packed, "<u2")]


def test_documents_are_followed_by_the_end_of_text_token(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.txt").write_text("two<|endoftext|>three")
    (tmp_path / "c.txt").write_text("")
    (tmp_path / "d.csv").write_text("text,label\nfour,1\n,2\nfive,3\n")
    (tmp_path / "e.jsonl").write_text('{"text": "six"}\n{"text": ""}\n')
    np.savez(tmp_path / "f.npz", np.array([7, 8]), np.array([9, 50256]), np.array([], int))
    (tmp_path / "g.txt").write_text("ten")
    expected = []
    for word in ("one", "two", "three", "four", "five", "six"):
        expected += [*tokenizer.encode(word), 50256]
    expected += [7, 8, 50256, 9, 50256, *tokenizer.encode("ten"), 50256]
    assert tokens_of([str(tmp_path)], tokenizer) == expected


@pytest.mark.parametrize("end", ["", END_OF_TEXT])
def test_a_document_that_ends_with_the_end_of_text_gets_no_second_one(
    end: str, tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "READ_BYTES", 5)
    (tmp_path / "a.txt").write_text(f"one{end}")
    assert tokens_of([str(tmp_path)], tokenizer) == [*tokenizer.encode("one"), 50256]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
@pytest.mark.parametrize("kind", LANGUAGES)
def test_tokens_do_not_depend_on_how_a_file_is_read_and_cut(
    kind: str, size: int, tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "READ_BYTES", size)
    monkeypatch.setattr(tokens, "CHUNK", size)
    monkeypatch.setattr(tokens, "NEAR_END", 10)
    (tmp_path / "a.txt").write_bytes(LANGUAGES[kind].encode())
    whole = tokenizer.encode(LANGUAGES[kind], special=True)
    assert tokens_of([str(tmp_path / "a.txt")], tokenizer, keep_line_ends=True) == [*whole, 50256]
    text = LANGUAGES[kind].replace("\r\n", "\n")
    whole = tokenizer.encode(text, special=True)
    assert tokens_of([str(tmp_path / "a.txt")], tokenizer) == [*whole, 50256]


def test_text_of_every_kind_can_be_cut_before_it_fills_the_memory() -> None:
    for kind in set(LANGUAGES) - {"one word"}:
        text = LANGUAGES[kind] * (5000 // len(LANGUAGES[kind]) + 1)
        parts = (text[at : at + 100] for at in range(0, len(text), 100))
        pieces = list(tokens.chunks(parts, ADDED, ReadingState()))
        assert "".join(map(str, pieces)) == text
        assert tokens.last_cut(text, ADDED) > len(text) - 100, kind


def test_every_place_where_text_is_cut_is_between_words(tokenizer: Tokenizer) -> None:
    draw = random.Random(5)
    letters = "ab's1² \n\t.,-|<>'\"éم詩ि😀\u0301" + END_OF_TEXT
    for _ in range(3000):
        text = "".join(draw.choices([*letters, END_OF_TEXT, "'ll", "  "], k=draw.randrange(12)))
        at = tokens.last_cut(text, ADDED)
        parts = [tokenizer.encode(part, special=True) for part in (text[:at], text[at:])]
        assert parts[0] + parts[1] == tokenizer.encode(text, special=True), (text, at)


def test_compiled_loops_give_the_same_file(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("\n".join(LANGUAGES.values()) * 5, encoding="utf-8")
    np.save(tmp_path / "b.npy", np.arange(50257))
    alone = tokens_of([str(tmp_path)], tokenizer)
    monkeypatch.setattr(tokens, "WORTH_COMPILING", 0)
    monkeypatch.setattr(tokens, "CHUNK", 2000)
    compiled = models.real_tokenizer()
    for count in (1, 2, 3):
        monkeypatch.setattr(tokens, "cores", lambda count=count: count)
        assert tokens_of([str(tmp_path)], compiled) == alone
    assert compiled.is_compiled


def test_how_far_it_is_ends_at_the_corpus_size(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "a.txt").write_text(VERSES)
    np.save(tmp_path / "b.npy", np.arange(3))
    (tmp_path / "c.csv").write_text("text\n" + "word\n" * 10)
    found = finding.find([str(tmp_path)])
    state = ReadingState()
    encoded = tokens.encode_corpus(found.files, CorpusOptions(dataset=()), tokenizer, state)
    told = [state.done for _ in encoded]
    assert told == sorted(told)
    assert told[-1] == found.size()


def test_the_name_tells_text_vocabulary_and_options(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "a.csv").write_text("text\nfine\n")

    def name_of(tokenizer: Tokenizer, **options: Any) -> str:
        settings = CorpusOptions(dataset=(), **options)
        [found] = returned(find_corpora([[str(tmp_path)]], settings))
        return token_files.Encoder(options=settings, tokenizer=tokenizer).file_name(found)

    name = name_of(tokenizer)
    assert name == name_of(tokenizer)
    assert name != name_of(tokenizer, csv_header=False)
    monkey = Tokenizer.__new__(Tokenizer)
    monkey.fingerprint = "another vocabulary"
    monkey.vocab = 50257
    assert name != name_of(monkey)


def test_half_a_character_is_refused_from_a_thread_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "WORTH_COMPILING", 0)
    tokenizer = models.real_tokenizer()
    (tmp_path / "a.txt").write_text("fine \\ud83d")
    with pytest.raises(BadDataError, match=r"U\+D83D"):
        tokens_of([str(tmp_path)], tokenizer, encoding="unicode_escape")


def test_an_open_token_file_equals_what_was_written(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "tokens"
    for written in ([1, 50256, 65535], []):
        path.write_bytes(tokenizer.pack(written))
        token_files.append_digest(path)
        assert token_files.open_tokens(path).tolist() == written
        assert token_files.is_intact(path)


def test_a_word_without_an_end_is_refused_in_bounded_memory(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "CHUNK", 10_000)
    monkeypatch.setattr(tokens, "MOST_WORD", 300_000)
    (tmp_path / "a.txt").write_text("a" * 3_000_000)
    with pytest.raises(BadDataError, match=r"a\.txt has a word of over 300,000 characters"):
        tokens_of([str(tmp_path)], tokenizer)
