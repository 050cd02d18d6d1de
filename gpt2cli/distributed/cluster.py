"""Which machines train together, as TF_CONFIG or SLURM says."""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping

from gpt2cli import __version__, json_reader
from gpt2cli.errors import BadDataError, UsageError, shortened
from gpt2cli.json_reader import Json
from gpt2cli.options import flag

TF_CONFIG = "TF_CONFIG"
JOBS = ("chief", "worker")
# A name, an address, or one of IPv6 in brackets; and a port.
ADDRESS = re.compile(r"(?P<host>[\w.-]+|\[[0-9A-Fa-f:.%\w]+\]):(?P<port>[0-9]{1,5})")
# Options that may differ between workers: where things are, and what is printed.
OWN = {"dataset", "val_dataset", "model_name", "model_dir", "checkpoint_dir", "device"}
OWN |= {"quiet", "verbose", "offline", "memory_check", "gpu_memory_limit", "wait_minutes"}
SLURM = ("SLURM_PROCID", "SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE")
# More than a node has, for when no GPU is to be given out.
MANY = 4096
# The longest value that is compared as it is (characters).
MOST_VALUE = 200


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes that train together, of which this one has the number `rank`.

    TensorFlow will listen at their addresses, as host:port; the first is the chief's.
    """

    addresses: tuple[str, ...]
    rank: int

    @property
    def is_chief(self) -> bool:
        """Whether this process prints, validates and writes."""
        return self.rank == 0

    @property
    def size(self) -> int:
        """How many they are."""
        return len(self.addresses)

    def name(self, rank: int) -> str:
        """Returns how messages name a worker."""
        return f"worker {rank} ({shortened(self.addresses[rank], 80)})"


# One process by itself, which needs no address.
ALONE = Cluster(("",), 0)


def read_cluster(*, slurm: bool, multi_gpu: bool, load_tensorflow: Callable[[], None]) -> Cluster:
    """Returns the processes that are to train together; `ALONE` if this is the only one.

    They are those of TF_CONFIG, or the tasks of SLURM's job step, which TensorFlow reads. Raises
    UsageError if the environment does not say it properly, or --multi-gpu is missing.
    """
    if slurm:
        os.environ[TF_CONFIG] = slurm_config(load_tensorflow)
    text = os.environ.get(TF_CONFIG)
    cluster = parsed(text) if text else None
    if cluster is None or cluster.size == 1:
        return ALONE
    if not multi_gpu and not slurm:
        raise UsageError(
            f"{TF_CONFIG} names {cluster.size} workers: give --multi-gpu to train on all of them, "
            f"or unset {TF_CONFIG}."
        )
    return cluster


def parsed(text: str) -> Cluster | None:
    """Returns the cluster that TF_CONFIG describes, or None if it names no workers."""
    try:
        facts: Json = json_reader.parse(text, "it", object)
        jobs = jobs_of(facts)
        if not jobs:
            return None
        addresses = tuple(place for job in JOBS for place in jobs.get(job, []))
        for address in addresses:
            host_and_port(address)
        if len(set(addresses)) < len(addresses):
            raise ValueError(f"two of {shortened(', '.join(addresses))} are the same")
        return Cluster(addresses, rank_of(facts.get("task"), jobs))
    except (ValueError, BadDataError) as error:
        told = shortened(error, 200).removesuffix(".")
        raise UsageError(
            f"{TF_CONFIG} is malformed: {told}. Its form is "
            '{"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}.'
        ) from error


def check_divisible(batch_size: int, count: int) -> None:
    """Raises UsageError unless a micro-batch can be shared evenly by `count` devices."""
    if batch_size % count:
        lower, upper = batch_size // count * count, (batch_size // count + 1) * count
        fits = f"{lower} or {upper}" if lower else str(upper)
        raise UsageError(
            f"--batch-size {batch_size} cannot be shared by {count} devices; give {fits}."
        )


def jobs_of(facts: Json) -> dict[str, list[str]]:
    """Returns the addresses of each kind of worker that TF_CONFIG names, or raises ValueError."""
    if not isinstance(facts, dict):
        raise ValueError("it is not an object")
    named = facts.get("cluster", {})
    if wrong := [name for name in facts if name.lower() == "cluster" != name]:
        raise ValueError(f"{shortened(wrong[0])!r} is written 'cluster'")
    if not isinstance(named, dict):
        raise ValueError("its 'cluster' is not an object")
    jobs = {name: places for name, places in named.items() if places}
    if not jobs and facts.get("task"):
        raise ValueError("it has a 'task', and no 'cluster' that it is of")
    if set(jobs) - set(JOBS):
        raise ValueError(
            f"its jobs are {shortened(', '.join(jobs))}; {' and '.join(JOBS)} are known"
        )
    if wrong := [name for name, places in jobs.items() if not isinstance(places, list)]:
        raise ValueError(f"its {wrong[0]!r} is not a list of host:port")
    if len(jobs.get("chief", [])) > 1:
        raise ValueError("it has more than one chief")
    return jobs


def rank_of(task: Json, jobs: dict[str, list[str]]) -> int:
    """Returns which of them this process is; raises ValueError if it is none of them."""
    if not isinstance(task, dict):
        raise ValueError("its 'task' is missing, or no object")
    kind, index = task.get("type"), task.get("index")
    if not isinstance(index, (int, str)) or not re.fullmatch(r"[0-9]+", str(index)):
        shown = shortened(json.dumps(index))
        raise ValueError(f"the task's 'index' is {shown}, which is not a number from 0")
    if not isinstance(kind, str) or int(index) >= len(jobs.get(kind, [])):
        raise ValueError(f"it names no task {shortened(index, 20)} of {shortened(repr(kind))}")
    return int(index) + (len(jobs.get("chief", [])) if kind == "worker" else 0)


def host_and_port(address: object) -> tuple[str, int]:
    """Returns the two parts of host:port; raises ValueError if it has not got them."""
    found = ADDRESS.fullmatch(address) if isinstance(address, str) else None
    if not found or not 0 < int(found["port"]) < 1 << 16:
        raise ValueError(f"{shortened(repr(address))} is not host:port")
    host = found["host"].strip("[]")
    try:
        # Looking up what cannot be a host's name does not raise OSError.
        _ = ipaddress.ip_address(host) if found["host"] != host else host.encode("idna")
    except ValueError as error:
        raise ValueError(f"{shortened(repr(address))} is not host:port") from error
    return host, int(found["port"])


def slurm_config(load_tensorflow: Callable[[], None]) -> str:
    """Returns what TF_CONFIG would say of the SLURM job step that this process is of."""
    if missing := [name for name in SLURM if not os.environ.get(name)]:
        raise UsageError(
            f"--cluster slurm: the environment lacks {', '.join(missing)}. Start it in a job by "
            "`srun gpt2cli finetune …`."
        )
    load_tensorflow()
    import tensorflow as tf

    # Without GPUs each task is given one that is not there.
    bare = {} if shutil.which("nvidia-smi") else {"gpus_per_node": MANY, "gpus_per_task": 1}
    try:
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            auto_set_gpu=not bare, **bare
        )
        jobs = resolver.cluster_spec().as_dict()
        kind, index = resolver.get_task_info()
    except (RuntimeError, ValueError, OSError, LookupError, TypeError) as error:
        raise UsageError(
            f"--cluster slurm: {shortened(error)} Start it in a job by `srun gpt2cli finetune …`."
        ) from error
    return json.dumps({"cluster": jobs, "task": {"type": kind, "index": index}})


def facts(settings: Mapping[str, object], **others: str) -> dict[str, str]:
    """Returns what must be the same for every worker: options, and other facts by name."""
    same = {flag(name): brief(str(value)) for name, value in settings.items() if name not in OWN}
    return {"gpt2cli": __version__} | same | others


def brief(value: str) -> str:
    """Returns a value, or its hash if it is long: what workers say to each other is bounded."""
    if len(value) <= MOST_VALUE:
        return value
    return f"SHA-256 {hashlib.sha256(value.encode(errors='surrogatepass')).hexdigest()}"
