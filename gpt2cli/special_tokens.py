"""The tokens that are not pieces of words, as Hugging Face's files and ours name them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gpt2cli import json_reader
from gpt2cli.errors import BadDataError, shortened

ENCODER = "encoder.json"
END_OF_TEXT = "<|endoftext|>"
# What says which tokens were added, and which of them ends a text; in a run's folder too.
SETTINGS = "tokenizer_config.json"
ADDED = "added_tokens.json"
NAMES = "special_tokens_map.json"
CONFIGS = ("generation_config.json", "config.json")
FLAGS = ("lstrip", "normalized", "rstrip", "single_word", "special")
NAMED = ("eos_token", "bos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
SEVERAL = "additional_special_tokens"
# Settings by which transformers would put something before every text.
BEFORE = ("add_prefix_space", "add_bos_token")
MOST_NUMBER = 1 << 31

Json = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Added:
    """A token that is found in a text as a whole, before the text is cut into words.

    Attributes:
        lstrip, rstrip: whether it takes the white space before it, or after it.
        normalized: whether it is looked for after those that are not.
        single_word: whether it counts only if no letters touch it.
        special: whether it steers, and is not part of the text.
    """

    text: str
    lstrip: bool = False
    normalized: bool = False
    rstrip: bool = False
    single_word: bool = False
    special: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Specials:
    """The tokens of a vocabulary that are not pieces of words.

    Those that are found as a whole, by number; the one of them that separates documents; and all
    that end a sample.
    """

    added: Mapping[int, Added]
    end: int
    ends: tuple[int, ...]

    @property
    def are_openais(self) -> bool:
        """Whether there is nothing but `<|endoftext|>`, as in OpenAI's models."""
        only = dataclasses.replace(self.added[self.end], normalized=False, special=True)
        alone = len(self.added) == 1 and only == Added(text=END_OF_TEXT)
        return alone and self.ends == (self.end,)

    def trained(self) -> Specials:
        """Returns them for a model that was trained on documents with `end` between them."""
        ends = self.ends if self.end in self.ends else (*self.ends, self.end)
        return dataclasses.replace(self, ends=ends)

    def settings(self) -> Json:
        """Returns them as a tokenizer_config.json; `eos_token_id` in it is our own."""
        listed = {}
        for number, token in sorted(self.added.items()):
            facts = dataclasses.asdict(token)
            listed[str(number)] = {"content": facts.pop("text"), **facts}
        text = self.added[self.end].text
        return {"added_tokens_decoder": listed, "eos_token": text, "eos_token_id": [*self.ends]}


class Beside:
    """What the files beside a vocabulary say of its added tokens, and of what ends a text."""

    def __init__(self, encoder: Path) -> None:
        """Reads the files; raises BadDataError if one is wrong or unlike GPT-2, or an OSError."""
        self._where, folder = encoder, encoder.parent
        foreign = encoder.name != ENCODER
        self._settings = read_any(folder / SETTINGS)
        self._listed = read_any(folder / ADDED)
        self._names = read_any(folder / NAMES) if foreign else {}
        # A run's config.json holds its settings; what ends a text is in the file of ours.
        named = CONFIGS if foreign else (SETTINGS,)
        self._configs = [(folder / name, read_any(folder / name)) for name in named]
        for name in BEFORE if foreign else ():
            if self._settings.get(name):
                raise BadDataError(
                    f"{shortened(folder / SETTINGS)}: {name} is true: every text would begin with "
                    "something more, which gpt2cli does not add."
                )

    def added(self, tokens: Mapping[str, int], known: Mapping[int, Added]) -> dict[int, Added]:
        """Returns all added tokens by number, also those `known` before; or raises BadDataError."""
        where = self._where.with_name(SETTINGS)
        found = dict(known)
        decoder = self._settings.get("added_tokens_decoder", {})
        if not isinstance(decoder, dict):
            raise BadDataError(f"{shortened(where)}: added_tokens_decoder is not an object.")
        for number, facts in decoder.items():
            if not (number.isascii() and number.isdecimal()):
                raise BadDataError(f"{shortened(where)}: {shortened(repr(number))} is not a token.")
            found.setdefault(check_number(int(number[:20]), where), token_of(facts, where))
        special = set(self._special())
        for text, number in self._listed.items():
            where = self._where.with_name(ADDED)
            token = Added(
                text=check_text(text, where),
                normalized=text not in special,
                special=text in special,
            )
            if text:
                found.setdefault(check_number(number, where), token)
        for text in (*special, END_OF_TEXT):
            if text in tokens:
                found.setdefault(tokens[text], Added(text=text))
        return {number: token for number, token in found.items() if token.text}

    def specials(
        self, tokens: Mapping[str, int], added: Mapping[int, Added], joined: set[str]
    ) -> Specials:
        """Returns the added tokens, and which of all ends a text; raises BadDataError if none does.

        Takes the vocabulary with the added ones, those of them that the model knows, and what
        merges make.
        """
        texts = {token.text: number for number, token in added.items()}
        ends = tuple(number for number in self._ends() if 0 <= number < len(tokens))
        named = texts.get(self._name("eos_token"), -1)
        by_number = {number: text for text, number in tokens.items()}
        others = [n for n in ends if len(by_number[n]) > 1 and by_number[n] not in joined]
        first = [named] if named in ends else [number for number in ends if number in added]
        usual = texts.get(END_OF_TEXT, -1)
        end = next((n for n in (*first, named, usual, *others) if n >= 0), None)
        if end is None:
            raise BadDataError(
                f"{shortened(self._where)} has no token that ends a text: {END_OF_TEXT} is not "
                f"among its {len(tokens):,}, and no other is named. Name it as eos_token in "
                f"{SETTINGS} beside it."
            )
        whole = {end: Added(text=by_number[end]), **added}
        return Specials(added=whole, end=end, ends=ends or (end,))

    def _ends(self) -> list[int]:
        """Returns the tokens that end a sample, as the first file says that names some."""
        for where, values in self._configs:
            value = values.get("eos_token_id")
            if value is not None:
                several = value if isinstance(value, list) else [value]
                if not all(type(number) is int for number in several):
                    raise BadDataError(f"{shortened(where)}: eos_token_id is not a token's number.")
                return list(dict.fromkeys(several))
        return []

    def _name(self, name: str) -> str:
        """Returns the text of a token that has a name, or nothing."""
        for where, values in ((SETTINGS, self._settings), (NAMES, self._names)):
            value = values.get(name)
            value = value.get("content") if isinstance(value, dict) else value
            if value is not None:
                return check_text(value, self._where.with_name(where))
        return ""

    def _special(self) -> Iterator[str]:
        """Yields the texts of all tokens that have names."""
        yield from filter(None, map(self._name, NAMED))
        for values in (self._settings, self._names):
            several = values.get(SEVERAL)
            for value in several if isinstance(several, list) else ():
                value = value.get("content") if isinstance(value, dict) else value
                yield check_text(value, self._where)


def read_any(path: Path) -> Json:
    """Returns what a file of JSON says, or nothing if there is none."""
    return json_reader.read(path) if path.exists() else {}


def check_text(text: object, where: Path) -> str:
    """Returns a text of a file of JSON; raises BadDataError unless it has a UTF-8 form."""
    if isinstance(text, str) and not json_reader.half_character(text):
        return text
    raise BadDataError(f"{shortened(where)}: {shortened(repr(text))} is not a text.")


def check_number(number: object, where: Path) -> int:
    """Returns a token's number; raises BadDataError unless it is one."""
    if type(number) is not int or not 0 <= number < MOST_NUMBER:
        raise BadDataError(
            f"{shortened(where)}: {shortened(repr(number))} is not a token's number."
        )
    return number


def token_of(facts: object, where: Path) -> Added:
    """Returns an added token as a file describes it; raises BadDataError if it does not."""
    if not isinstance(facts, dict):
        raise BadDataError(f"{shortened(where)}: {shortened(repr(facts))} is not an added token.")
    flags = {name: facts.get(name, False) is True for name in FLAGS}
    return Added(text=check_text(facts.get("content"), where), **flags)
