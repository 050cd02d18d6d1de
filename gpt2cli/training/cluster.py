"""Which machines train together, as TF_CONFIG or SLURM says; they meet before TensorFlow starts."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any

from gpt2cli import __version__, tensorflow_start
from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.errors import BadDataError, TryLaterError, UsageError

TF_CONFIG = "TF_CONFIG"
JOBS = ("chief", "worker")
# Options that may differ between workers: where things lie, and what is told.
OWN = {"dataset", "val_dataset", "model_name", "model_dir", "checkpoint_dir", "device"}
OWN |= {"quiet", "verbose", "offline", "memory_check", "gpu_memory_limit"}
RETRY_SECONDS = 0.5
ANSWER_SECONDS = 5.0
MOST_BYTES = 1 << 20
# More than a node has, where no GPU is to be given out.
MANY = 4096


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes that train together.

    Attributes:
        addresses: host:port of each, at which TensorFlow will listen; the first one leads.
        number: which of them this process is.
    """

    addresses: tuple[str, ...]
    number: int

    @property
    def leads(self) -> bool:
        """Whether this process tells, validates and writes."""
        return self.number == 0

    @property
    def size(self) -> int:
        """How many they are."""
        return len(self.addresses)

    def name(self, number: int) -> str:
        """Returns how a worker is told to a person."""
        return f"worker {number} ({self.addresses[number]})"


def read(config: FinetuneConfig) -> Cluster | None:
    """Returns the processes that are to train together, or None where this is the only one.

    Raises:
        UsageError: the environment does not say it properly, or --multi-gpu is missing.
    """
    if config.cluster == "slurm":
        os.environ[TF_CONFIG] = slurm_config(verbose=config.verbose)
    text = os.environ.get(TF_CONFIG)
    cluster = parsed(text) if text else None
    if cluster is None or cluster.size == 1:
        return None
    if not config.multi_gpu and config.cluster != "slurm":
        raise UsageError(
            f"{TF_CONFIG} names {cluster.size} workers: give --multi-gpu to train on all of them, "
            f"or unset {TF_CONFIG}."
        )
    return cluster


def parsed(text: str) -> Cluster | None:
    """Returns the cluster that TF_CONFIG describes; None: it names no workers.

    Raises:
        UsageError: it is malformed.
    """
    try:
        facts = json.loads(text)
        jobs = {name: list(places) for name, places in facts.get("cluster", {}).items() if places}
        if not jobs:
            return None
        if set(jobs) - set(JOBS):
            raise ValueError(f"its jobs are {', '.join(jobs)}; {' and '.join(JOBS)} are known")
        addresses = [place for job in JOBS for place in jobs.get(job, [])]
        kind, index = facts["task"]["type"], int(facts["task"]["index"])
        if not 0 <= index < len(jobs.get(kind, [])):
            raise ValueError(f"it names no task {index} of {kind!r}")
        for address in addresses:
            host_and_port(address)
        number = index + (len(jobs.get("chief", [])) if kind == "worker" else 0)
        return Cluster(tuple(addresses), number)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise UsageError(
            f"{TF_CONFIG} is malformed: {what}. Its form is "
            '{"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}.'
        ) from error


def host_and_port(address: str) -> tuple[str, int]:
    """Returns the two parts of host:port.

    Raises:
        ValueError: it has not got them.
    """
    host, _, port = str(address).rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ValueError(f"{address!r} is not host:port")
    return host.strip("[]"), int(port)


def slurm_config(*, verbose: bool) -> str:
    """Returns what TF_CONFIG would say of the SLURM job step that this process is of.

    Raises:
        UsageError: it is of none.
    """
    tensorflow_start.load(verbose=verbose)
    import tensorflow as tf

    # Without GPUs each task is given one that is not there.
    bare = {} if shutil.which("nvidia-smi") else {"gpus_per_node": MANY, "gpus_per_task": 1}
    try:
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            auto_set_gpu=not bare, **bare
        )
        jobs = resolver.cluster_spec().as_dict()
    except (RuntimeError, ValueError, OSError) as error:
        raise UsageError(
            f"--cluster slurm: {error} Start it in a job by `srun gpt2cli finetune …`."
        ) from error
    kind, index = resolver.get_task_info()
    return json.dumps({"cluster": jobs, "task": {"type": kind, "index": index}})


def facts(config: FinetuneConfig, **others: str) -> dict[str, str]:
    """Returns what must be the same for every worker: options, and other facts by name."""
    settings = dataclasses.asdict(config).items()
    same = {f"--{k.replace('_', '-')}": str(v) for k, v in settings if k not in OWN}
    return {"gpt2cli": __version__} | same | others


def meet(cluster: Cluster, mine: Mapping[str, str], seed: int, minutes: float) -> int:
    """Waits until all are here and agree on what they train; returns the first one's seed.

    They speak at the address of the first one, where TensorFlow will listen afterwards.

    Raises:
        BadDataError: a worker has other options, or starts from or trains on something else.
        TryLaterError: somebody has not come in time.
    """
    deadline = time.monotonic() + minutes * 60
    if cluster.leads:
        return lead(cluster, mine, seed, deadline)
    while time.monotonic() < deadline:
        answer = asked(cluster, mine, deadline)
        if "error" in answer:
            raise BadDataError(str(answer["error"]))
        if "seed" in answer:
            return int(answer["seed"])
        time.sleep(RETRY_SECONDS)
    raise TryLaterError(f"{cluster.name(0)} has not come in {minutes:g} minutes. Try again later.")


def lead(cluster: Cluster, mine: Mapping[str, str], seed: int, deadline: float) -> int:
    """Waits for the others and tells them the seed, or what is wrong; as `meet`."""
    here: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(listening(cluster))
        while len(here) < cluster.size - 1:
            connection = stack.enter_context(caller(server, cluster, here, deadline))
            hello = received(connection, ANSWER_SECONDS)
            number = hello.get("number")
            if not isinstance(number, int) or not 0 < number < cluster.size:
                # Somebody who knocks at every port.
                continue
            here[number] = connection
            if wrong := difference(cluster, number, mine, hello.get("facts", {})):
                for each in here.values():
                    sent(each, {"error": wrong})
                raise BadDataError(wrong)
        for each in here.values():
            sent(each, {"seed": seed})
    return seed


def listening(cluster: Cluster) -> socket.socket:
    """Returns a socket that listens at this worker's port.

    Raises:
        TryLaterError: it is in use.
    """
    _, port = host_and_port(cluster.addresses[cluster.number])
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(
                ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=cluster.size
            )
        return socket.create_server(("", port), backlog=cluster.size)
    except OSError as error:
        raise TryLaterError(
            f"{cluster.name(cluster.number)} cannot listen: {error.strerror}. Is an earlier one "
            "still running? Try again later."
        ) from error


def caller(
    server: socket.socket, cluster: Cluster, here: Mapping[int, Any], deadline: float
) -> socket.socket:
    """Returns the connection of the next worker that comes.

    Raises:
        TryLaterError: none comes in time; says which are missing.
    """
    server.settimeout(max(deadline - time.monotonic(), 0.01))
    try:
        return server.accept()[0]
    except TimeoutError as error:
        missing = [cluster.name(n) for n in range(1, cluster.size) if n not in here]
        raise TryLaterError(
            f"{', '.join(missing)} did not come in time (--wait-minutes). Try again later."
        ) from error


def asked(cluster: Cluster, mine: Mapping[str, str], deadline: float) -> dict[str, Any]:
    """Returns what the first worker answers; nothing where it is not there (yet)."""
    try:
        address = host_and_port(cluster.addresses[0])
        with socket.create_connection(address, timeout=ANSWER_SECONDS) as connection:
            sent(connection, {"number": cluster.number, "facts": dict(mine)})
            return received(connection, max(deadline - time.monotonic(), 0.01))
    except OSError:
        return {}


def sent(connection: socket.socket, message: Mapping[str, Any]) -> None:
    """Sends a line of JSON to somebody who may be gone."""
    with contextlib.suppress(OSError):
        connection.sendall(json.dumps(message).encode() + b"\n")


def received(connection: socket.socket, seconds: float) -> dict[str, Any]:
    """Returns the line of JSON that comes; nothing where it is none, or late."""
    connection.settimeout(seconds)
    try:
        with connection.makefile("rb") as lines:
            message = json.loads(lines.readline(MOST_BYTES))
    except (OSError, ValueError):
        return {}
    return message if isinstance(message, dict) else {}


def difference(
    cluster: Cluster, number: int, ours: Mapping[str, str], theirs: Mapping[str, str]
) -> str:
    """Returns in what a worker differs from the first one; empty where it does not."""
    names: Iterator[str] = (n for n in ours if theirs.get(n) != ours[n])
    told = [f"{name} is {theirs.get(name)!r}, not {ours[name]!r}" for name in names]
    if not told:
        return ""
    return (
        f"{cluster.name(number)} differs from {cluster.name(0)}: {'; '.join(told)}. All need the "
        "same options, text, model and run folder."
    )
