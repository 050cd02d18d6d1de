"""Every command with every kind of bad path in each role that a path can have."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.fork_server import ForkServer
from tests.faults.test_places import mounted

# Of the contract; 1 would be an error that nobody expected.
CODES = (0, 2, 65, 66, 69, 73, 74, 75)
MOST_SECONDS = 20
MOST_CHARACTERS = 500
TEXT = "The cat sat on the mat, and the other cat sat there.\n" * 30
TRAIN = "--steps 1 --val-every 0 --sample-every 0 --accumulate-gradients 1 --no-xla --seed 1"
SMALL = "--model-name models/small"
# PATH stands for the bad one.
ROLES = [
    f"finetune PATH {SMALL} {TRAIN}",
    f"finetune text.txt --val-dataset PATH {SMALL} {TRAIN}",
    f"finetune text.txt --model-name PATH {TRAIN}",
    f"finetune text.txt --model-name small --model-dir PATH {TRAIN} --offline",
    f"finetune text.txt --checkpoint-dir PATH {SMALL} {TRAIN}",
    f"finetune text.txt --checkpoint-dir . --run-name PATH {SMALL} {TRAIN}",
    f"finetune text.txt --restore-from PATH {SMALL} {TRAIN}",
    f"generate --prompts PATH {SMALL} --length 2 --device cpu",
    f"generate --prefix-file PATH {SMALL} --length 2 --device cpu",
    f"generate --destination-path PATH {SMALL} --length 2 --device cpu",
    f"generate --destination-path PATH --overwrite {SMALL} --length 2 --device cpu",
    f"generate --folder PATH {SMALL} --length 2 --device cpu",
    "generate --model-name PATH --length 2 --device cpu",
    "generate --checkpoint-dir PATH --length 2 --device cpu",
    "generate --checkpoint-dir . --run-name PATH --length 2 --device cpu",
    f"evaluate PATH {SMALL} --no-xla",
    "evaluate text.txt --model-name PATH --no-xla",
    f"export PATH {SMALL}",
    f"export PATH --format tar {SMALL} --overwrite",
    "export out --model-name PATH",
    "download tiny --model-dir PATH",
    f"generate --messages PATH {SMALL} --length 2 --device cpu",
    "chat --model-name PATH --length 2 --device cpu",
    "chat --checkpoint-dir . --run-name PATH --length 2 --device cpu",
    f"tokens --file PATH {SMALL}",
    "tokens text --model-name PATH",
    "tokens text --model-dir PATH",
    "tokens text --checkpoint-dir . --run-name PATH",
    "info PATH",
    "info --model-dir PATH",
    "info --checkpoint-dir PATH",
    "info --model-dir . --checkpoint-dir .",
    "info --checkpoint-dir . --run-name PATH",
]
KINDS = [
    *("missing", "file", "folder", "link", "dangling", "loop", "pipe", "device", "forbidden"),
    *("forbidden folder", "below forbidden", "below file", "long", "latin-1", "full"),
]
RUN_FILES = [
    *("lock", "log.jsonl", "config.json", "checkpoint", "counter", "best.json", "state-1.json"),
    *("hparams.json", "model-1.index", "model-1.data-00000-of-00001", "samples", ".saving"),
]
RUN_KINDS = ["folder", "dangling", "loop", "link", "pipe", "device", "forbidden"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, mini_model: Path) -> Iterator[ForkServer]:
    place = tmp_path_factory.mktemp("bad-paths")
    shutil.copytree(mini_model, place / "models" / "small")
    (place / "text.txt").write_text(TEXT)
    wrapper: list[str] = []
    if os.getuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may do everything, and setpriv is not there to forbid it")
        wrapper = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    started = ForkServer(place, *wrapper)
    yield started
    started.close()


def link(path: Path) -> None:
    """Makes a link to a file whose content must stay."""
    path.with_name("target").write_text("precious")
    path.symlink_to("target")


# Kind → what makes it at a path; a kind that is not here is a name alone.
MAKERS: dict[str, Callable[[Path], object]] = {
    "file": lambda path: path.write_text("some text"),
    "below file": lambda path: path.write_text("some text"),
    "folder": lambda path: path.mkdir(),
    "link": link,
    "dangling": lambda path: path.symlink_to("nowhere"),
    "loop": lambda path: path.symlink_to(path.name),
    "pipe": lambda path: os.mkfifo(path),
    "device": lambda path: path.symlink_to("/dev/full"),
    "forbidden": lambda path: os.close(os.open(path, os.O_CREAT, 0)),
    "forbidden folder": lambda path: path.mkdir(0),
    "below forbidden": lambda path: path.mkdir(0),
}


def make(kind: str, path: Path) -> Path:
    """Makes a bad path; returns it."""
    if kind in MAKERS:
        MAKERS[kind](path)
    names = {"long": "x" * 300, "latin-1": os.fsdecode(b"r\xe9")}
    return (
        path / "below" if kind.startswith("below") else path.with_name(names.get(kind, path.name))
    )


def clear(place: Path) -> None:
    """Removes all but what every case begins with."""
    for path in place.iterdir():
        if path.name not in ("models", "text.txt", "output.txt", "run-template", "disk"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
                shutil.rmtree(path)
            else:
                path.unlink()


def faults(server: ForkServer, arguments: list[str]) -> Iterator[str]:
    """Runs a command; yields what it should not have done."""
    pid = server.start(*arguments)
    timer = threading.Timer(MOST_SECONDS, os.kill, (pid, signal.SIGKILL))
    timer.start()
    code = server.end()
    timer.cancel()
    output = server.output()
    if code not in CODES:
        yield f"exit {code}: {output[-600:]}"
    if "Traceback" in output:
        yield f"traceback: {output[-600:]}"
    for line in output.splitlines():
        if line.startswith("gpt2cli: ") and len(line) >= MOST_CHARACTERS:
            yield f"a message of {len(line)} characters"


@contextlib.contextmanager
def fed(kind: str, path: Path) -> Iterator[None]:
    """Within the block somebody writes to a pipe: who reads it waits for that, as `cat` does."""
    if kind != "pipe":
        yield
        return
    command = ["sh", "-c", 'printf "%s" "$1" >"$2"', "sh", TEXT, str(path)]
    with subprocess.Popen(command) as writer:
        yield
        writer.kill()


@contextlib.contextmanager
def disk(place: Path, kind: str) -> Iterator[Path]:
    """Yields where the bad path is made: on a full disk for the kind that says so."""
    if kind != "full":
        yield place
        return
    with mounted(place / "disk", "-t", "tmpfs", "-o", "size=16k", "tmpfs") as full:
        with contextlib.suppress(OSError):
            (full / "other").write_bytes(bytes(1 << 20))
        yield full


@pytest.mark.slow
@pytest.mark.parametrize("role", ROLES)
def test_a_bad_path_is_refused_in_words(role: str, server: ForkServer) -> None:
    place = server.folder
    wrong = []
    for kind in KINDS:
        clear(place)
        with disk(place, kind) as there:
            path = make(kind, there / "bad").relative_to(place)
            arguments = [str(path) if word == "PATH" else word for word in role.split()]
            with fed(kind, there / "bad"):
                wrong += [f"{kind}: {fault}" for fault in faults(server, arguments)]
        if kind == "link" and (place / "target").read_text() != "precious":
            wrong.append("the link was followed")
    clear(place)
    assert not wrong, "\n".join(wrong)


@pytest.fixture(scope="module")
def template(server: ForkServer) -> Path:
    """A run of one step."""
    place = server.folder
    clear(place)
    words = f"finetune text.txt {SMALL} {TRAIN}".split()
    assert not list(faults(server, words))
    shutil.move(place / "checkpoint" / "run1", place / "run-template")
    return place / "run-template"


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN_FILES)
def test_a_bad_file_in_a_run_is_refused_or_stepped_over_in_words(
    name: str, server: ForkServer, template: Path
) -> None:
    place, wrong = template.parent, []
    commands = [
        f"finetune text.txt {TRAIN}",
        "generate --length 2 --device cpu",
        "export out.tar",
        "info run1",
    ]
    for kind in RUN_KINDS:
        # Training reads a run as the others do, and is slower.
        for command in commands if kind in ("folder", "link", "pipe") else commands[1:]:
            clear(place)
            folder = place / "checkpoint" / "run1"
            shutil.copytree(template, folder)
            with contextlib.suppress(FileNotFoundError):
                (folder / name).unlink()
            make(kind, folder / name)
            wrong += [f"{kind}, {command}: {f}" for f in faults(server, command.split())]
            if kind == "link" and (folder / "target").read_text() != "precious":
                wrong.append(f"{command}: the link was followed")
    clear(place)
    assert not wrong, "\n".join(wrong)


def test_the_matrix_has_every_command() -> None:
    from gpt2cli.application import COMMANDS

    assert {role.split()[0] for role in ROLES} == set(COMMANDS)
