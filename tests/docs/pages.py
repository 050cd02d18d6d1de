"""The README and the guides, as the tests of them read them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import gpt2cli

ROOT = Path(__file__).parent.parent.parent
README = ROOT / "README.md"
DOCS = Path(gpt2cli.__file__).parent / "docs"
# In the order in which their commands run, each in the folder that those before have left.
IN_ORDER = ("finetune", "memory", "gpu", "distributed", "generate", "evaluate", "export")


def page(name: str) -> str:
    """Returns the text of a guide."""
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def paths() -> list[Path]:
    """Returns the README, then the guides."""
    first = [DOCS / f"{name}.md" for name in IN_ORDER]
    return [README, *first, *sorted(set(DOCS.glob("*.md")) - set(first))]


def everything() -> str:
    """Returns the README and all guides as one text."""
    return "\n".join(path.read_text(encoding="utf-8") for path in paths())


def blocks(text: str, languages: str) -> Iterator[tuple[str, str]]:
    """Yields the language and the content of each block of code.

    Args:
        text: of a page, or of several.
        languages: a regular expression for the languages.
    """
    yield from re.findall(rf"^```({languages})\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
