"""Hugging Face's tokenizer.json against OpenAI's two files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gpt2cli import vocabulary
from gpt2cli.errors import BadDataError
from gpt2cli.special_tokens import Added
from gpt2cli.storage import huggingface
from gpt2cli.text.tokenizer import Tokenizer, check_fits, read_tokenizer
from tests import foreign_models, models
from tests.foreign_models import START, TOKENS, added

END = {"id": 50256, "content": "<|endoftext|>"}


def whole(*added: dict[str, Any]) -> dict[str, Any]:
    """Returns a tokenizer.json with the real vocabulary."""
    tokens = json.loads((models.REAL_VOCABULARY / "encoder.json").read_bytes())
    lines = (models.REAL_VOCABULARY / "vocab.bpe").read_text(encoding="utf-8").splitlines()
    model = {"type": "BPE", "vocab": tokens, "merges": lines[1:]}
    return {"model": model, "added_tokens": [END, *added]}


@pytest.mark.parametrize("as_pairs", [True, False])
def test_openais_files_come_out_byte_by_byte(as_pairs: bool, tmp_path: Path) -> None:
    content = whole()
    if as_pairs:
        content["model"]["merges"] = [line.split() for line in content["model"]["merges"]]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    found = vocabulary.read_vocabulary(path, path)
    assert found.encoder == (models.REAL_VOCABULARY / "encoder.json").read_bytes()
    assert found.merges == (models.REAL_VOCABULARY / "vocab.bpe").read_bytes()


def test_tokens_that_were_added_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(whole({"id": 50257, "content": "[PAD] é"})))
    tokenizer = read_tokenizer(path, path)
    assert tokenizer.vocab == 50258
    assert tokenizer.decode([50256, 50257]) == "<|endoftext|>[PAD] é"
    # A row of the embedding that has no token stands for nothing.
    assert tokenizer.decode([50257, 60000]) == "[PAD] é"


def test_added_tokens_beside_a_vocabulary_are_read(tmp_path: Path) -> None:
    tokens, _ = models.byte_vocabulary(257)
    (tmp_path / "vocab.json").write_text(json.dumps(tokens))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    (tmp_path / "added_tokens.json").write_text('{"[PAD]": 257}')
    tokenizer = read_tokenizer(tmp_path / "vocab.json", tmp_path / "merges.txt")
    assert tokenizer.decode([257, 256]) == "[PAD]<|endoftext|>"


@pytest.mark.parametrize(
    "content", [{}, {"model": {"type": "WordPiece"}}, {"model": {"type": "BPE"}}, [], "x"]
)
def test_another_kind_of_tokenizer_is_refused(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    with pytest.raises(BadDataError, match=r"tokenizer\.json"):
        read_tokenizer(path, path)


def tokenizer_in(folder: Path, rows: int | None = None) -> Tokenizer:
    return read_tokenizer(*huggingface.vocabulary_files(folder), rows)


def test_merges_without_a_version_line_keep_the_first_of_them(tmp_path: Path) -> None:
    folder = foreign_models.write(tmp_path / "m", header=False, weights=False)
    assert tokenizer_in(folder).encode("the") == [257]
    # What is written of it has the line, for programs that pass over the first one.
    files = huggingface.static_files(folder)
    assert files["vocab.bpe"] == b"#version: 0.2\nt h\nth e\n"


START_IS_ADDED: dict[str, Any] = {
    "tokenizer.json": {"tokenizer": foreign_models.tokenizer_json(added(259, START))},
    "tokenizer.json beside the two": {
        "tokenizer": foreign_models.tokenizer_json(added(259, START)), "vocab": TOKENS,
    },
    "added_tokens.json": {
        "added_tokens": {START: 259}, "special_tokens_map": {"bos_token": {"content": START}},
    },
    "added_tokens_decoder": {
        "tokenizer_config": {"added_tokens_decoder": {"259": added(259, START)}},
    },
    "additional_special_tokens": {
        "vocab": TOKENS | {START: 259}, "tokenizer_config": {"additional_special_tokens": [START]},
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", START_IS_ADDED)
def test_an_added_token_is_one_token_whatever_file_names_it(kind: str, tmp_path: Path) -> None:
    folder = foreign_models.write(tmp_path / "m", 260, weights=False, **START_IS_ADDED[kind])
    tokenizer = tokenizer_in(folder)
    assert tokenizer.encode(f"{START}the", special=True) == [259, 257]
    assert tokenizer.specials.added[259] == Added(text=START)
    assert tokenizer.decode([259]) == START


def test_an_added_token_that_is_not_special_stays_so(tmp_path: Path) -> None:
    folder = foreign_models.write(
        tmp_path / "m", 260, weights=False, added_tokens={"New York": 259}
    )
    tokenizer = tokenizer_in(folder)
    assert tokenizer.encode("New York", special=True) == [259]
    assert not tokenizer.specials.added[259].special


def test_an_added_token_may_be_spelled_as_a_piece_of_words_is(tmp_path: Path) -> None:
    # A line break is a piece already, under another name.
    more = foreign_models.tokenizer_json(added(259, "\n"), added(260, " the"))
    folder = foreign_models.write(tmp_path / "m", 261, weights=False, tokenizer=more)
    files = huggingface.static_files(folder)
    assert tokenizer_in(folder).encode("a the\n", special=True) == [64, 260, 259]
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    again = read_tokenizer(tmp_path / "encoder.json", tmp_path / "vocab.bpe")
    assert again.encode("a the\n", special=True) == [64, 260, 259]
    assert again.specials == tokenizer_in(folder).specials
    assert again.fingerprint == tokenizer_in(folder).fingerprint


def test_a_token_that_the_model_has_no_row_for_is_no_obstacle(tmp_path: Path) -> None:
    tokenizer_json = foreign_models.tokenizer_json(added(259, "[PAD]"))
    folder = foreign_models.write(tmp_path / "m", weights=False, tokenizer=tokenizer_json)
    tokenizer = tokenizer_in(folder, 259)
    check_fits(tokenizer, foreign_models.shape())
    assert max(tokenizer.encode("[PAD]", special=True)) < 259
    assert "[PAD]" not in json.loads(huggingface.static_files(folder)["encoder.json"])
    with pytest.raises(BadDataError, match="has 260 tokens, and the model knows 259"):
        check_fits(tokenizer_in(folder), foreign_models.shape())


ENDS: dict[str, tuple[dict[str, Any], int, tuple[int, ...]]] = {
    "what config.json says": ({"config": {"eos_token_id": 46}}, 258, (46,)),
    "generation_config.json comes first": (
        {"config": {"eos_token_id": 46}, "generation_config": {"eos_token_id": [13, 46]}},
        258, (13, 46),
    ),
    "an added token": (
        {"config": {"eos_token_id": 259}, "added_tokens": {"<|im_end|>": 259}}, 259, (259,),
    ),
    "what the tokenizer calls so, of several": (
        {
            "config": {"eos_token_id": [258, 259]}, "added_tokens": {"</s>": 259},
            "tokenizer_config": {"eos_token": "</s>"},
        },
        259, (258, 259),
    ),
    "a number that no token has": ({"config": {"eos_token_id": 50256}}, 258, (258,)),
    "nothing": ({"config": {"eos_token_id": None}}, 258, (258,)),
}  # fmt: skip


@pytest.mark.parametrize("kind", ENDS)
def test_the_end_of_a_text_is_the_models_own(kind: str, tmp_path: Path) -> None:
    files, end, ends = ENDS[kind]
    tokenizer = tokenizer_in(foreign_models.write(tmp_path / "m", 260, weights=False, **files))
    assert (tokenizer.end_of_text, tokenizer.specials.ends) == (end, ends)


OTHER_END = {token if token != "<|endoftext|>" else "</s>": n for token, n in TOKENS.items()}


def test_a_vocabulary_whose_end_is_another_token_works_with_that(tmp_path: Path) -> None:
    tokenizer = tokenizer_in(foreign_models.write(tmp_path / "m", vocab=OTHER_END, weights=False))
    assert tokenizer.encode("the</s>", special=True) == [257, 258]
    assert (tokenizer.end, tokenizer.end_of_text) == ("</s>", 258)


@pytest.mark.parametrize("named", [None, 46])
def test_a_vocabulary_that_names_no_end_is_refused_with_the_reason(
    named: int | None, tmp_path: Path
) -> None:
    folder = foreign_models.write(
        tmp_path / "m", vocab=OTHER_END, weights=False, config={"eos_token_id": named}
    )
    with pytest.raises(BadDataError, match=r"no token that ends a text.*Name it as eos_token"):
        tokenizer_in(folder)
    (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    assert tokenizer_in(folder).end_of_text == 258


LOWER = {"type": "Lowercase"}
SPACED = {**foreign_models.CUTTER, "add_prefix_space": True}
TEMPLATE = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"normalizer": LOWER}, "normalizer is Lowercase"),
        (
            {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, LOWER]}},
            "normalizer is NFKC, Lowercase",
        ),
        ({"pre_tokenizer": None}, "pre_tokenizer is none"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer is Whitespace"),
        ({"pre_tokenizer": {"type": "Metaspace", "replacement": "_"}}, "is Metaspace"),
        (
            {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits"}, SPACED]}},
            "pre_tokenizer is Digits, ByteLevel",
        ),
        ({"pre_tokenizer": SPACED}, "add_prefix_space"),
        (
            {"pre_tokenizer": {**foreign_models.CUTTER, "use_regex": False}},
            "without use_regex",
        ),
        (
            {"post_processor": {"type": "TemplateProcessing", "single": TEMPLATE}},
            "post_processor is TemplateProcessing",
        ),
        ({"decoder": {"type": "WordPiece"}}, "decoder is WordPiece"),
        (
            {"model": {"type": "BPE", "vocab": TOKENS, "merges": [], "ignore_merges": True}},
            "ignore_merges is True",
        ),
        (
            {"model": {"type": "BPE", "vocab": TOKENS, "merges": [], "end_of_word_suffix": "</w>"}},
            "end_of_word_suffix",
        ),
        ({"model": {"type": "Unigram", "vocab": []}}, "model is Unigram"),
    ],
)  # fmt: skip
def test_a_tokenizer_of_another_kind_is_refused_by_name(
    changed: dict[str, Any], named: str, tmp_path: Path
) -> None:
    whole = foreign_models.tokenizer_json(**changed)
    folder = foreign_models.write(tmp_path / "m", weights=False, tokenizer=whole)
    with pytest.raises(BadDataError, match=re.escape(named)):
        tokenizer_in(folder)


def test_a_template_that_adds_nothing_and_a_sequence_of_one_are_gpt_2s(tmp_path: Path) -> None:
    whole = foreign_models.tokenizer_json(
        pre_tokenizer={"type": "Sequence", "pretokenizers": [foreign_models.CUTTER]},
        post_processor={"type": "TemplateProcessing", "single": TEMPLATE[1:]},
    )
    folder = foreign_models.write(tmp_path / "m", weights=False, tokenizer=whole)
    assert tokenizer_in(folder).encode("the") == [257]


@pytest.mark.parametrize("name", ["add_prefix_space", "add_bos_token"])
def test_settings_that_put_something_before_a_text_are_refused(name: str, tmp_path: Path) -> None:
    folder = foreign_models.write(tmp_path / "m", weights=False, tokenizer_config={name: True})
    with pytest.raises(BadDataError, match=f"{name} is true"):
        tokenizer_in(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vocab.json", "[1]"),
        ("vocab.json", '{"a": "b"}'),
        ("vocab.json", '{"\\ud800": 0}'),
        ("vocab.json", "[" * 100_000),
        ("vocab.json", "version https://git-lfs.github.com/spec/v1\n"),
        ("merges.txt", "version https://git-lfs.github.com/spec/v1\n"),
        ("merges.txt", "#version: 0.2\na b c\n"),
        ("added_tokens.json", "null"),
        ("added_tokens.json", '{"a": -1}'),
        ("added_tokens.json", '{"a": true}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {}}}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": []}'),
        ("tokenizer_config.json", '{"eos_token": 3}'),
        ("generation_config.json", '{"eos_token_id": "a"}'),
        ("tokenizer.json", '{"model": {"type": "BPE", "merges": [1], "vocab": {}}}'),
        ("tokenizer.json", '{"model": {"type": "BPE", "merges": {}, "vocab": {}}}'),
        ("tokenizer.json", '{"model": null}'),
    ],
)
def test_a_file_of_a_vocabulary_that_says_nonsense_is_named(
    name: str, content: str, tmp_path: Path
) -> None:
    folder = foreign_models.write(tmp_path / "m", weights=False)
    (folder / name).write_text(content)
    with pytest.raises(BadDataError, match=re.escape(name)):
        tokenizer_in(folder)
