"""An import points down a floor or stays in its room; and TensorFlow loads only where it works."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import gpt2cli
from tests import house, models

PACKAGE = Path(gpt2cli.__file__).parent
# From the ground up; modules and rooms on one floor don't know each other.
FLOORS = [
    {"arrays", "errors", "records"},
    {"reading", "terminal"},
    {"json_reader"},
    {"special_tokens"},
    {"options", "hparams", "vocabulary", "progress", "chat_template", "layout"},
    {"files"},
    {"runtime"},
    {"config", "spelling", "help_text"},
    {"completion"},
    {"application"},
    {"network", "text", "storage", "distributed"},
    {"inference", "fetching", "formats"},
    {"training"},
    {"commands"},
    {"cli"},
    {"__main__"},
]


def room(module: str) -> str:
    """Returns the part of a module's name that has a floor: `text` for gpt2cli.text.corpus."""
    return module.split(".")[1] if "." in module else ""


def floor(name: str) -> int:
    return next(number for number, names in enumerate(FLOORS) if name in names)


def imports(path: Path) -> set[str]:
    """Returns the modules of this package that a file imports, at the top or in a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("gpt2cli.")}


MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__init__.py"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_down(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for target in map(room, imports(path)):
        if target not in (own, "__version__"):
            assert floor(target) < floor(own), f"{own} imports {target}"


def test_functions_and_files_stay_within_the_walls() -> None:
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 300, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 45, f"{path}: {node.name}"


def test_a_commands_settings_enter_few_modules() -> None:
    """Other code takes paths, numbers, and groups of options."""
    taken: dict[str, set[str]] = {}
    for path in MODULES:
        name = path.relative_to(PACKAGE).as_posix()
        for target in imports(path):
            if target.startswith("gpt2cli.config.") and target.endswith("Config"):
                taken.setdefault(target, set()).add(name)
    assert "commands/generate.py" in taken["gpt2cli.config.generate.GenerateConfig"]
    for target, names in taken.items():
        assert len(names) <= 4, f"{target}: {names}"
        assert all(name.startswith(("commands/", "config/")) for name in names), names


def functions() -> dict[tuple[str, str], ast.FunctionDef]:
    """Returns the functions of all modules, by module and name."""
    return {
        (f"gpt2cli.{'.'.join(path.relative_to(PACKAGE).with_suffix('').parts)}", node.name): node
        for path in MODULES
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }


def test_a_commands_settings_are_handed_on_in_parts() -> None:
    """A function that takes a group of options is given that group, and not all settings."""
    known, seen = functions(), 0
    for (module, name), function in known.items():
        arguments = [*function.args.args, *function.args.kwonlyargs]
        whole = {
            each.arg
            for each in arguments
            if each.annotation and ast.unparse(each.annotation).endswith("Config")
        }
        path = PACKAGE / "/".join(module.split(".")[1:])
        come_from = origins(path.with_suffix(".py"))
        for call in ast.walk(function):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
                continue
            called = known.get((come_from.get(call.func.id, module), call.func.id))
            for given, taken in zip(call.args, called.args.args if called else (), strict=False):
                if isinstance(given, ast.Name) and given.id in whole and taken.annotation:
                    seen += 1
                    kind = ast.unparse(taken.annotation)
                    assert kind.endswith("Config"), f"{module}.{name}: {ast.unparse(call)}"
    assert seen > 10


@cache
def origins(path: Path) -> dict[str, str]:
    """Returns the module that each name is imported from."""
    return {
        alias.asname or alias.name: node.module or ""
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


# What renames, locks, removes, or makes a file or folder with a name of its own for a while. An
# unnamed temporary file (`TemporaryFile`, `memfd_create`) leaves nothing that is to be removed.
REFUSED = {
    "os": {"link", "remove", "removedirs", "rename", "renames", "replace", "rmdir", "unlink"},
    "shutil": {"move", "rmtree"},
    "tempfile": {"NamedTemporaryFile", "TemporaryDirectory", "mkdtemp", "mkstemp"},
    "fcntl": {"flock", "fcntl", "lockf"},
}
REFUSED_METHODS = {"hardlink_to", "rename", "rmdir", "unlink"}


def changes_names(node: ast.AST) -> bool:
    """Returns whether a piece of code renames, locks or removes a file."""
    if isinstance(node, ast.ImportFrom):
        return any(alias.name in REFUSED.get(node.module or "", ()) for alias in node.names)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.attr in REFUSED.get(node.value.id, ())
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        # A path's `replace` takes one argument, a text's two.
        one = len(node.args) == 1 and not node.keywords
        return node.func.attr in REFUSED_METHODS or (node.func.attr == "replace" and one)
    return False


def test_nothing_outside_the_walls_of_files_renames_locks_or_removes() -> None:
    found: dict[str, list[int]] = {}
    for path in MODULES:
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if lines := [node.lineno for node in nodes if changes_names(node)]:  # type: ignore[attr-defined]
            found[path.relative_to(PACKAGE).as_posix()] = lines
    assert {name for name in found if not name.startswith("files/")} == set(), found
    # They are found where they are allowed.
    assert {"files/atomic.py", "files/lock.py", "files/exports.py"} <= found.keys()


def test_the_walls_of_the_house_stand() -> None:
    counts = house.bare_any().values()
    assert sum(bare for bare, _ in counts) < house.MOST_BARE_ANY * sum(total for _, total in counts)
    assert house.namesakes() == {}
    assert house.positional_records() == []
    assert house.long_classes() == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["finetune", "--help"],
        ["generate", "--help"],
        ["download", "--help"],
        ["export", "--help"],
        ["export", "out", "--run-name", "no-such-run"],
        ["export", "out", "--precision", "q8_0"],
        ["finetune", "no-such-file.txt"],
        ["finetune", __file__, "--model-name", "no-such-model", "--offline"],
        ["generate", "--run-name", "no-such-run"],
        ["generate", "--temperature", "-1"],
        ["generate", "--prompts", "no-such-file.jsonl", "--model-name", "tiny"],
        ["generate", "--destination-path", __file__, "--model-name", "tiny"],
        ["evaluate", "--help"],
        ["evaluate", "no-such-file.txt", "--model-name", "tiny"],
        ["info", "--help"],
        ["info"],
        ["tokens", "--help"],
        ["tokens", "Once upon a time"],
    ],
)
def test_tensorflow_is_not_loaded_for(arguments: list[str], tmp_path: Path) -> None:
    program = (
        "import sys\nfrom gpt2cli.cli import main\n"
        f"sys.argv = ['gpt2cli', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('loaded', 'tensorflow' in sys.modules, 'numpy.random' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "loaded False" in done.stdout
    if "--help" in arguments:
        # NumPy costs a tenth of a second, which help has not got.
        assert "loaded False False" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    ["generate --device cpu --length 3", "export out/hf --format huggingface"],
)
def test_tensorflow_is_not_loaded_to(command: str, tmp_path: Path) -> None:
    models.write_model(tmp_path / "models" / "mini", models.MINI)
    program = (
        "import sys\nfrom gpt2cli.cli import main\n"
        f"sys.argv = 'gpt2cli {command} --model-name mini'.split()\n"
        "try:\n    main()\nexcept SystemExit as end:\n    print('ended with', end.code or 0)\n"
        "print('loaded', 'tensorflow' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("ended with 0\nloaded False\n"), done.stderr


def test_no_graph_goes_through_autograph() -> None:
    """It writes each function to the temporary folder, where a signal would leave it."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "tf.function":
                options = {option.arg: ast.unparse(option.value) for option in node.keywords}
                assert options.get("autograph") == "False", f"{path}: {ast.unparse(node)}"
