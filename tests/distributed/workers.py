"""Worker processes of one training run on loopback, as several machines would be."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from gpt2cli.distributed.cluster import Cluster

SECONDS = 150


def free_ports(count: int) -> list[int]:
    """Returns ports that nobody listens at."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Workers:
    """Processes of `gpt2cli` that know of each other; killed at the end of the block.

    Where a command is None, the test plays this worker.
    """

    def __init__(
        self,
        place: Path,
        commands: Sequence[Sequence[object] | None],
        ports: Sequence[int] | None = None,
    ) -> None:
        self.ports = ports or free_ports(len(commands))
        addresses = [f"127.0.0.1:{port}" for port in self.ports]
        self.processes = []
        for number, command in enumerate(commands):
            if command is None:
                continue
            facts = {
                "cluster": {"worker": addresses},
                "task": {"type": "worker", "index": number},
            }
            with (place / f"worker{number}.txt").open("w") as log:
                process = subprocess.Popen(
                    [sys.executable, "-u", "-m", "gpt2cli", *map(str, command)],
                    cwd=place,
                    env=os.environ | {"TF_CONFIG": json.dumps(facts)},
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    text=True,
                )
            self.processes.append(process)
        self._place = place

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def cluster(self, number: int) -> Cluster:
        """Returns what a worker knows of all."""
        return Cluster(tuple(f"127.0.0.1:{port}" for port in self.ports), number)

    def connection(self, number: int) -> socket.socket:
        """Returns a connection to a worker, once it listens."""
        until = time.monotonic() + SECONDS
        while True:
            try:
                return socket.create_connection(("127.0.0.1", self.ports[number]))
            except ConnectionRefusedError:
                assert time.monotonic() < until, self.told(number)
                time.sleep(0.05)

    def told(self, number: int) -> str:
        """Returns what a worker has written to stderr."""
        return (self._place / f"worker{number}.txt").read_text()

    def codes(self) -> list[int]:
        """Waits for all; returns their exit codes."""
        until = time.monotonic() + SECONDS
        return [p.wait(max(until - time.monotonic(), 0.1)) for p in self.processes]

    def wait_for(self, number: int, text: str) -> None:
        """Waits until a worker has said something."""
        until = time.monotonic() + SECONDS
        while text not in self.told(number):
            assert time.monotonic() < until, self.told(number)
            assert self.processes[number].poll() is None, self.told(number)
            time.sleep(0.05)
