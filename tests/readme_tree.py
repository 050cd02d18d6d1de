"""Rewrites the tree of modules in the README from their docstrings.

    python -m tests.readme_tree

The order of rooms is from the door down to the ground; a module's line is the first sentence of
its docstring.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROOMS = (
    "cli.py",
    *("commands", "training", "decoding", "formats", "fetching", "network", "text", "storage"),
    *("config", "options.py", "hparams.py", "vocabulary.py", "records.py", "progress.py"),
    *(
        "signals.py",
        "tensorflow_start.py",
        "compile_cache.py",
        "native.py",
        "hardware.py",
        "json_reader.py",
        "reading.py",
        "errors.py",
    ),
)
DATA = (
    "└── data/                pins.json, what is known of OpenAI's files; tiny/, the bundled model"
)


def sentence(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.split("\n\n")[0].replace("\n", " ").rstrip(".")


def line(path: Path, indent: str, branch: str) -> str:
    return f"{indent}{branch} {path.name + ' ':<{24 - len(indent) - len(branch)}}{sentence(path)}"


def tree(package: Path) -> str:
    lines = ["gpt2cli/"]
    for room in ROOMS:
        place = package / room
        if place.suffix == ".py":
            lines.append(line(place, "", "├──"))
        elif place.is_dir():
            modules = [path for path in sorted(place.glob("*.py")) if path.name != "__init__.py"]
            branches = ["├──"] * (len(modules) - 1) + ["└──"]
            lines.append(f"├── {room}/")
            lines += [line(p, "│   ", b) for p, b in zip(modules, branches, strict=True)]
    return "\n".join([*lines, DATA])


if __name__ == "__main__":
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    found = re.search(r"^gpt2cli/\n(?:[├│└].*\n)+", text, re.MULTILINE)
    if not found:
        raise SystemExit("README.md has no tree that begins with gpt2cli/")
    readme.write_text(text.replace(found[0], tree(ROOT / "gpt2cli") + "\n"), encoding="utf-8")
