"""OpenAI's byte-level BPE, both ways."""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from gpt2cli import native
from gpt2cli.errors import BadDataError, MissingInputError
from gpt2cli.hparams import HParams
from gpt2cli.text.words import Parts, Words
from gpt2cli.vocabulary import byte_symbols, read_vocabulary

END_OF_TEXT = "<|endoftext|>"


class Encoder(Protocol):
    """Text to tokens."""

    def encode(self, text: str) -> bytes:
        """Returns a text's tokens, packed."""
        ...


class Tokenizer:
    """Text to tokens and back, with the vocabulary of one model folder.

    Attributes:
        vocab: the number of tokens in the vocabulary.
        end_of_text: the token of `<|endoftext|>`, which separates documents.
        fingerprint: a hash of the two files.
        is_compiled: whether compiled loops encode; then threads may share the work.
    """

    def __init__(
        self, tokens: dict[str, int], merges: Iterable[tuple[str, str]], fingerprint: str = ""
    ) -> None:
        """Takes encoder.json's tokens and vocab.bpe's merges, both in GPT-2's byte symbols.

        Raises:
            KeyError: a merge or a byte is not in the vocabulary.
        """
        symbols = byte_symbols()
        values = {symbol: byte for byte, symbol in symbols.items()}
        self.vocab = len(tokens)
        self.end_of_text = tokens[END_OF_TEXT]
        self.fingerprint = fingerprint
        pairs = {
            (tokens[left], tokens[right]): (rank, tokens[left + right])
            for rank, (left, right) in enumerate(merges)
        }
        self._bytes = [b""] * self.vocab
        for symbol, token in tokens.items():
            if token != self.end_of_text:
                self._bytes[token] = bytes(values[character] for character in symbol)
        self._bytes[self.end_of_text] = END_OF_TEXT.encode()
        byte_tokens = [tokens[symbols[byte]] for byte in range(256)]
        self._words = Words(pairs, byte_tokens, self.vocab)
        self._encoder: Encoder = Parts(self._words)
        self.is_compiled = False

    def compile(self) -> None:
        """Lets compiled loops encode from now on, where Numba is there: it pays for long texts."""
        if native.is_there() and not self.is_compiled:
            from gpt2cli.text.native_words import NativeWords

            self._encoder = NativeWords(self._words)
            self.is_compiled = True

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Returns a text's tokens.

        Args:
            text: any text that has a UTF-8 form.
            special: whether `<|endoftext|>` in the text is that token, and not so many letters.

        Raises:
            BadDataError: the text holds half a surrogate pair, which no UTF-8 text can.
        """
        return self._words.unpack(self.encode_packed(text, special=special))

    def encode_packed(self, text: str, *, special: bool = False) -> bytes:
        """Returns a text's tokens as `encode` does, but little-endian in 16 bits each.

        A vocabulary of more than 65,536 tokens has 32 bits each.
        """
        try:
            if special and END_OF_TEXT in text:
                parts = map(self._encoder.encode, text.split(END_OF_TEXT))
                return self.pack([self.end_of_text]).join(parts)
            return self._encoder.encode(text)
        except UnicodeEncodeError as error:
            lone = f"U+{ord(error.object[error.start]):04X}"
            raise BadDataError(f"The text holds {lone}, half a character.") from error

    def pack(self, tokens: list[int]) -> bytes:
        """Returns tokens in the form of `encode_packed`."""
        return self._words.pack(tokens)

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """Returns the bytes that tokens stand for; they may end inside a character."""
        known = self._bytes
        # An embedding may have more rows than there are tokens.
        return b"".join([known[token] for token in tokens if token < self.vocab])

    def decode(self, tokens: Iterable[int]) -> str:
        """Returns the text that tokens stand for; bytes that are no text become U+FFFD."""
        return self.decode_bytes(tokens).decode(errors="replace")

    def stream(self) -> Stream:
        """Returns a decoder that takes tokens as they come."""
        return Stream(self)


class Stream:
    """Turns tokens into text as they come, holding back a character until it is whole."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, tokens: Iterable[int]) -> str:
        """Returns the text that is certain now."""
        return self._decoder.decode(self._tokenizer.decode_bytes(tokens))


def check_fits(tokenizer: Tokenizer, hparams: HParams) -> None:
    """Raises BadDataError where a vocabulary has more tokens than the model."""
    if tokenizer.vocab > hparams.n_vocab:
        raise BadDataError(
            f"encoder.json has {tokenizer.vocab} tokens, and hparams.json allows {hparams.n_vocab}."
        )


def read_tokenizer(encoder: Path, merges: Path) -> Tokenizer:
    """Returns the tokenizer of an encoder.json and a vocab.bpe, or of a tokenizer.json for both.

    Raises:
        MissingInputError: a file is missing.
        BadDataError: a file is damaged, or the two do not fit each other.
    """
    try:
        files = read_vocabulary(encoder, merges)
        tokens = json.loads(files[0])
        lines = files[1].decode().split("\n")
        pairs = [(left, right) for left, right in (line.split() for line in lines[1:] if line)]
    except FileNotFoundError as error:
        raise MissingInputError(f"{error.filename} is missing.") from error
    except (OSError, ValueError) as error:
        raise BadDataError(f"{encoder} or {merges} cannot be read: {error}.") from error
    try:
        if sorted(tokens.values()) != list(range(len(tokens))):
            raise BadDataError(f"{encoder}: the tokens are not numbered from 0 without a gap.")
        return Tokenizer(tokens, pairs, hashlib.sha256(b"".join(files)).hexdigest())
    except (KeyError, AttributeError, TypeError) as error:
        raise BadDataError(f"{encoder} and {merges} do not fit each other: {error!r}.") from error
