"""OpenAI's byte-level BPE, both ways; and tokens as a person can read them."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable
from pathlib import Path

from gpt2cli import vocabulary as vocabularies
from gpt2cli.errors import BadDataError, shortened
from gpt2cli.hparams import HParams
from gpt2cli.runtime import numba
from gpt2cli.special_tokens import END_OF_TEXT, Added, Specials
from gpt2cli.text.added import AddedTokens
from gpt2cli.text.bpe import Parts, Words
from gpt2cli.vocabulary import byte_symbols

# What Python's `surrogateescape` makes of bytes that are not text (PEP 383).
ESCAPED_BYTES = range(0xDC80, 0xDD00)
QUOTED = {'"': '\\"', "\\": "\\\\"}


class Tokenizer:
    """Text to tokens and back, with the vocabulary of one model folder.

    Attributes:
        end_of_text: the token that separates documents: `<|endoftext|>`, or the model's own.
        end: what that one reads in a text.
        ends: the tokens that end a sample.
        added: finds the added tokens in a text.
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

        Without any specials, `<|endoftext|>` is the only one. Raises KeyError if a merge or a byte
        is not in the vocabulary.
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
        self._encode: Callable[[str], bytes] = Parts(self._words).encode
        self.is_compiled = False

    def compile(self) -> None:
        """Lets compiled loops encode from now on, if Numba is there: it pays for long texts."""
        if numba.is_available() and not self.is_compiled:
            from gpt2cli.text.bpe_kernels import NativeWords

            self._encode = NativeWords(self._words).encode
            self.is_compiled = True

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Returns a text's tokens; `special`: added tokens in it, as `<|endoftext|>`, are tokens.

        Raises BadDataError if it holds half a surrogate pair, which no UTF-8 text can.
        """
        return self._words.unpack(self.encode_packed(text, special=special))

    def encode_packed(self, text: str, *, special: bool = False) -> bytes:
        """Returns `encode`'s tokens as bytes: 16 bits each, or 32 in a vocabulary over 65,536."""
        try:
            parts = self.added.parts(text) if special else [text]
            return b"".join(
                self._encode(part) if isinstance(part, str) else self.pack([part]) for part in parts
            )
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


def same_tokens(one: Tokenizer, other: Tokenizer) -> bool:
    """Returns whether each token stands for the same bytes in both."""
    return one.vocab == other.vocab and all(
        one.decode_bytes([token]) == other.decode_bytes([token]) for token in range(one.vocab)
    )


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

    Added tokens beyond the model's `rows` are left out. `trained`: for a model that is trained on
    documents. Raises MissingInputError if a file is missing, BadDataError if one is damaged, or
    the two do not fit each other.
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


def quoted_piece(content: bytes) -> str:
    r"""Returns a token's bytes in quotes, on one line: `" cat"`, `"\n"`, `"\xe2\x82"`.

    `\xNN` is a byte that is not a whole character, or a control character; `\uNNNN` is a character
    that would not be seen.
    """
    text = content.decode(errors="surrogateescape")
    return f'"{"".join(map(shown_character, text))}"'


def shown_character(char: str) -> str:
    """Returns a character, or what stands for it if it would not be seen."""
    code = ord(char)
    if char.isprintable():
        return QUOTED.get(char, char)
    if code in ESCAPED_BYTES:
        return f"\\x{code & 0xFF:02x}"
    # Python would write \xNN here, which stands for a byte.
    return f"\\u{code:04x}" if 0x80 <= code < 0x100 else ascii(char)[1:-1]


def whole_text(content: bytes) -> str | None:
    """Returns the text of a token's bytes; None if they are not whole characters."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None
