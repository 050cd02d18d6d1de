"""Hugging Face's tokenizer.json, as far as it says what GPT-2's two files say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt2cli.errors import BadDataError, shortened
from gpt2cli.special_tokens import Added, check_number, token_of

Json = dict[str, Any]


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
