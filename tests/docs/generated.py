"""The parts of the guides that are made from the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.docs import options, pages, tree


def files() -> Iterator[tuple[Path, str]]:
    """Yields each page that has generated parts, and its text with these made anew."""
    yield pages.DOCS / "options.md", options.page()
    text = pages.page("architecture")
    text = with_block(text, "## Floors", tree.floors())
    yield pages.DOCS / "architecture.md", with_block(text, "## Files", tree.tree())


def with_block(text: str, heading: str, content: str) -> str:
    """Returns a page with other content in the first block of code below a heading."""
    pattern = rf"(^{heading}\n.*?^```\n).*?(?=^```$)"
    made, count = re.subn(
        pattern, lambda found: found[1] + content, text, count=1, flags=re.MULTILINE | re.DOTALL
    )
    if not count:
        raise ValueError(f"there is no block of code below {heading}")
    return made
