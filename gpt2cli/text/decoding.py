"""The bytes of a text file → its text, in pieces or in lines; and which encoding would fit them."""

from __future__ import annotations

import codecs
import io
import itertools
import unicodedata
from collections.abc import Iterable, Iterator

import regex

from gpt2cli.config.shared import CorpusOptions
from gpt2cli.errors import BadDataError, shortened
from gpt2cli.text.sources import ReadingState, Source, read_bytes

# The longest line of a table or of JSON lines (characters).
MOST_LINE = 1 << 24
# Bytes that are looked at.
SAMPLE = 1 << 14
# Fewer bytes tell nothing of two or four bytes a unit.
LEAST = 4
BYTE_ORDER_MARKS = {
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
GZIP_MAGIC = b"\x1f\x8b"
WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
# The likelier first: of two that fit as well, the first is taken.
NARROW = (
    *("utf-8", "cp1252", "cp1250", "cp1251", "koi8-r", "cp1253", "cp1255", "cp1256"),
    *("shift-jis", "euc-jp", "euc-kr", "big5", "gb18030", "mac-roman", "cp866", "cp850"),
)
PUNCTUATION = frozenset(
    "‘’‚“”„•…‹›€™–—«»°§©®·¿¡£½²³ªº№、。「」『』・!?():;,.〜\u3000\xa0"  # noqa: RUF001
)
# What texts in these scripts are full of.
COMMON = frozenset(
    "оеаинтсрвлαοιετσνהוילרםאבמתاليوهمرنのはをにがたでと이다는에의을가하的一是不了在人有我他"
)
WORD = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}ー々]+|[\p{L}\p{M}--[\p{Han}\p{Hiragana}\p{Katakana}ー々]]+",
    regex.V1,
)
UTF8_CHARACTER = regex.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)
# A candidate is proposed if this share of what is not ASCII makes sense.
ENOUGH = 0.8
# A text is UTF-8 if this share of its bytes beyond ASCII are whole characters of it.
USUAL = 0.9
# How much of the text a proposal shows (characters).
SHOWN = 40


def read_text(
    source: Source, options: CorpusOptions, state: ReadingState, newline: str | None = None
) -> Iterator[str]:
    """Yields a file's text without a byte-order mark: in pieces of bounded size, or in lines.

    They are lines if it is said how one ends, as `lines` takes it. The state takes note of what is
    read. Raises BadDataError for bytes that the encoding lacks, or a line that is too long.
    """
    text = decoded_pieces(source, options, state)
    return text if newline is None else lines(source, text, newline)


def decoded_pieces(source: Source, options: CorpusOptions, state: ReadingState) -> Iterator[str]:
    """Yields a file's text in pieces of bounded size, without a byte-order mark."""
    decoder: codecs.IncrementalDecoder | io.IncrementalNewlineDecoder | None = None
    done, first = 0, True
    for chunk in itertools.chain(read_bytes(source, state), [b""]):
        if decoder is None:
            decoder = codecs.getincrementaldecoder(codec(options.encoding, chunk))()
            if not options.keep_line_ends:
                decoder = io.IncrementalNewlineDecoder(decoder, True)
        done += len(chunk)
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            content = bytes(error.object)
            offset = done - len(content) + error.start
            raise BadDataError(
                f"{source}: byte {offset:,} (0x{content[error.start]:02x}) is not "
                f"{options.encoding.upper()} text. {remedy(content, error.start)}"
            ) from error
        except UnicodeError as error:
            raise BadDataError(
                f"{source} is not {options.encoding.upper()} text: {shortened(error)}."
            ) from error
        if first and text:
            text, first = text.removeprefix("\ufeff"), False
        if text:
            yield text
    if isinstance(decoder, io.IncrementalNewlineDecoder):
        seen = decoder.newlines or ()
        if {"\r", "\r\n"}.intersection([seen] if isinstance(seen, str) else seen):
            state.converted.add(source)


def lines(source: Source, pieces: Iterable[str], newline: str) -> Iterator[str]:
    r"""Yields text line by line, each with its end, whatever pieces it comes in.

    A line ends as for `open`: the empty text means \n, \r and \r\n alike. Raises BadDataError if
    it is too long for a row or a record of the file.
    """
    rest: list[str] = []
    size = 0
    for piece in pieces:
        rest.append(piece)
        size += len(piece)
        if "\n" in piece:
            *whole, last = io.StringIO("".join(rest), newline)
            yield from whole
            rest, size = [last], len(last)
        elif size > MOST_LINE:
            raise BadDataError(f"{source}: a line of over {MOST_LINE:,} characters.")
    yield from io.StringIO("".join(rest), newline)


def remedy(content: bytes, place: int, fix: str = "Give --encoding {}") -> str:
    """Returns what to do about a byte, at a place in its surroundings, that cannot be decoded.

    `fix` is what mends it, with a place for the encoding's name.
    """
    begin = content.rfind(b"\n", 0, place) + 1
    sample = content[begin : begin + SAMPLE]
    name = wide(content[:SAMPLE]) or narrow(sample)
    if name is None:
        return f"{fix.format('NAME')}, with the NAME of what it is written in, as cp1252."
    if name.startswith("utf-"):
        sample = content[:SAMPLE]
    text = decoded(sample, codec(name, sample)) or ""
    at = next((at for at, char in enumerate(text) if not char.isascii()), 0)
    shown = shortened(text[max(0, at - SHOWN // 2) : at + SHOWN // 2].strip())
    return f'As {name} it reads: "{shown}". {fix.format(name)}.'


def wide(sample: bytes) -> str | None:
    """Returns which encoding of two or four bytes a unit a text's first bytes are in, or None."""
    for mark, name in BYTE_ORDER_MARKS.items():
        if sample.startswith(mark):
            return name
    if b"\0" not in sample or len(sample) < LEAST:
        return None
    found = {name: plain_characters(sample, name) for name in WIDE}
    best = max(found, key=lambda name: found[name])
    return best[: len("utf-16")] if found[best] else None


def why_binary(begin: bytes) -> str | None:
    """Returns what the beginning of a file is if it has a NUL, and so is not text; else None."""
    if b"\0" not in begin:
        return None
    if name := wide(begin):
        return f"binary, or text in {name}: give --encoding {name}."
    if begin.startswith(GZIP_MAGIC):
        return "packed by gzip, which only a name in .gz tells; unpack it: zcat."
    return "binary, not text."


def codec(encoding: str, first: bytes) -> str:
    """Returns an encoding's codec; utf-16 and utf-32 may lack their mark in the first bytes."""
    name = codecs.lookup(encoding).name
    marked = any(first.startswith(mark) for mark in BYTE_ORDER_MARKS)
    if name not in ("utf-16", "utf-32") or marked:
        return name
    orders = (f"{name}-le", f"{name}-be")
    return max(orders, key=lambda order: plain_characters(first[:SAMPLE], order))


def plain_characters(sample: bytes, name: str) -> int:
    """Returns how much of a text in a wide encoding is ASCII; 0 for another encoding."""
    text = decoded(sample, name) or ""
    if not all(char.isprintable() or char.isspace() for char in text):
        return 0
    return sum(char.isascii() for char in text)


def narrow(sample: bytes) -> str | None:
    """Returns the encoding in which bytes make the most sense, or None if they make none."""
    scores = {name: sense(text) for name in NARROW if (text := decoded(sample, name)) is not None}
    best = max(scores, key=lambda name: scores[name], default=None)
    # Nobody wants a damaged UTF-8 text in another encoding.
    high = sum(byte > 127 for byte in sample)
    whole = sum(map(len, UTF8_CHARACTER.findall(sample)))
    damaged = best != "utf-8" and whole >= USUAL * high
    return None if best is None or scores[best] < ENOUGH or damaged else best


def decoded(sample: bytes, name: str) -> str | None:
    """Returns the text of bytes that may end inside a character; None if they are not text."""
    try:
        return codecs.getincrementaldecoder(name)().decode(sample)
    except UnicodeError:
        return None


def sense(text: str) -> float:
    """Returns the share of what is not ASCII that is in likely words (0 to 1), and a bonus.

    The bonus is half the share of letters that texts in their script are full of.
    """
    foreign = [char for char in text if not char.isascii()]
    if not foreign or not all(char.isprintable() or char.isspace() for char in text):
        return 0.0
    good = sum(char in PUNCTUATION for char in foreign)
    for match in WORD.finditer(text):
        if likely(match[0], text[: match.start()][-1:], text[match.end() :][:1]):
            good += sum(not char.isascii() for char in match[0])
    return (good + sum(char in COMMON for char in foreign) / 2) / len(foreign)


def likely(word: str, before: str, after: str) -> bool:
    """Returns whether a run of letters is of one script, and its capitals in the usual places."""
    scripts = {
        unicodedata.name(char, "").split(" ")[0].split("-")[0] for char in word if char.isalpha()
    }
    eastern = {"CJK", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC"}
    if scripts & eastern:
        touched = any(char.isascii() and char.isalpha() for char in (before, after))
        return scripts <= eastern and (len(word) > 1 or not touched)
    if len(scripts) != 1 or "HALFWIDTH" in scripts:
        return False
    ascii_letters = any(char.isascii() for char in word)
    if "LATIN" in scripts and len(word) > 2 and not ascii_letters:
        return False
    return word in (word.lower(), word.upper(), word[:1].upper() + word[1:].lower())


def normalized_line_ends(text: str) -> str:
    r"""Returns a text with \n in place of \r\n and \r."""
    return text.replace("\r\n", "\n").replace("\r", "\n")
