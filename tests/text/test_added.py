"""Added tokens in a text: as Hugging Face's tokenizers find them, wherever the text is cut."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from gpt2cli.special_tokens import END_OF_TEXT, Added, Specials
from gpt2cli.text import tokens as corpus
from gpt2cli.text.added import AddedTokens
from gpt2cli.text.tokenizer import Tokenizer, read_tokenizer
from tests import foreign_models
from tests.foreign_models import END, MERGES, START, TOKENS

FLAGS = ("lstrip", "rstrip", "single_word", "normalized")
TEXTS = ["<s>", "<s>>", "cat", " cat", "é<", "New York", "\n", "[PAD]", "a"]
PIECES = [
    *TEXTS,
    END_OF_TEXT,
    START,
    " ",
    "  ",
    "\t",
    "the",
    "cats",
    "1",
    "_",
    "'ll",
    "é",
    "|",
    ".",
]


def tokenizer_of(added: dict[int, Added]) -> Tokenizer:
    numbers = {END: Added(text=END_OF_TEXT), **added}
    tokens = TOKENS | {f"added {number}": number for number in added}
    return Tokenizer(tokens, MERGES, "", Specials(added=numbers, end=END, ends=(END,)))


def drawn(draw: random.Random) -> dict[int, Added]:
    """Returns a few added tokens with flags of all kinds."""
    texts = draw.sample(TEXTS, draw.randrange(1, 4))
    return {
        END + 1 + place: Added(
            text=text, **{flag: draw.random() < 0.3 for flag in FLAGS}, special=draw.random() < 0.5
        )
        for place, text in enumerate(texts)
    }


def text_of(draw: random.Random, longest: int) -> str:
    return "".join(draw.choices(PIECES, k=draw.randrange(longest)))


def test_they_are_one_token_each_and_give_their_text_back() -> None:
    tokenizer = tokenizer_of({END + 1: Added(text=START)})
    text = f"{START}the{END_OF_TEXT}"
    assert tokenizer.encode(text, special=True) == [END + 1, END - 1, END]
    assert tokenizer.decode([END + 1, END - 1, END]) == text
    assert END + 1 not in tokenizer.encode(text)


def test_they_stand_where_the_library_finds_them() -> None:
    library = pytest.importorskip("tokenizers", reason="needs the extra `interop`")
    draw = random.Random(3)
    for _ in range(150):
        added = drawn(draw)
        judge = library.Tokenizer(library.models.BPE(vocab=TOKENS, merges=MERGES))
        judge.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        judge.add_special_tokens([library.AddedToken(END_OF_TEXT, normalized=False)])
        for token in added.values():
            flags = {flag: getattr(token, flag) for flag in FLAGS}
            judge.add_tokens([library.AddedToken(token.text, **flags)])
        numbers = {judge.token_to_id(token.text): token for token in added.values()}
        specials = Specials(added={END: Added(text=END_OF_TEXT), **numbers}, end=END, ends=(END,))
        names = TOKENS | {f"added {n}": n for n in numbers if n > END}
        tokenizer = Tokenizer(names, MERGES, "", specials)
        for _ in range(20):
            text = text_of(draw, 9)
            found = tokenizer.encode(text, special=True)
            assert found == judge.encode(text, add_special_tokens=False).ids, (text, added)


def test_compiled_loops_find_the_same() -> None:
    draw = random.Random(4)
    for _ in range(10):
        added = drawn(draw)
        plain, compiled = tokenizer_of(added), tokenizer_of(added)
        compiled.compile()
        for _ in range(20):
            text = text_of(draw, 30)
            assert compiled.encode(text, special=True) == plain.encode(text, special=True), text


def test_a_text_is_never_cut_where_its_tokens_would_change() -> None:
    draw, cuts = random.Random(5), 0
    for _ in range(300):
        added = drawn(draw)
        tokenizer = tokenizer_of(added)
        for _ in range(10):
            text, more = text_of(draw, 25), text_of(draw, 5)
            at = corpus.last_cut(text, tokenizer.added)
            cuts += at > 0
            parts = [tokenizer.encode(p, special=True) for p in (text[:at], text[at:] + more)]
            whole = tokenizer.encode(text + more, special=True)
            assert [*itertools.chain(*parts)] == whole, (text, at, more, added)
    assert cuts > 1000


def test_a_corpus_of_nothing_but_added_tokens_is_cut() -> None:
    added = AddedTokens({0: Added(text=START)})
    assert corpus.last_cut(START * 100, added) == len(START) * 99


def test_the_longest_of_many_is_found(tmp_path: Path) -> None:
    more = [foreign_models.added(END + n, f"<{'x' * n}") for n in range(1, 300)]
    folder = foreign_models.write(
        tmp_path / "m", weights=False, tokenizer=foreign_models.tokenizer_json(*more)
    )
    tokenizer = read_tokenizer(folder / "tokenizer.json", folder / "tokenizer.json")
    assert tokenizer.encode("<" + "x" * 299, special=True) == [END + 299]
