"""A `gpt2cli` that does not load TensorFlow anew for each command: one process runs them all.

    with Warm(folder) as warm: ...

puts a program named `gpt2cli` into the folder. It hands its arguments, environment and open files
to the process, which runs the command line as it is. Commands that need TensorFlow to begin
otherwise (GPT2CLI_CPU_DEVICES) get a process of their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

CLIENT = f"""#!{sys.executable} -IS
import json, os, select, socket, stat, sys
# Behind a command that has its turn first, or the process would wait for this one's stdin.
if stat.S_ISFIFO(os.fstat(0).st_mode):
    select.select([0], [], [])
if "GPT2CLI_CPU_DEVICES" in os.environ:
    os.execv({sys.executable!r}, [{sys.executable!r}, "-m", "gpt2cli", *sys.argv[1:]])
door = socket.socket(socket.AF_UNIX)
door.connect(SOCKET)
request = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(door, [request], [0, 1, 2])
sys.exit(int(door.recv(16) or b"1"))
"""
REQUEST_BYTES = 1 << 20
START_SECONDS = 30


class Warm:
    """The process, while the block lasts."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "door"
        client = folder / "gpt2cli"
        client.write_text(CLIENT.replace("SOCKET", repr(str(self._socket))))
        client.chmod(0o755)

    def __enter__(self) -> Warm:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm", str(self._socket)],
            cwd=Path(__file__).parent.parent,
        )
        until = time.monotonic() + START_SECONDS
        while not self._socket.exists():
            assert time.monotonic() < until
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def serve(path: str) -> None:
    """Runs one command after the other, for ever."""
    from gpt2cli import cli

    with socket.socket(socket.AF_UNIX) as door:
        door.bind(path)
        door.listen()
        while True:
            caller, _ = door.accept()
            with caller:
                request, files, _, _ = socket.recv_fds(caller, REQUEST_BYTES, 3)
                sys.argv[1:], place, environment = json.loads(request)
                os.chdir(place)
                os.environ.clear()
                os.environ.update(environment)
                with outputs(files):
                    try:
                        cli.main()
                    except SystemExit as left:
                        code = left.code
                caller.send(str(code).encode())


@contextlib.contextmanager
def outputs(files: list[int]) -> Iterator[None]:
    """Within the block these are stdin, stdout and stderr."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Whoever reads what the command printed must see its end.
        nobody = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nobody, number)
        os.close(nobody)


if __name__ == "__main__":
    serve(sys.argv[1])
