"""OpenAI's byte-level BPE, both ways."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from gpt2cli import vocabulary as vocabularies
from gpt2cli.errors import BadDataError, shortened
from gpt2cli.hparams import HParams
from gpt2cli.runtime import numba
from gpt2cli.special_tokens import END_OF_TEXT, Added, Specials
from gpt2cli.text.added import AddedTokens
from gpt2cli.text.bpe import Parts, Words
from gpt2cli.vocabulary import byte_symbols


class Encoder(Protocol):
    """Text to tokens."""

    def encode(self, text: str) -> bytes:
        """Returns a text's tokens, packed."""
        ...


class Tokenizer:
    """Text to tokens and back, with the vocabulary of one model folder.

    Attributes:
        vocab: the number of tokens in the vocabulary.
        specials: the tokens that are not pieces of words.
        end_of_text: the one that separates documents: `<|endoftext|>`, or the model's own.
        end: what that one reads in a text.
        ends: the tokens that end a sample.
        added: finds the added tokens in a text.
        fingerprint: a hash of the files.
        is_compiled: whether compiled loops encode; then threads may share the work.
    """

    def __init__(
        self,
        tokens: dict[str, int],
        merges: Iterable[tuple[str, str]],
        fingerprint: str = "",
        specials: Specials | None = None,
    ) -> None:
        """Takes encoder.json's tokens and vocab.bpe's merges, both in GPT-2's byte symbols.

        Without any specials, `<|endoftext|>` is the only one.

        Raises:
            KeyError: a merge or a byte is not in the vocabulary.
        """
        symbols = byte_symbols()
        values = {symbol: byte for byte, symbol in symbols.items()}
        if specials is None:
            end = tokens[END_OF_TEXT]
            specials = Specials(added={end: Added(text=END_OF_TEXT)}, end=end, ends=(end,))
        self.vocab = len(tokens)
        self.specials = specials
        self.end_of_text, self.ends = specials.end, frozenset(specials.ends)
        self.end = specials.added[specials.end].text
        self.added = AddedTokens(specials.added)
        self.fingerprint = fingerprint
        pairs = {
            (tokens[left], tokens[right]): (rank, tokens[left + right])
            for rank, (left, right) in enumerate(merges)
        }
        self._bytes = [b""] * self.vocab
        for symbol, token in tokens.items():
            added = specials.added.get(token)
            self._bytes[token] = added.text.encode() if added else bytes_of(symbol, values)
        byte_tokens = [tokens[symbols[byte]] for byte in range(256)]
        self._words = Words(pairs, byte_tokens, self.vocab)
        self._encoder: Encoder = Parts(self._words)
        self.is_compiled = False

    def compile(self) -> None:
        """Lets compiled loops encode from now on, if Numba is there: it pays for long texts."""
        if numba.is_available() and not self.is_compiled:
            from gpt2cli.text.bpe_kernels import NativeWords

            self._encoder = NativeWords(self._words)
            self.is_compiled = True

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Returns a text's tokens.

        Args:
            text: any text that has a UTF-8 form.
            special: whether `<|endoftext|>` and other added tokens in the text are tokens.

        Raises:
            BadDataError: the text holds half a surrogate pair, which no UTF-8 text can.
        """
        return self._words.unpack(self.encode_packed(text, special=special))

    def encode_packed(self, text: str, *, special: bool = False) -> bytes:
        """Returns a text's tokens as `encode` does, but little-endian in 16 bits each.

        A vocabulary of more than 65,536 tokens has 32 bits each.
        """
        try:
            encode = self._encoder.encode
            if not special:
                return encode(text)
            parts = self.added.parts(text)
            return b"".join(encode(p) if isinstance(p, str) else self.pack([p]) for p in parts)
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
        """Returns the text that tokens stand for; undecodable bytes become U+FFFD."""
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


def bytes_of(symbols: str, values: dict[str, int]) -> bytes:
    """Returns what a token stands for; what is not written in byte symbols is a text itself."""
    try:
        return bytes([values[symbol] for symbol in symbols])
    except KeyError:
        return symbols.encode()


def check_fits(tokenizer: Tokenizer, hparams: HParams) -> None:
    """Raises BadDataError if a vocabulary has more tokens than the model."""
    if tokenizer.vocab > hparams.n_vocab:
        raise BadDataError(
            f"The vocabulary has {tokenizer.vocab:,} tokens, and the model knows "
            f"{hparams.n_vocab:,}: they do not belong together."
        )


def read_tokenizer(
    encoder: Path, merges: Path, rows: int | None = None, *, trained: bool = False
) -> Tokenizer:
    """Returns the tokenizer of an encoder.json and a vocab.bpe, or of a tokenizer.json for both.

    Args:
        encoder: the tokens.
        merges: the merges.
        rows: how many tokens the model knows; added ones beyond them are left out.
        trained: whether it is for a model that is trained on documents.

    Raises:
        MissingInputError: a file is missing.
        BadDataError: a file is damaged, or the two do not fit each other.
    """
    found = vocabularies.read_vocabulary(encoder, merges, rows)
    specials = found.specials.trained() if trained else found.specials
    try:
        return Tokenizer(found.tokens, found.pairs, found.fingerprint, specials)
    except KeyError as error:
        raise BadDataError(
            f"{shortened(encoder)} and {shortened(merges)} do not fit each other: the first lacks "
            f"{shortened(error)}."
        ) from error
