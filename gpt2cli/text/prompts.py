"""The texts to continue: from the command line, from files, from stdin."""

from __future__ import annotations

import dataclasses
import os
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence

import regex

from gpt2cli import json_reader
from gpt2cli.chat_template import Message
from gpt2cli.config.shared import CorpusOptions
from gpt2cli.errors import BadDataError, UsageError, shortened
from gpt2cli.json_reader import Json
from gpt2cli.text import decoding, records
from gpt2cli.text.conversations import FORM, MESSAGES, PAIR, messages_of
from gpt2cli.text.decoding import normalized_line_ends, read_text
from gpt2cli.text.sources import (
    STDIN,
    STDIN_NAMES,
    TABLES,
    ReadingState,
    Source,
    read_bytes,
    source_of,
)
from gpt2cli.text.tokenizer import ESCAPED_BYTES

FIELD = "prompt"
MOST_SEED = 2**32 - 1
MOST_LENGTH = 1 << 31
# The longest line of a stream of prompts (bytes).
MOST_LINE = 1 << 24
BYTE_ORDER_MARK = "\ufeff"
# All prompts are held at once.
MOST_BYTES = 1 << 26
CONVERT = "Convert it: iconv -f {} -t utf-8"
# Messages, the last of which is the user's, and the other fields of their record.
Unanswered = tuple[tuple[Message, ...], dict[str, Json]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """A text to continue, and what a record of JSON says besides; None: as the options say.

    Attributes:
        text: empty for nothing.
        stops: texts before which a sample ends.
        others: the record's other fields, which the answers repeat.
    """

    text: str
    length: int | None = None
    seed: int | None = None
    stops: tuple[str, ...] | None = None
    others: Mapping[str, Json] = dataclasses.field(default_factory=dict)


def read_prompts(
    *,
    prefix: Sequence[str] = (),
    prefix_file: str | None = None,
    prompts: str | None = None,
    keep_line_ends: bool = False,
) -> list[Request]:
    """Returns every text to continue, in the order of the options; one that is empty for none.

    `-` is stdin. It is also read as a file of prompts if it is piped and nothing is given. Raises
    MissingInputError if a file cannot be read, BadDataError for a line that is not text or not JSON
    with a prompt, and UsageError if stdin is named twice.
    """
    if prefix_file in STDIN_NAMES and prompts in STDIN_NAMES:
        raise UsageError("--prefix-file - and --prompts - contradict each other; give one of them.")
    check_prefixes(prefix)
    found = [Request(text=text) for text in prefix]
    if prefix_file is not None:
        # Without the line break at its end.
        text = regex.sub(r"(\r\n|\n|\r)\Z", "", text_of(source_of(prefix_file)))
        found.append(Request(text=text))
    if prompts is not None:
        source = source_of(prompts)
        several = list(prompts_in(source))
        if not several:
            raise BadDataError(f"{source}: no prompts in there. Give one a line.")
        found += several
    elif reads_stdin_unasked(prefix, prefix_file):
        found += prompts_in(source_of(STDIN))
    return [with_line_ends(each, keep=keep_line_ends) for each in found] or [Request(text="")]


def arriving_prompts(*, keep_line_ends: bool = False) -> Iterator[Request]:
    """Yields the prompts of stdin as they come, a line each; all are JSON if the first is."""
    as_json = None
    for where, text in arriving_lines(MOST_LINE):
        as_json = text.lstrip().startswith("{") if as_json is None else as_json
        parsed = json_reader.parse(text, where, object) if as_json else text
        yield with_line_ends(request_of(parsed, where), keep=keep_line_ends)


def arriving_lines(most: int) -> Iterator[tuple[str, str]]:
    """Yields each line of stdin that is not empty, as it comes: which it is, and its text.

    Raises BadDataError if it is not UTF-8, or has more than `most` bytes.
    """
    number = 0
    while line := sys.stdin.buffer.readline(most + 1):
        number += 1
        where = f"stdin, line {number}"
        if len(line) > most:
            raise BadDataError(f"{where}: over {most:,} bytes. Cut it in two.")
        try:
            text = line.decode().removeprefix(BYTE_ORDER_MARK).rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise BadDataError(f"{where}: byte {error.start + 1} of it is not UTF-8.") from error
        if text.strip():
            yield where, text


def unanswered(source: Source) -> list[Unanswered]:
    """Returns a file's conversations, each of which ends with what the user says.

    Raises BadDataError if there is none, or a record is something else; says which.
    """
    found = []
    newline = None if source.kind == "json" else "\n"
    text = read_text(source, CorpusOptions(dataset=()), ReadingState(), newline)
    for where, record in records.records(source, text):
        messages = messages_of(record, where)
        if messages[-1].role != "user":
            raise BadDataError(
                f"{where}: the last of its {len(messages)} messages is the assistant's; there is "
                "nothing to answer. Leave it out."
            )
        fields = record if isinstance(record, dict) else {}
        found.append((messages, {n: v for n, v in fields.items() if n not in (MESSAGES, *PAIR)}))
    if not found:
        raise BadDataError(f"{source}: no conversations in there. {FORM}")
    return found


def with_line_ends(request: Request, *, keep: bool) -> Request:
    r"""Returns a request whose text has only \n as line ends, unless others are kept."""
    if keep:
        return request
    return dataclasses.replace(request, text=normalized_line_ends(request.text))


def check_prefixes(prefixes: Sequence[str]) -> None:
    """Raises BadDataError unless texts from the command line are UTF-8; says which is not."""
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


def prompts_in(source: Source) -> Iterator[Request]:
    """Yields the prompts of a file, one a line; lines without a character are left out.

    They are read as JSON in a .json and a .jsonl file, and from stdin or a pipe if they begin
    with `{`. Raises BadDataError for a line that is not text, or not JSON with a prompt.
    """
    if source.kind in TABLES:
        raise BadDataError(
            f"{source} is a table, and --prompts takes texts: one a line, or .json or .jsonl with "
            "`prompt`. Save its texts so, under another name."
        )
    text = normalized_line_ends(text_of(source))
    if source.kind == "json":
        for where, record in records.in_array(source, [text]):
            yield request_of(record, where)
        return
    lines = [(n, line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    begins_so = source.is_stream and lines and lines[0][1].lstrip().startswith("{")
    as_json = source.kind == "jsonl" or begins_so
    for number, line in lines:
        where = f"{source}, line {number}"
        yield request_of(json_reader.parse(line, where, object) if as_json else line, where)


def text_of(source: Source) -> str:
    """Returns a file's text, without a byte order mark.

    Raises BadDataError if it is not UTF-8, and then says in which line; or if it is too large.
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
            f"UTF-8 text. {decoding.remedy(bytes(content), error.start, CONVERT)}"
        ) from error
    if decoding.wide(bytes(content[: decoding.SAMPLE])):
        raise BadDataError(f"{source} is not UTF-8. {decoding.remedy(bytes(content), 0, CONVERT)}")
    return text.removeprefix(BYTE_ORDER_MARK)


def request_of(record: Json, where: str) -> Request:
    """Returns the request in a record of JSON, or in a text; raises BadDataError if it is wrong."""
    if isinstance(record, str):
        return Request(text=checked_text(record, where, FIELD))
    prompt = record.get(FIELD) if isinstance(record, dict) else None
    if not isinstance(prompt, str):
        told = records.json_shown(record)
        raise BadDataError(f'{where}: not a record with a text in "{FIELD}": {told}')
    others = dict(record)
    del others[FIELD]
    return Request(
        text=checked_text(prompt, where, FIELD),
        length=whole_number(others.pop("length", None), f"{where}: length", 1, MOST_LENGTH),
        seed=whole_number(others.pop("seed", None), f"{where}: seed", 0, MOST_SEED),
        stops=stop_texts(others.pop("stop", None), where),
        others=others,
    )


def checked_text(text: str, where: str, field: str) -> str:
    """Returns a text of a record; raises BadDataError if it has no UTF-8 form."""
    if half := json_reader.half_character(text):
        raise BadDataError(f"{where}: the {field} holds {half}, half a character.")
    return text


def whole_number(value: Json, what: str, least: int, most: int) -> int | None:
    """Returns a number that a record may set; raises BadDataError if it is another value."""
    if value is None or (type(value) is int and least <= value <= most):
        return value
    shown = shortened(repr(value), 40)
    raise BadDataError(f"{what} must be a whole number from {least} to {most:,}, not {shown}.")


def stop_texts(value: Json, where: str) -> tuple[str, ...] | None:
    """Returns the stop texts that a record sets: one, or a list; None if it sets none."""
    if value is None:
        return None
    several = value if isinstance(value, list) else [value]
    if not all(isinstance(each, str) and each for each in several):
        shown = shortened(repr(value), 40)
        raise BadDataError(f"{where}: stop must be a text or a list of texts, not {shown}.")
    return tuple(checked_text(each, where, "stop") for each in several)
