"""Fails every disk operation of a run folder in turn, and looks at what is left each time.

    python -m tests.faults.matrix SCENE MODEL FOLDER

runs without TensorFlow and without other threads, so that it can fork: every failure happens in a
child, the parent looks. MODEL is a folder with a model.ckpt to take the weights from.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from gpt2cli.errors import Gpt2cliError
from gpt2cli.files import atomic, paths
from gpt2cli.storage import recovery, run
from gpt2cli.storage.state import State

KILLED = 9
CRASHED = 1
ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "full": errno.ENOSPC, "broken": errno.EIO}


def failing(number: int, kind: str) -> Callable[[str, Path], None]:
    """Returns a stand-in for atomic.before: the N-th operation fails, or all from it on."""
    count = 0

    def before(operation: str, path: Path) -> None:
        nonlocal count
        count += 1
        if kind == "kill" and count == number:
            os._exit(KILLED)
        lasting = kind in ("full", "broken") and count > number
        if kind == "full" and operation != "write":
            return
        if kind != "kill" and (count == number or lasting):
            raise OSError(ERRORS[kind], os.strerror(ERRORS[kind]), str(path))

    return before


class Scene:
    """A run folder, and what is done in it.

    Attributes:
        before: (step, seed) of the newest checkpoint beforehand, or None.
        after: (step, seed) of what is saved.
        keep: how many checkpoints rotation keeps.
    """

    def __init__(self, name: str, model: Path, folder: Path) -> None:
        self.folder, self._model, self._name = folder, model, name
        self.before, self.after, self.keep = SCENES[name]
        self._saved = self.before
        if name == "damaged" and self.before:
            self.before = (self.before[0] - 1, self.before[1])

    def prepare(self) -> None:
        """Makes the folder as it is before the scene; from the second time on it is copied."""
        shutil.rmtree(self.folder, ignore_errors=True)
        template = self.folder.with_name("template")
        if template.exists():
            shutil.copytree(template, self.folder)
            return
        run.prepare(self.folder, self._model)
        if self._saved:
            step, seed = self._saved
            if self._name != "overwrite":
                self.save(step - 1, seed)
            self.save(step, seed)
        if self._name == "damaged" and self._saved:
            path = paths.data_file(paths.weights(self.folder, self._saved[0]))
            path.write_bytes(bytes(path.stat().st_size))
        shutil.copytree(self.folder, template)

    def play(self) -> None:
        """Starts from the newest checkpoint, as finetune does, saves one more and rotates."""
        if paths.has_checkpoints(self.folder):
            found = recovery.newest_intact(self.folder, resume=True)
            recovery.quarantine(self.folder, found)
        run.prepare(self.folder, self._model)
        self.save(*self.after)
        run.rotate(self.folder, self.keep)

    def save(self, step: int, seed: int) -> None:
        """Saves the model's weights as a step, in pieces, so that half of a file can be there."""
        state = State(step=step, seed=seed, model_name="model")

        def write(weights: Path, optimizer: Path) -> None:
            for suffix in (".data-00000-of-00001", ".index"):
                content = self._model.joinpath(f"model.ckpt{suffix}").read_bytes()
                for prefix in (weights, optimizer):
                    half = len(content) // 2
                    path = prefix.with_name(prefix.name + suffix)
                    atomic.write(path, content[:half])
                    atomic.write(path, content[half:], "ab")

        run.commit(self.folder, state, write, size=1000)

    def newest(self) -> tuple[int, int] | None:
        """Returns (step, seed) of what a restart would begin with."""
        if not paths.has_checkpoints(self.folder):
            return None
        found = recovery.newest_intact(self.folder, resume=True)
        assert found.state is not None
        return found.state.step, found.state.seed


SCENES: dict[str, tuple[tuple[int, int] | None, tuple[int, int], int]] = {
    "first": (None, (5, 2), 2),
    "next": ((5, 1), (6, 2), 2),
    "next of one": ((5, 1), (6, 2), 1),
    "overwrite": ((5, 1), (5, 2), 1),
    "overwrite by fewer steps": ((900, 1), (5, 2), 1),
    "damaged": ((5, 1), (5, 2), 2),
}


def child(scene: Scene, number: int, kind: str) -> int:
    """Plays the scene with a failure in a process of its own; returns its exit code."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = CRASHED
    with contextlib.suppress(BaseException), swapped(failing(number, kind)):
        try:
            scene.play()
            code = 0
        except Gpt2cliError as error:
            code = error.exit_code
    os._exit(code)


def operations(scene: Scene) -> int:
    """Returns how many operations the scene has."""
    scene.prepare()
    count = 0

    def before(_operation: str, _path: Path) -> None:
        nonlocal count
        count += 1

    with swapped(before):
        scene.play()
    return count


@contextlib.contextmanager
def swapped(before: Callable[[str, Path], None]) -> Iterator[None]:
    """Puts a function in the place of atomic.before within the block."""
    with mock.patch.object(atomic, "before", before):
        yield


def check(scene: Scene, number: int, kind: str) -> None:
    """Plays the scene with one failure; checks what is left, and that a restart mends it."""
    where = f"operation {number}, {kind}"
    scene.prepare()
    code = child(scene, number, kind)
    assert code in ((KILLED,) if kind == "kill" else (0, 74)), f"{where}: exit {code}"
    found = scene.newest()
    # A save that was reported is there; one that was not left the one before, or is there.
    assert found == scene.after or (code and found == scene.before), f"{where}: {found}"
    scene.play()
    assert scene.newest() == scene.after, where
    left = [path.name for path in scene.folder.glob(".*")]
    assert left == [], f"{where}: {left}"
    steps = list(paths.files_by_step(scene.folder))
    assert len(steps) <= scene.keep, f"{where}: {steps}"
    assert set(steps) == set(paths.checkpoint_steps(scene.folder)), f"{where}: {steps}"


def main(name: str, model: Path, folder: Path) -> None:
    """Checks a scene with every failure at every operation; prints how many operations it has."""
    # The processes die, the computer does not; waiting for the disk would be most of the time.
    with mock.patch.object(os, "fsync"):
        scene = Scene(name, model, folder)
        count = operations(scene)
        for kind in ("kill", *ERRORS):
            for number in range(1, count + 1):
                check(scene, number, kind)
    sys.stdout.write(f"{count}\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
