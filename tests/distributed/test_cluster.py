"""TF_CONFIG and SLURM's variables, read."""

from __future__ import annotations

import dataclasses
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gpt2cli.commands.finetune import load_tensorflow
from gpt2cli.config.finetune import FinetuneConfig
from gpt2cli.distributed import cluster
from gpt2cli.distributed.cluster import Cluster
from gpt2cli.errors import UsageError
from gpt2cli.runtime import tensorflow
from tests.conftest import Run

SLURM = {
    "SLURM_PROCID": "2",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NODELIST": "node[08-09]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
}


def config(**options: Any) -> FinetuneConfig:
    return FinetuneConfig(dataset=("text.txt",), **options)


def read(settings: FinetuneConfig) -> Cluster:
    return cluster.read_cluster(
        slurm=settings.cluster == "slurm",
        multi_gpu=settings.multi_gpu,
        load_tensorflow=partial(load_tensorflow, settings, lora_rank=settings.lora_rank or 0),
    )


def tf_config(kind: object = "worker", index: object = 0, **jobs: object) -> str:
    return json.dumps({"cluster": jobs, "task": {"type": kind, "index": index}})


def test_the_first_is_the_chief_unless_one_is_named() -> None:
    both = {"chief": ["a:1"], "worker": ["b:2", "[::1]:3"]}
    assert cluster.parsed(tf_config("chief", 0, **both)) == Cluster(("a:1", "b:2", "[::1]:3"), 0)
    assert cluster.parsed(tf_config("worker", "1", **both)) == Cluster(("a:1", "b:2", "[::1]:3"), 2)
    found = cluster.parsed(tf_config("worker", 1, worker=["a:1", "b:2"]))
    assert found is not None
    assert (found.rank, found.is_chief, found.size) == (1, False, 2)
    assert cluster.parsed('{"cluster": {}, "environment": "cloud"}') is None
    assert cluster.host_and_port("[::1]:3") == ("::1", 3)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("{", "is malformed: "),
        ("[]", "it is not an object"),
        ('{"cluster": {"worker": ["a:1"]}}', "its 'task' is missing"),
        ('{"cluster": {"worker": ["a:1"]}, "task": []}', "its 'task' is missing, or no object"),
        ('{"cluster": [], "task": {}}', "its 'cluster' is not an object"),
        ('{"Cluster": {"worker": ["a:1"]}}', "'Cluster' is written 'cluster'"),
        ('{"task": {"type": "worker", "index": 0}}', "no 'cluster' that it is of"),
        (tf_config(worker=[]), "no 'cluster' that it is of"),
        (tf_config(worker="a:1"), "its 'worker' is not a list of host:port"),
        (tf_config(worker=["a:1", "b:1", "a:1"]), "two of a:1, b:1, a:1 are the same"),
        (tf_config("chief", chief=["a:1"], worker=["a:1"]), "two of a:1, a:1 are the same"),
        (tf_config("chief", chief=["a:1", "b:1"]), "it has more than one chief"),
        (tf_config(index=0.7, worker=["a:1"]), "'index' is 0.7, which is not a number from 0"),
        (tf_config(index=True, worker=["a:1", "b:1"]), "'index' is true, which is not a number"),
        (tf_config(index=-1, worker=["a:1", "b:1"]), "'index' is -1, which is not a number"),
        (tf_config(index=None, worker=["a:1", "b:1"]), "'index' is null, which is not a number"),
        (tf_config(7, worker=["a:1"]), "it names no task 0 of 7"),
        (tf_config(worker=["http://x:2"]), "'http://x:2' is not host:port"),
        (tf_config(worker=["a b:1"]), "'a b:1' is not host:port"),
        (tf_config(worker=[{"a": 1}]), "{'a': 1} is not host:port"),
        (tf_config(worker=["a"]), "'a' is not host:port"),
        (tf_config(worker=["a:99999"]), "'a:99999' is not host:port"),
        (tf_config(index=2, worker=["a:1", "b:1"]), "it names no task 2 of 'worker'"),
        (tf_config("ps", worker=["a:1", "b:1"]), "it names no task 0 of 'ps'"),
        (tf_config(worker=["a:1"], ps=["b:1"]), "its jobs are worker, ps"),
        ("[" * 300_000, "nests too deep"),
        ("[" * 30 + "x" * 1_000_000, "is not JSON"),
        ('{"cluster": NaN}', "not a JSON number"),
        ("\udce9", "is not JSON"),
        (tf_config(worker=["a..b:1"]), "'a..b:1' is not host:port"),
        (tf_config(worker=["x" * 64 + ":1"]), "is not host:port"),
        (tf_config(worker=["[zz]:1"]), "'[zz]:1' is not host:port"),
        (tf_config(worker=["\x1b[31m:1"]), "is not host:port"),
        (tf_config(index="9" * 5000, worker=["a:1"]), "is malformed"),
        (tf_config("\x1b" * 9999, worker=["a:1"]), "it names no task 0 of"),
        (tf_config(**{"\x1b" * 9999: ["a:1"]}), "its jobs are"),
    ],
)
def test_a_malformed_tf_config_is_refused(
    text: str, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UsageError) as refusal:
        read(config(multi_gpu=True))
    assert wrong in str(refusal.value)
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 500
    assert '{"cluster": {"worker": ["host:port", …]}' in str(refusal.value)


def test_workers_are_not_left_out_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", tf_config(worker=["a:1", "b:1"]))
    with pytest.raises(UsageError, match="names 2 workers: give --multi-gpu"):
        read(config())
    monkeypatch.setenv("TF_CONFIG", tf_config(worker=["a:1"]))
    assert read(config()) == cluster.ALONE
    assert read(config(multi_gpu=True)) == cluster.ALONE
    monkeypatch.delenv("TF_CONFIG")
    assert read(config(multi_gpu=True)) == cluster.ALONE


def test_without_slurm_its_cluster_is_refused_before_tensorflow_loads(
    cli: Run, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("text")
    bare = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    # A TensorFlow that cannot be loaded.
    (tmp_path / "tensorflow.py").write_text("raise OSError('loaded')")
    bare["PYTHONPATH"] = f"{tmp_path}:{bare.get('PYTHONPATH', '')}"
    done = cli("finetune", "text.txt", "--cluster", "slurm", env=bare)
    assert done.returncode == 2, done.stderr
    assert "--cluster slurm: the environment lacks SLURM_PROCID, SLURM_STEP_NODELIST" in done.stderr
    assert "Start it in a job by `srun" in done.stderr
    done = cli("finetune", "text.txt", "--cluster", "slurm", env=bare | SLURM)
    assert "OSError: loaded" in done.stderr


def test_slurm_s_tensorflow_is_loaded_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[dict[str, bool]] = []

    def load(**options: bool) -> None:
        loaded.append(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(tensorflow, "load", load)
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    for options in ({}, {"xla": False, "lora_rank": 2}, {"use_memory_saving_gradients": True}):
        with pytest.raises(KeyboardInterrupt):
            read(config(cluster="slurm", **options))
    assert [(each["frugal"], each["keep_compiled"]) for each in loaded] == [
        (False, True),
        (True, False),
        (True, True),
    ]


def test_slurm_says_who_takes_part(monkeypatch: pytest.MonkeyPatch, tensorflow: None) -> None:
    monkeypatch.setenv("TF_CONFIG", "")
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    places = ("node08:8888", "node08:8889", "node09:8888", "node09:8889")
    assert read(config(cluster="slurm")) == Cluster(places, 2)


def test_what_may_differ_is_not_compared() -> None:
    ours = cluster.facts(dataclasses.asdict(config(batch_size=4)), corpus="abc")
    theirs = cluster.facts(
        dataclasses.asdict(config(batch_size=4, model_dir="/other", verbose=True)), corpus="abc"
    )
    assert ours == theirs
    assert ours["--batch-size"] == "4"
    assert ours != cluster.facts(dataclasses.asdict(config(batch_size=8)), corpus="abc")


def test_the_command_refuses_before_tensorflow_loads(cli: Run, tmp_path: Path) -> None:
    env = os.environ | {"TF_CONFIG": tf_config(worker=["a:1", "b:1"])}
    (tmp_path / "text.txt").write_text("text")
    done = cli("finetune", "text.txt", "--multi-gpu", "--batch-size", 3, env=env)
    assert done.returncode == 2
    assert done.stderr.startswith("gpt2cli: --batch-size 3 cannot be shared by 2 devices")
    done = cli("finetune", "text.txt", "--multi-gpu", env=env | {"TF_CONFIG": "{"})
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == [tmp_path / "text.txt"]


def test_long_values_are_compared_by_their_hash() -> None:
    ours = cluster.facts(dataclasses.asdict(config(sample_prefix="a" * 1_000_000)))
    assert len(json.dumps(ours)) < 10_000
    assert ours != cluster.facts(dataclasses.asdict(config(sample_prefix="a" * 999_999)))
