"""The texts to continue: from the command line, from files, from stdin."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from gpt2cli import json_reader
from gpt2cli.errors import BadDataError, UsageError
from gpt2cli.text import encodings, records
from gpt2cli.text.encodings import normalized_line_ends
from gpt2cli.text.sources import STDIN, STDIN_NAMES, Source, read_bytes, source_of

FIELD = "prompt"
BYTE_ORDER_MARK = "\ufeff"
# All prompts are held at once.
MOST_BYTES = 1 << 26
CONVERT = "Convert it: iconv -f {} -t utf-8"
# What Python makes of bytes on the command line that are not text (PEP 383).
ESCAPED_BYTES = range(0xDC80, 0xDD00)


def read_prompts(
    *,
    prefix: Sequence[str] = (),
    prefix_file: str | None = None,
    prompts: str | None = None,
    keep_line_ends: bool = False,
) -> list[str]:
    """Returns every text to continue, in the order of the options; one that is empty for none.

    Args:
        prefix: texts from the command line.
        prefix_file: a file that holds one text; `-`: stdin.
        prompts: a file of texts; `-`: stdin, which is also read if it is piped and nothing is
            given.
        keep_line_ends: whether carriage returns stay.

    Raises:
        MissingInputError: a file cannot be read.
        BadDataError: a line is not text, or not JSON with a prompt; says which.
        UsageError: stdin is named twice.
    """
    if prefix_file in STDIN_NAMES and prompts in STDIN_NAMES:
        raise UsageError("--prefix-file - and --prompts - contradict each other; give one of them.")
    check_prefixes(prefix)
    found = list(prefix)
    if prefix_file is not None:
        found.append(whole(source_of(prefix_file)))
    if prompts is not None:
        source = source_of(prompts)
        several = list(prompts_in(source))
        if not several:
            raise BadDataError(f"{source}: no prompts in there. Give one a line.")
        found += several
    elif reads_stdin_unasked(prefix, prefix_file):
        found += prompts_in(source_of(STDIN))
    return [text if keep_line_ends else normalized_line_ends(text) for text in found] or [""]


def check_prefixes(prefixes: Sequence[str]) -> None:
    """Checks that texts from the command line, which keeps undecodable bytes, are text.

    Raises:
        BadDataError: one of them is not UTF-8; says which.
    """
    for number, text in enumerate(prefixes, start=1):
        which = f"--prefix, number {number} of {len(prefixes)}" if prefixes[1:] else "--prefix"
        try:
            text.encode()
        except UnicodeEncodeError as error:
            code = ord(text[error.start])
            if code not in ESCAPED_BYTES:
                raise BadDataError(f"{which}: it holds U+{code:04X}, half a character.") from error
            place = len(os.fsencode(text[: error.start])) + 1
            raise BadDataError(
                f"{which}: byte {place} of it (0x{code & 0xFF:02x}) is not UTF-8 text."
            ) from error


def reads_stdin_unasked(prefixes: Sequence[str], *files: str | None) -> bool:
    """Returns whether stdin is read because it is piped and no text is given."""
    given = prefixes or any(file is not None for file in files)
    return not given and stdin_is_piped()


def stdin_is_piped() -> bool:
    """Returns whether stdin is a pipe, a socket or a file: not a terminal, /dev/null or closed."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def whole(source: Source) -> str:
    """Returns a file's text, without the line break at its end.

    Raises:
        BadDataError: it is not UTF-8; says in which line.
    """
    text = text_of(source)
    return text[:-2] if text.endswith("\r\n") else text.removesuffix("\n").removesuffix("\r")


def prompts_in(source: Source) -> Iterator[str]:
    """Yields the prompts of a file, one a line; lines without a character are left out.

    They are read as JSON in a .json and a .jsonl file, and from stdin or a pipe if they begin
    with `{`.

    Raises:
        BadDataError: a line is not text, or not JSON with a prompt; says which.
    """
    text = normalized_line_ends(text_of(source))
    if source.kind == "json":
        for where, record in records.in_array(source, [text]):
            yield prompt_of(record, where)
        return
    lines = [(n, line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    begins_so = source.is_stream and lines and lines[0][1].lstrip().startswith("{")
    as_json = source.kind == "jsonl" or begins_so
    for number, line in lines:
        where = f"{source}, line {number}"
        yield prompt_of(json_reader.parse(line, where, object), where) if as_json else line


def text_of(source: Source) -> str:
    """Returns a file's text, without a byte order mark.

    Raises:
        BadDataError: it is not UTF-8, and then says in which line; or it is too large.
    """
    content = bytearray()
    for piece in read_bytes(source):
        content += piece
        if len(content) > MOST_BYTES:
            raise BadDataError(f"{source}: over {MOST_BYTES:,} bytes of prompts. Cut it in two.")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        place = error.start - content.rfind(b"\n", 0, error.start)
        raise BadDataError(
            f"{source}, line {line}: byte {place} of it (0x{content[error.start]:02x}) is not "
            f"UTF-8 text. {encodings.remedy(bytes(content), error.start, CONVERT)}"
        ) from error
    if encodings.wide(bytes(content[: encodings.SAMPLE])):
        raise BadDataError(f"{source} is not UTF-8. {encodings.remedy(bytes(content), 0, CONVERT)}")
    return text.removeprefix(BYTE_ORDER_MARK)


def prompt_of(record: Any, where: str) -> str:
    """Returns the prompt in a record of JSON, which may be a text itself.

    Raises:
        BadDataError: there is none.
    """
    prompt = record.get(FIELD) if isinstance(record, dict) else record
    if not isinstance(prompt, str):
        told = records.json_shown(record)
        raise BadDataError(f'{where}: not a record with a text in "{FIELD}": {told}')
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        lone = f"U+{ord(prompt[error.start]):04X}"
        raise BadDataError(f"{where}: the prompt holds {lone}, half a character.") from error
    return prompt
