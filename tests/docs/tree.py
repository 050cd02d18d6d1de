"""The floors and the files of the package, as gpt2cli/docs/architecture.md shows them.

A file's phrase is the first sentence of its docstring.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.test_layers import FLOORS, PACKAGE

# What holds no code.
FOLDERS = {
    "data": "pins.json, what is known of OpenAI's files; tiny/, the bundled model",
    "docs": "these pages",
}
COLUMN = 28


def floors() -> str:
    """Returns the rooms and modules, a floor a line, the highest first."""
    return "\n".join("  ".join(sorted(names)) for names in reversed(FLOORS)) + "\n"


def tree() -> str:
    """Returns the tree of files, in the order of the floors."""
    names = [name for names in reversed(FLOORS) for name in sorted(names, key=in_order)]
    places = [PACKAGE / name if is_folder(name) else PACKAGE / f"{name}.py" for name in names]
    lines = ["gpt2cli/"]
    for place in places:
        lines += rows(place, "", "├──")
    last = list(FOLDERS)[-1]
    for name, phrase in FOLDERS.items():
        lines.append(row("", "└──" if name == last else "├──", f"{name}/", phrase))
    return "\n".join(lines) + "\n"


def in_order(name: str) -> tuple[bool, str]:
    """Returns what sorts a floor: its modules first, then its rooms."""
    return is_folder(name), name


def is_folder(name: str) -> bool:
    """Returns whether a part of the package is a room of several files."""
    return (PACKAGE / name).is_dir()


def rows(path: Path, indent: str, branch: str) -> Iterator[str]:
    """Yields the line of a file, or those of a folder and of what is in it."""
    if path.is_file():
        yield row(indent, branch, path.name, sentence(path))
        return
    yield f"{indent}{branch} {path.name}/"
    modules = [p for p in path.glob("*.py") if p.name != "__init__.py"]
    inside = sorted(modules) + sorted(p.parent for p in path.glob("*/__init__.py"))
    for inner in inside:
        yield from rows(inner, f"{indent}│   ", "└──" if inner == inside[-1] else "├──")


def row(indent: str, branch: str, name: str, phrase: str) -> str:
    """Returns one line of the tree."""
    return f"{f'{indent}{branch} {name}':<{COLUMN - 1}} {phrase}".rstrip()


def sentence(path: Path) -> str:
    """Returns the first sentence of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.split("\n\n")[0].replace("\n", " ").rstrip(".")
