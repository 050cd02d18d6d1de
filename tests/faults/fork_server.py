"""Starts the command line again and again in forks of one process, which has imported TensorFlow.

    python -m tests.faults.fork_server

reads one command a line from stdin, {"arguments": […], "output": PATH}, and writes two lines for
it: its process id, and its exit code when it has ended. Importing TensorFlow takes most of the time
of a short command.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from gpt2cli import cli
from gpt2cli.runtime import signals, tensorflow


class ForkServer:
    """A process that runs this module, as its parent sees it."""

    def __init__(self, folder: Path, *wrapper: str) -> None:
        """Starts the process in a folder, by way of another program if one is given."""
        self.folder = folder
        self._output = folder / "output.txt"
        self._process = subprocess.Popen(
            [*wrapper, sys.executable, "-W", "ignore", "-m", "tests.faults.fork_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )

    def start(self, *arguments: object) -> int:
        """Starts the command line; returns its process id."""
        assert self._process.stdin is not None
        self._output.write_text("")
        command = {"arguments": list(map(str, arguments)), "output": str(self._output)}
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._number()

    def output(self) -> str:
        """Returns what the command has printed so far."""
        return self._output.read_text()

    def end(self) -> int:
        """Waits until the command has ended; returns its exit code, below 0 for a signal."""
        return self._number()

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()

    def _number(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


def run(arguments: list[str], output: str) -> None:
    """Runs the command line in this process, which ends with it."""
    # Stdin belongs to the fork server.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    # A test that runs in the background ignores SIGINT; its children must not.
    for number in signals.SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    sys.argv = ["gpt2cli", *arguments]
    try:
        cli.main()
    except SystemExit as end:
        os._exit(int(end.code or 0))
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)


def main() -> None:
    """Starts one command after the other until stdin ends."""
    tensorflow.load(verbose=False)
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            run(**json.loads(line))
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        sys.stdout.write(f"{code}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
