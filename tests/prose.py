"""Lists phrases that this package's prose avoids: `python -m tests.prose [PATH...]`.

It reads docstrings, comments, and the texts of options and messages in Python files, and the
prose of Markdown files; names and commands in backquotes and blocks of code are left out.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent

# A "where" after one of these is about a place: nouns, verbs that ask or tell, prepositions.
PLACE_NOUNS = (
    "place|places|folder|folders|directory|file|line|position|positions|point|points|offset|spot|"
    "machine|machines|host|hosts|path|disk|part|row|column|terminal|memory|cache|step|stdout|"
    "system|systems|shell|environment|country|side|range|block|stage|loop|field|fields"
)
ASKING_VERBS = (
    "say|says|said|saying|tell|tells|know|knows|known|see|sees|find|finds|found|show|shows|shown|"
    "return|returns|yield|yields|decide|decides|choose|chooses|remember|remembers|write|writes|"
    "mark|marks|ask|asks|guess|guesses|record|records|set|sets|list|lists|learn|"
    "learns|print|prints|check|checks|give|gives|get|gets|is|are|was|were|be|read|reads|"
    "continue|continues|continued|resume|resumes|resumed|start|starts|end|ends|stop|stops|"
    "begin|begins|go|goes|stay|stays|keep|keeps|look|looks|stand|stands"
)
SMALL_WORDS = (
    "of|from|to|at|about|by|on|in|into|near|and|or|but|just|exactly|not|matter|there|for|"
    "beyond|than|whether|depends|with|here"
)
BEFORE_A_PLACE = re.compile(rf"\b(?:{PLACE_NOUNS}|{ASKING_VERBS}|{SMALL_WORDS})$", re.IGNORECASE)

# A possessive has lost its noun if one of these follows.
NO_NOUN = (
    r"(?=[.,;:)!?]|$| (?:and|or|that|which|while|with|are|is|in|for|at|on|to|by|as|would|when|"
    r"where|if|it|from|has|have|was|were|such|but|than|into|may|must|can|do|does|not|this|says|said|"
    r"too)\b| own(?:[.,;)]| too| for| on))"
)

RULES = {
    "say who tells whom": r"\b(?:is|are|was|were|be|been|being) told\b",
    "say what it is not": r"(?<!there )\b(?:is|are|was|were) no\b(?! (?:longer|more|less)\b)",
    "give the number a name": r"\bso many\b(?!(?: \w+)? (?:that|as)\b)",
    "again": r"\bonce more\b",
    "X's, or of X": r"\bof (?:(?:a|an|the|this|that) )?(?!one's)\w+'s" + NO_NOUN,
    "only": (
        r"(?<!let )(?<!stand )(?<!stands )(?<!not )(?<!is )(?<!are )(?<!runs )(?<!run )\balone\b"
    ),
    "is": r"\b(?:lies|lie|lay)\b",
    "if": (
        r"(?:^|(?<=[.!?] ))where\b[^.!?]*?,(?! (?:for|in|as|and|or|of|with|by|from|which|what)\b)"
        r"|\bwhere(?= (?:there (?:is|are|was|were|can|may)|none|nothing|nobody|no)\b)"
        r"|\bwhere\b(?!:)"
    ),
}
PATTERNS = {advice: re.compile(rule, re.IGNORECASE) for advice, rule in RULES.items()}

LEFT_ALONE = re.compile(r"\b(?:leave|leaves|leaving|left) [^.;:]*$", re.IGNORECASE)

# Correct English that a rule takes for something else: the exact text around it.
ALLOWED = (
    "in the middle of a list",
    "each one's place",
)


class Found(NamedTuple):
    """A phrase to avoid, and what to write instead."""

    path: Path
    line: int
    phrase: str
    advice: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.phrase!r} -> {self.advice}"


def without_code(text: str) -> str:
    """Returns a text whose backquoted parts are blank, at the same length."""
    return re.sub(r"``?[^`]*``?", lambda code: "`" + "_" * (len(code[0]) - 2) + "`", text)


def phrases(text: str) -> Iterator[tuple[int, str, str]]:
    """Yields the place of each phrase to avoid in a text, the phrase, and the advice."""
    # Of the same length as the text, so that places stay, whatever breaks its lines.
    flat = re.sub(r"\s", " ", without_code(text))
    flat = re.sub(r"(?<= ) +", lambda spaces: "\x00" * len(spaces[0]), flat)
    places = [place for place, letter in enumerate(flat) if letter != "\x00"]
    flat = flat.replace("\x00", "")
    for advice, pattern in PATTERNS.items():
        for match in pattern.finditer(flat):
            start, end = match.span()
            before, around = flat[:start].rstrip(), flat[max(0, start - 30) : end + 30]
            if any(allowed in around for allowed in ALLOWED):
                continue
            if advice == "if" and match[0].lower() == "where" and about_a_place(before):
                continue
            if advice == "only" and LEFT_ALONE.search(flat[:start]):
                continue
            shown = match[0] if len(match[0]) < 60 else f"{match[0][:57]}..."
            if advice == "if":
                shown = flat[max(0, flat.rfind(" ", 0, max(0, start - 1)) + 1) : end + 24]
            yield places[start], shown, advice


def about_a_place(before: str) -> bool:
    """Returns whether what precedes a "where" makes it one of place, not of condition."""
    before = before.rstrip("#*|- ")
    return not before or before[-1] in ":(" or BEFORE_A_PLACE.search(before) is not None


def texts_of_python(source: str) -> Iterator[tuple[int, str]]:
    """Yields the first line and the text of each comment and each string with words."""
    block: list[str] = []
    first = last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if block and (token.start[0] != last + 1 or token.line[: token.start[1]].strip()):
            yield first, "\n".join(block)
            block = []
        first, last = (first if block else token.start[0]), token.start[0]
        block.append(token.string.lstrip("#:! "))
    if block:
        yield first, "\n".join(block)
    inner = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            inner |= {id(part) for part in node.values}
            parts = (p.value if isinstance(p, ast.Constant) else "{}" for p in node.values)
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and id(node) not in inner:
            text = node.value if isinstance(node.value, str) else ""
            if " " in text:
                yield node.lineno, text


def texts_of_markdown(source: str) -> Iterator[tuple[int, str]]:
    """Yields the first line and the text of each paragraph that is not code."""
    plain = re.sub(
        r"^( *)```.*?^\1```", lambda code: "\n" * code[0].count("\n"), source, flags=re.M | re.S
    )
    line = 1
    for paragraph in re.split(r"(\n\s*\n|\n(?=\s*[-*|] ))", plain):
        yield line, paragraph
        line += paragraph.count("\n")


def found_in(path: Path) -> list[Found]:
    """Returns the phrases to avoid in a file, in its order."""
    source = path.read_text(encoding="utf-8")
    texts = texts_of_python(source) if path.suffix == ".py" else texts_of_markdown(source)
    shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    return sorted(
        Found(shown, first + text.count("\n", 0, place), phrase, advice)
        for first, text in texts
        for place, phrase, advice in phrases(text)
    )


def files(names: list[str]) -> Iterator[Path]:
    """Yields the Python and Markdown files that are named, or that are in folders so named."""
    for path in map(Path, names):
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.suffix in (".py", ".md"))
        else:
            yield path


def default() -> list[str]:
    """Returns what is read if nothing is named: the package with its guides, and the README."""
    return [str(ROOT / "gpt2cli"), str(ROOT / "README.md")]


def main() -> int:
    found = [one for path in files(sys.argv[1:] or default()) for one in found_in(path.resolve())]
    sys.stdout.write("".join(f"{one}\n" for one in found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
