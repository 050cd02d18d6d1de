"""The pieces that tokens stand for, as a person can read them: white space and odd bytes shown."""

from __future__ import annotations

# What Python's `surrogateescape` makes of a byte that is not text (PEP 383).
ESCAPED_BYTE = 0xDC00
QUOTED = {'"': '\\"', "\\": "\\\\"}


def quoted_piece(content: bytes) -> str:
    r"""Returns a token's bytes in quotes, on one line: `" cat"`, `"\n"`, `"\xe2\x82"`.

    What is printable stands for itself; `\xNN` is a byte that is not a whole character, or a
    control character; `\uNNNN` is a character that would not be seen.
    """
    text = content.decode(errors="surrogateescape")
    return f'"{"".join(map(shown_character, text))}"'


def shown_character(char: str) -> str:
    """Returns a character, or what stands for it if it would not be seen."""
    code = ord(char)
    if char in QUOTED:
        return QUOTED[char]
    if char.isprintable():
        return char
    if 0xDC80 <= code < 0xDD00:
        return f"\\x{code - ESCAPED_BYTE:02x}"
    if code < 0x80:
        return ascii(char)[1:-1]
    return f"\\u{code:04x}" if code < 1 << 16 else f"\\U{code:08x}"


def whole_text(content: bytes) -> str | None:
    """Returns the text of a token's bytes; None if they are not whole characters."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None
