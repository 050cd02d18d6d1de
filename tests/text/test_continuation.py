"""A text as it grows: stop texts, ends, and characters that span tokens."""

from __future__ import annotations

import itertools
import random

import pytest

from gpt2cli.special_tokens import END_OF_TEXT, Added, Specials
from gpt2cli.text.continuation import Continuation
from gpt2cli.text.tokenizer import Tokenizer
from tests.foreign_models import END, MERGES, TOKENS


def grown(tokenizer: Tokenizer, tokens: list[int], **settings: object) -> Continuation:
    """Returns what has become of the tokens; what is certain only ever grows."""
    length = settings.pop("length", 1000)
    text = Continuation(tokenizer, length, **settings)  # type: ignore[arg-type]
    certain = ""
    for token in tokens:
        if text.done:
            break
        text.add(token)
        assert text.certain.startswith(certain)
        certain = text.certain
    assert text.text.startswith(certain)
    return text


def test_it_ends_before_a_stop_text_wherever_the_borders_of_tokens_are(
    tokenizer: Tokenizer,
) -> None:
    whole = "the weather, their other feather… altogether"
    for start, size in itertools.product(range(len(whole)), range(1, 9)):
        stop = whole[start : start + size]
        text = grown(tokenizer, tokenizer.encode(whole), stops=("never", stop))
        assert text.text == whole[: whole.index(stop)]
        assert (text.reason, text.certain) == ("stop", text.text)


def test_the_first_of_several_stop_texts_counts_however_the_text_is_cut(
    tokenizer: Tokenizer,
) -> None:
    generator = random.Random(0)
    stopped = 0
    for _ in range(3000):
        whole = "".join(generator.choices("aab", k=12))
        stops = ["".join(generator.choices("aab", k=generator.randint(1, 6))) for _ in range(3)]
        cuts = sorted(generator.sample(range(1, 12), 4))
        pieces = [whole[a:b] for a, b in itertools.pairwise([0, *cuts, 12])]
        tokens = [token for piece in pieces for token in tokenizer.encode(piece)]
        expected = min((whole.find(stop) for stop in stops if stop in whole), default=len(whole))
        text = grown(tokenizer, tokens, stops=stops, length=len(tokens))
        assert text.text == whole[:expected]
        assert text.reason == ("stop" if expected < len(whole) else "length")
        stopped += expected < len(whole)
    assert 1000 < stopped < 3000


def test_what_may_begin_a_stop_text_is_not_certain(tokenizer: Tokenizer) -> None:
    text = Continuation(tokenizer, 100, stops=("</end>", "\n\n"))
    seen = []
    for token in tokenizer.encode("a < b</e>\nc"):
        text.add(token)
        seen.append(text.certain)
    assert (text.text, seen[-1]) == ("a < b</e>\nc", "a < b</e>\nc")
    assert "a < b</" not in seen
    assert "a < b</e>\n" not in seen


def test_it_ends_at_the_end_of_text_unless_told_otherwise(tokenizer: Tokenizer) -> None:
    tokens = [*tokenizer.encode("a"), tokenizer.end_of_text, *tokenizer.encode("b")]
    text = grown(tokenizer, tokens)
    assert (text.text, text.tokens, text.reason) == ("a", tokens[:2], "end_of_text")
    text = grown(tokenizer, tokens, ignore_end=True, length=3)
    assert (text.text, text.tokens, text.reason) == ("a<|endoftext|>b", tokens, "length")


@pytest.mark.parametrize(("whole", "left"), [("é…", "é"), ("…", ""), ("a👩\u200d🚀", "a👩\u200d")])
def test_half_a_character_at_its_end_is_left_out(
    whole: str, left: str, tokenizer: Tokenizer
) -> None:
    tokens = [token for byte in whole.encode() for token in byte_tokens(tokenizer, byte)]
    for length in range(1, len(tokens)):
        text = grown(tokenizer, tokens, length=length)
        assert whole.startswith(text.text)
        assert "\ufffd" not in text.text
    assert text.text == left
    ended = grown(tokenizer, [*tokens[:-1], tokenizer.end_of_text])
    assert ended.text == left


def byte_tokens(tokenizer: Tokenizer, byte: int) -> list[int]:
    return [next(t for t in range(tokenizer.vocab) if tokenizer.decode_bytes([t]) == bytes([byte]))]


def test_bytes_that_are_no_text_become_replacements(tokenizer: Tokenizer) -> None:
    tokens = [*byte_tokens(tokenizer, 0xFF), *tokenizer.encode("a")]
    assert grown(tokenizer, tokens).text == "\ufffda"


def test_a_half_that_stays_one_is_written_at_the_end(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("so it en")
    text = grown(tokenizer, tokens, stops=("end",), length=len(tokens))
    assert (text.text, text.certain, text.reason) == ("so it en", "so it en", "length")


def with_ends(*ends: int) -> Tokenizer:
    specials = Specials(
        added={END: Added(text=END_OF_TEXT), END + 1: Added(text="</s>")}, end=END, ends=ends
    )
    return Tokenizer(TOKENS | {"</s>": END + 1}, MERGES, "", specials)


def test_it_ends_at_each_token_that_the_model_ends_at() -> None:
    for ending in (END, END + 1):
        text = grown(with_ends(END, END + 1), [257, ending, 257])
        assert (text.text, text.reason, text.tokens) == ("the", "end_of_text", [257, ending])
    # That which only separates documents is then part of the text, as transformers has it.
    assert grown(with_ends(END + 1), [257, END, 257, END + 1]).text == f"the{END_OF_TEXT}the"


def test_a_piece_of_words_that_ends_it_is_written() -> None:
    dot = TOKENS["."]
    text = grown(with_ends(dot), [257, dot, 257])
    assert (text.text, text.reason) == ("the.", "end_of_text")
    assert grown(with_ends(dot), [257, dot, 257], ignore_end=True).text == "the.the"
    assert grown(with_ends(dot), [257, dot, 257], stops=(".",)).reason == "stop"
