"""The tokenizer against tiktoken, and its refusals."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import tiktoken
from tiktoken.load import data_gym_to_mergeable_bpe_ranks

from gpt2cli.errors import BadDataError, MissingInputError
from gpt2cli.special_tokens import END_OF_TEXT
from gpt2cli.text.tokenizer import Tokenizer, read_tokenizer
from tests import models

TEXTS = {
    "english": "It's a truth universally acknowledged, that they'll say: \"don't\"!  I'd've.",
    "code": "def f(x):\n\treturn {k: v**2 for k, v in x.items()}  # ok\r\n\r\n    if x>=1_000:\n",
    "emoji": "👩‍👩‍👧‍👦 🏴󠁧󠁢󠁥󠁮󠁧󠁿 ❤️ 🇺🇳 ☃︎ 🧑🏽‍🚀" * 3,
    "arabic": "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق.",
    "hindi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता प्राप्त है।",
    "thai": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "japanese": "親譲りの無鉄砲で小供の時から損ばかりしている。",
    "chinese": "床前明月光,疑是地上霜。舉頭望明月,低頭思故鄉。",
    "control": "".join(map(chr, range(32))) + "\x7f\x80\x9f\u200b\u2028\u2029\ufeff\x1c\x1d \x85",
    "spaces": " a  b   c \n\n d\t\te \u00a0\u3000 f    ",
    "numbers": "3.14159 1,000,000 ½ ² ٣٤٥ Ⅷ 0x1F",
    "apostrophes": "'s't're've'm'll'd 'S'T \u2019s 's's's ''''",
    "special": "a <|endoftext|> b<|endoftext|>",
    "empty": "",
    "one letter": "a" * 100_000,
    "two letters": "ab" * 20_000,
    "long spaces": " " * 10_000 + "x" + "\n" * 10_000,
}


@pytest.fixture(scope="module", params=["python", "numba"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    """OpenAI's vocabulary, once as short texts are encoded and once as long ones are."""
    found = models.real_tokenizer()
    if request.param == "numba":
        found.compile()
    assert found.is_compiled == (request.param == "numba")
    return found


@pytest.fixture(scope="module")
def judge() -> tiktoken.Encoding:
    """Tiktoken with GPT-2's own pattern, from the same two files."""
    ranks = data_gym_to_mergeable_bpe_ranks(
        vocab_bpe_file=str(models.REAL_VOCABULARY / "vocab.bpe"),
        encoder_json_file=str(models.REAL_VOCABULARY / "encoder.json"),
    )
    return tiktoken.Encoding(
        "gpt2",
        pat_str=r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        mergeable_ranks=ranks,
        special_tokens={END_OF_TEXT: 50256},
    )


@pytest.mark.parametrize("kind", TEXTS)
def test_tokens_equal_tiktokens(kind: str, tokenizer: Tokenizer, judge: tiktoken.Encoding) -> None:
    text = TEXTS[kind]
    assert tokenizer.encode(text) == judge.encode_ordinary(text)
    assert tokenizer.encode(text, special=True) == judge.encode(text, allowed_special="all")


@pytest.mark.parametrize("kind", TEXTS)
def test_decoding_gives_the_text_back(kind: str, tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode(TEXTS[kind])) == TEXTS[kind]
    assert tokenizer.decode(tokenizer.encode(TEXTS[kind], special=True)) == TEXTS[kind]


def test_every_character_of_unicode_is_encoded_as_tiktoken_does(
    tokenizer: Tokenizer, judge: tiktoken.Encoding
) -> None:
    text = "".join(chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000)
    # Characters that one of the two does not know yet would differ: none does.
    assert tokenizer.encode(text) == judge.encode_ordinary(text)


def test_text_in_a_stream_is_never_cut_inside_a_character(tokenizer: Tokenizer) -> None:
    text = TEXTS["emoji"] + TEXTS["japanese"]
    stream = tokenizer.stream()
    pieces = [stream.feed([token]) for token in tokenizer.encode(text)]
    assert "".join(pieces) == text
    assert "" in pieces
    assert not any("\ufffd" in piece for piece in pieces)


def test_half_a_surrogate_pair_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(BadDataError, match=r"U\+D83D"):
        tokenizer.encode("smile \ud83d")


def test_end_of_text_is_token_50256_only_where_asked(tokenizer: Tokenizer) -> None:
    assert tokenizer.end_of_text == 50256
    assert tokenizer.encode(END_OF_TEXT, special=True) == [50256]
    assert 50256 not in tokenizer.encode(END_OF_TEXT)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"encoder\.json"):
        read_tokenizer(tmp_path / "encoder.json", tmp_path / "vocab.bpe")


def test_files_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    folder = models.write_description(tmp_path)
    (folder / "vocab.bpe").write_text("#version: 0.2\nz q\n")
    with pytest.raises(BadDataError, match="do not fit"):
        read_tokenizer(folder / "encoder.json", folder / "vocab.bpe")


def test_a_vocabulary_with_a_gap_is_refused(tmp_path: Path) -> None:
    folder = models.write_description(tmp_path)
    (folder / "encoder.json").write_text('{"a": 0, "b": 2}')
    with pytest.raises(BadDataError, match="gap"):
        read_tokenizer(folder / "encoder.json", folder / "vocab.bpe")
