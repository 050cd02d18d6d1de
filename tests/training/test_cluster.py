"""TF_CONFIG read, and workers that meet: in threads here, as machines would."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.errors import BadDataError, TryLaterError, UsageError
from gpt2cli.training import cluster
from gpt2cli.training.cluster import Cluster
from tests.conftest import Run
from tests.distributed.workers import free_ports

FACTS = {"--batch-size": "4", "corpus": "abc"}


def config(**options: Any) -> FinetuneConfig:
    return FinetuneConfig(dataset=("text.txt",), **options)


def tf_config(kind: str = "worker", index: object = 0, **jobs: list[str]) -> str:
    return json.dumps({"cluster": jobs, "task": {"type": kind, "index": index}})


def test_the_chief_leads_and_else_the_first_worker() -> None:
    both = {"chief": ["a:1"], "worker": ["b:2", "[::1]:3"]}
    assert cluster.parsed(tf_config("chief", 0, **both)) == Cluster(("a:1", "b:2", "[::1]:3"), 0)
    assert cluster.parsed(tf_config("worker", "1", **both)) == Cluster(("a:1", "b:2", "[::1]:3"), 2)
    found = cluster.parsed(tf_config("worker", 1, worker=["a:1", "b:2"]))
    assert found is not None
    assert (found.number, found.leads, found.size) == (1, False, 2)
    assert cluster.parsed('{"cluster": {}, "environment": "cloud"}') is None
    assert cluster.host_and_port("[::1]:3") == ("::1", 3)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("{", "is malformed: "),
        ("[]", "is malformed: "),
        ('{"cluster": {"worker": ["a:1"]}}', "'task' is missing"),
        (tf_config(worker=["a"]), "'a' is not host:port"),
        (tf_config(worker=["a:99999"]), "'a:99999' is not host:port"),
        (tf_config(index=2, worker=["a:1", "b:1"]), "it names no task 2 of 'worker'"),
        (tf_config("ps", worker=["a:1", "b:1"]), "it names no task 0 of 'ps'"),
        (tf_config(worker=["a:1"], ps=["b:1"]), "its jobs are worker, ps"),
    ],
)
def test_a_malformed_tf_config_is_refused(
    text: str, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UsageError) as refusal:
        cluster.read(config(multi_gpu=True))
    assert wrong in str(refusal.value)
    assert '{"cluster": {"worker": ["host:port", …]}' in str(refusal.value)


def test_workers_are_not_left_out_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", tf_config(worker=["a:1", "b:1"]))
    with pytest.raises(UsageError, match="names 2 workers: give --multi-gpu"):
        cluster.read(config())
    monkeypatch.setenv("TF_CONFIG", tf_config(worker=["a:1"]))
    assert cluster.read(config()) is None
    assert cluster.read(config(multi_gpu=True)) is None
    monkeypatch.delenv("TF_CONFIG")
    assert cluster.read(config(multi_gpu=True)) is None


def test_slurm_says_who_takes_part(monkeypatch: pytest.MonkeyPatch, tensorflow: None) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(UsageError, match=r"--cluster slurm: .* Start it in a job by `srun"):
        cluster.read(config(cluster="slurm"))
    monkeypatch.setenv("TF_CONFIG", "")
    for name, value in (
        ("PROCID", "2"),
        ("STEP_NUM_TASKS", "4"),
        ("STEP_NODELIST", "node[08-09]"),
        ("STEP_TASKS_PER_NODE", "2(x2)"),
    ):
        monkeypatch.setenv(f"SLURM_{name}", value)
    places = ("node08:8888", "node08:8889", "node09:8888", "node09:8889")
    assert cluster.read(config(cluster="slurm")) == Cluster(places, 2)


def crowd(*meetings: Callable[[], int]) -> list[Any]:
    """Returns what each meeting returned or raised; all are held at once."""
    with ThreadPoolExecutor(len(meetings)) as pool:
        futures = [pool.submit(meeting) for meeting in meetings]
        return [future.exception() or future.result() for future in futures]


def loopback(count: int) -> list[Cluster]:
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(count))
    return [Cluster(addresses, number) for number in range(count)]


def test_all_take_the_seed_of_the_first_one_whoever_else_knocks() -> None:
    members = loopback(3)

    def stranger() -> int:
        while True:
            try:
                with socket.create_connection(cluster.host_and_port(members[0].addresses[0])) as s:
                    s.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    return 0
            except ConnectionRefusedError:
                continue

    found = crowd(
        stranger, *(lambda m=m: cluster.meet(m, FACTS, 7 + m.number, 0.5) for m in members)
    )
    assert found == [0, 7, 7, 7]


def test_a_difference_ends_all_of_them() -> None:
    members = loopback(2)
    other = FACTS | {"corpus": "xyz"}
    found = crowd(
        lambda: cluster.meet(members[0], FACTS, 1, 0.5),
        lambda: cluster.meet(members[1], other, 1, 0.5),
    )
    for error in found:
        assert isinstance(error, BadDataError)
        assert "corpus is 'xyz', not 'abc'." in str(error)
        assert f"worker 1 ({members[0].addresses[1]}) differs from worker 0" in str(error)


def test_a_worker_that_never_comes_is_named() -> None:
    first, second, third = loopback(3)
    found = crowd(
        lambda: cluster.meet(first, FACTS, 1, 0.02),
        lambda: cluster.meet(second, FACTS, 1, 0.03),
    )
    assert all(isinstance(error, TryLaterError) for error in found)
    assert str(found[0]).startswith(f"worker 2 ({third.addresses[2]}) did not come in time")
    assert str(found[1]).startswith(f"worker 0 ({third.addresses[0]}) has not come in 0.03 min")


def test_an_address_in_use_is_said() -> None:
    first, _ = loopback(2)
    with (
        socket.create_server(cluster.host_and_port(first.addresses[0])),
        pytest.raises(TryLaterError, match="Is an earlier one still running"),
    ):
        cluster.meet(first, FACTS, 1, 0.02)


def test_what_may_differ_is_not_compared() -> None:
    ours = cluster.facts(config(batch_size=4), corpus="abc")
    theirs = cluster.facts(config(batch_size=4, model_dir="/other", verbose=True), corpus="abc")
    assert ours == theirs
    assert ours["--batch-size"] == "4"
    assert ours != cluster.facts(config(batch_size=8), corpus="abc")


def test_the_command_refuses_before_tensorflow_loads(cli: Run, tmp_path: Path) -> None:
    env = os.environ | {"TF_CONFIG": tf_config(worker=["a:1", "b:1"])}
    (tmp_path / "text.txt").write_text("text")
    done = cli("finetune", "text.txt", "--multi-gpu", "--batch-size", 3, env=env)
    assert done.returncode == 2
    assert done.stderr.startswith("gpt2cli: --batch-size 3 cannot be shared by 2 devices")
    done = cli("finetune", "text.txt", "--multi-gpu", env=env | {"TF_CONFIG": "{"})
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == [tmp_path / "text.txt"]
