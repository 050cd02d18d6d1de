"""Measures of the package's own source; `python -m tests.house` prints them, with their places."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import gpt2cli

PACKAGE = Path(gpt2cli.__file__).parent
# A name that as many modules give to functions of their own says too little.
MOST_NAMESAKES = 4
MOST_CLASS_LINES = 150
MOST_BARE_ANY = 0.08
MOST_POSITIONAL_FIELDS = 2
# Python's own, and those that a protocol asks for.
COMMON = ("main",)


def trees() -> Iterator[tuple[str, ast.Module]]:
    """Yields each module of the package: its path within it, and its syntax tree."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def annotated(tree: ast.Module) -> Iterator[ast.expr]:
    """Yields the annotations of a module: of parameters, results and variables."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            yield node.annotation
        elif isinstance(node, ast.FunctionDef) and node.returns is not None:
            yield node.returns


def bare_any() -> dict[str, tuple[int, int]]:
    """Returns for each module how many annotations are `Any` and nothing else, and of how many."""
    counts = {}
    for name, tree in trees():
        texts = [ast.unparse(node) for node in annotated(tree)]
        counts[name] = texts.count("Any"), len(texts)
    return counts


def long_classes() -> list[str]:
    """Returns the classes that are longer than the wall, with their lines."""
    return [
        f"{name}: {node.name} {lines}"
        for name, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > MOST_CLASS_LINES
    ]


def positional_records() -> list[str]:
    """Returns the dataclasses of several fields that may be made without naming them."""
    return [
        f"{name}: {node.name}"
        for name, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and is_positional(node)
    ]


def is_positional(node: ast.ClassDef) -> bool:
    """Returns whether a class is a dataclass of more than a few fields, not all by keyword."""
    made = [ast.unparse(each) for each in node.decorator_list]
    kinds = [ast.unparse(each.annotation) for each in node.body if isinstance(each, ast.AnnAssign)]
    fields = [kind for kind in kinds if not kind.startswith("ClassVar")]
    return (
        any("dataclass" in each and "kw_only=True" not in each for each in made)
        and "dataclasses.KW_ONLY" not in fields
        and len(fields) > MOST_POSITIONAL_FIELDS
    )


def namesakes() -> dict[str, list[str]]:
    """Returns the names of functions that too many modules define, with the modules."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, tree in trees():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name not in COMMON:
                found[node.name].append(name)
    return {name: places for name, places in found.items() if len(places) > MOST_NAMESAKES}


def main() -> None:
    counts = bare_any()
    bare, total = (sum(pair[index] for pair in counts.values()) for index in (0, 1))
    print(f"bare Any: {bare} of {total} annotations, {bare / total:.1%}")
    for name, (some, every) in sorted(counts.items(), key=lambda item: -item[1][0]):
        if some:
            print(f"  {some:4} of {every:4}  {name}")
    print(f"classes over {MOST_CLASS_LINES} lines: {', '.join(long_classes()) or 'none'}")
    print(f"records made by position: {', '.join(positional_records()) or 'none'}")
    print(f"functions of one name in more than {MOST_NAMESAKES} modules:")
    for name, places in sorted(namesakes().items(), key=lambda item: -len(item[1])):
        print(f"  {name}: {', '.join(places)}")


if __name__ == "__main__":
    main()
