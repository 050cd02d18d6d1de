"""A vocabulary as OpenAI's, Hugging Face's and our own files tell it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gpt2cli import json_reader, reading
from gpt2cli.errors import BadDataError, shortened
from gpt2cli.json_reader import Json
from gpt2cli.reading import MOST_BYTES, needed
from gpt2cli.special_tokens import (
    ENCODER,
    SETTINGS,
    Added,
    Beside,
    Specials,
    check_number,
    check_text,
    token_of,
)

MERGES = "vocab.bpe"
TOKENIZER = "tokenizer.json"
VERSION = "#version"
VERSION_LINE = "#version: 0.2"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What a folder's files say of its tokens.

    Attributes:
        tokens: the number of each, in GPT-2's byte symbols; added ones too.
        pairs: the merges, the first to be made first.
        encoder, merges: the contents of an encoder.json and a vocab.bpe that say so.
    """

    tokens: dict[str, int]
    pairs: list[tuple[str, str]]
    specials: Specials
    encoder: bytes
    merges: bytes

    @property
    def fingerprint(self) -> str:
        """A hash that is the same for what gives the same tokens."""
        parts = [self.encoder, self.merges]
        if not self.specials.are_openais:
            known = dataclasses.replace(self.specials, ends=(self.specials.end,))
            parts.append(json_bytes(known.settings()))
        return hashlib.sha256(b"".join(parts)).hexdigest()

    def files(self) -> dict[str, bytes]:
        """Returns the files of a model folder that say so; OpenAI's names if they suffice."""
        files = {ENCODER: self.encoder, MERGES: self.merges}
        if self.specials.are_openais:
            return files
        return {SETTINGS: json_bytes(self.specials.settings()), **files}


@functools.cache
def byte_symbols() -> dict[int, str]:
    """Returns the character that stands for each byte in encoder.json and vocab.bpe.

    Printable bytes of Latin-1 stand for themselves; the others are counted up from U+0100
    (openai/gpt-2, src/encoder.py).
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in sorted(printable)} | {
        byte: chr(0x100 + index) for index, byte in enumerate(others)
    }


def read_vocabulary(encoder: Path, merges: Path, rows: int | None = None) -> Vocabulary:
    """Returns the vocabulary of an encoder.json or vocab.json and its merges.

    A tokenizer.json stands for both. What is beside them is heeded: which tokens were added,
    and which ends a text. Added ones beyond the model's `rows` can't be meant. Raises
    MissingInputError if a file cannot be read, BadDataError if one is damaged or tells of another
    kind of tokens than GPT-2's, or the files do not fit each other.
    """
    with needed(encoder):
        if encoder.name == TOKENIZER:
            tokens, pairs, added = converted(json_reader.read(encoder), encoder)
            tokens = numbered(tokens, encoder)
            raw: tuple[bytes | None, bytes | None] = None, None
        else:
            content, lines = (reading.content(path, MOST_BYTES) for path in (encoder, merges))
            tokens, added = numbered(json_reader.parse(content, shortened(encoder)), encoder), {}
            pairs = read_pairs(lines, merges)
            raw = content, lines if lines.startswith(VERSION.encode()) else None
        beside = Beside(encoder)
        added = beside.added(tokens, added)
        kept = {number: token for number, token in added.items() if rows is None or number < rows}
        listed = with_added(tokens, kept, added, encoder)
        if sorted(listed.values()) != list(range(len(listed))):
            where = shortened(encoder)
            raise BadDataError(f"{where}: the tokens are not numbered from 0 without a gap.")
        specials = beside.specials(listed, kept, {left + right for left, right in pairs})
    return Vocabulary(
        tokens=listed,
        pairs=pairs,
        specials=specials,
        encoder=raw[0] if raw[0] and listed == tokens else json_bytes(listed),
        merges=raw[1] or "\n".join([VERSION_LINE, *map(" ".join, pairs), ""]).encode(),
    )


def json_bytes(values: Mapping[str, Any]) -> bytes:
    """Returns the content of a file of JSON."""
    return json.dumps(values).encode()


def numbered(tokens: Json, where: Path) -> dict[str, int]:
    """Returns the numbers of tokens; raises BadDataError if they are something else."""
    if not isinstance(tokens, dict) or not all(type(number) is int for number in tokens.values()):
        raise BadDataError(f"{shortened(where)} does not give a whole number for each token.")
    for token in tokens:
        check_text(token, where)
    return tokens


def read_pairs(content: bytes, where: Path) -> list[tuple[str, str]]:
    """Returns the merges of a vocab.bpe or merges.txt; or raises BadDataError for other lines."""
    json_reader.refuse_pointer(content, shortened(where))
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise BadDataError(f"{shortened(where)} is not text: {error.reason}.") from error
    first = 1 if lines[0].startswith(VERSION) else 0
    pairs = []
    for number, line in enumerate(lines[first:], start=first + 1):
        parts = line.split()
        if len(parts) not in (0, 2):
            raise BadDataError(
                f"{shortened(where)}, line {number}: {shortened(repr(line))} is not a merge of two."
            )
        if parts:
            pairs.append((parts[0], parts[1]))
    return pairs


def with_added(
    tokens: dict[str, int], kept: Mapping[int, Added], named: Mapping[int, Added], where: Path
) -> dict[str, int]:
    """Returns the tokens with added ones among them, in the order of their numbers.

    Some of the added ones that the files name may be among the tokens; only those that the model
    knows are kept. Raises BadDataError, which names the file, if one is another token already.
    """
    symbols = byte_symbols()
    whole = {t: n for t, n in tokens.items() if n in kept or n not in named}
    known = set(whole.values())
    for number, token in kept.items():
        if number not in known:
            written = "".join(symbols[byte] for byte in token.text.encode())
            # A piece of words may be written as the token is: then it stands as its text.
            key = token.text if written in whole else written
            if key in whole:
                raise BadDataError(
                    f"{shortened(where)}: the added token {shortened(repr(token.text))} is "
                    f"{whole[key]} and {number}."
                )
            whole[key] = number
    return dict(sorted(whole.items(), key=lambda item: item[1]))


def converted(whole: Json, where: Path) -> tuple[object, list[tuple[str, str]], dict[int, Added]]:
    """Returns the tokens, the merges and the added tokens of a tokenizer.json.

    Raises BadDataError if it makes other tokens of a text than GPT-2's way does.
    """
    model = whole.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE":
        kind = kind_of(model) if isinstance(model, dict) else "missing"
        raise BadDataError(f"{shortened(where)}: its model is {kind}; GPT-2's is BPE.")
    for what, found in unlike(whole, model):
        raise BadDataError(
            f"{shortened(where)}: its {what} is {shortened(found)}, which GPT-2 has not: it would "
            "make other tokens of a text than gpt2cli does. transformers can use this model."
        )
    merges, listed = model.get("merges"), whole.get("added_tokens") or []
    if not isinstance(merges, list) or not isinstance(listed, list):
        raise BadDataError(f"{shortened(where)} lacks a list of merges or of added tokens.")
    pairs = []
    for merge in merges:
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(parts, list) or len(parts) != 2 or not all(map(is_piece, parts)):
            raise BadDataError(
                f"{shortened(where)}: {shortened(repr(merge))} is not a merge of two."
            )
        pairs.append((parts[0], parts[1]))
    tokens = [(facts, token_of(facts, where)) for facts in listed]
    return model.get("vocab"), pairs, {check_number(f.get("id"), where): t for f, t in tokens}


def is_piece(part: object) -> bool:
    """Returns whether this can be half of a merge: symbols without white space."""
    return isinstance(part, str) and len(part.split()) == 1 and part.isprintable()


def unlike(whole: Json, model: Json) -> Iterator[tuple[str, str]]:
    """Yields each part of a tokenizer.json that GPT-2's tokenizer has not, and its kind."""
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"):
        if model.get(name):
            yield name, repr(model[name])
    if whole.get("normalizer") is not None:
        yield "normalizer", kind_of(whole["normalizer"])
    cutter = whole.get("pre_tokenizer", {"type": "ByteLevel", "add_prefix_space": False})
    if kind_of(cutter) != "ByteLevel":
        yield "pre_tokenizer", kind_of(cutter)
    for part in steps(cutter):
        if part.get("add_prefix_space", True) or not part.get("use_regex", True):
            yield "pre_tokenizer", "ByteLevel with add_prefix_space or without use_regex"
    for name in ("post_processor", "decoder"):
        for part in steps(whole.get(name)):
            # A template that is nothing but the text itself adds nothing.
            alone = [{"Sequence": {"id": "A", "type_id": 0}}]
            if part.get("type") != "ByteLevel" and part.get("single") != alone:
                yield name, kind_of(part)


def steps(part: object) -> list[Json]:
    """Returns what a part of a tokenizer.json does, one thing after the other."""
    if not isinstance(part, dict):
        return []
    inner = next((v for v in part.values() if isinstance(v, list)), [])
    if part.get("type") != "Sequence":
        return [part]
    return [step for each in inner for step in steps(each)]


def kind_of(part: object) -> str:
    """Returns the name of a part of a tokenizer.json, and of what it consists of."""
    if not isinstance(part, dict):
        return "none" if part is None else repr(part)
    if part.get("type") == "Sequence":
        return ", ".join(map(kind_of, steps(part))) or "none"
    return str(part.get("type", "none"))
