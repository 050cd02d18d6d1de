"""info: what is installed, what there is, and what a run did; damage is listed as such."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import tracemalloc
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from gpt2cli import __version__, json_reader
from gpt2cli.files import exports, paths
from gpt2cli.storage import inventory, run_log, state
from tests import models
from tests.conftest import Run
from tests.marks import few

TRAIN = (
    "finetune text.txt --model-name small --steps 3 --val-every 1 --val-batches 1 "
    "--sample-every 0 --accumulate-gradients 1 --no-xla --seed 1 --device cpu -q"
)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, mini_model: Path) -> Path:
    """A folder with a base model and a run of three steps; not to be written to."""
    place = tmp_path_factory.mktemp("info")
    shutil.copytree(mini_model, place / "models" / "small")
    (place / "text.txt").write_text("The cat sat on the mat, and the dog sat on the log.\n" * 40)
    subprocess.run(
        ["python", "-m", "gpt2cli", *TRAIN.split()], cwd=place, check=True, capture_output=True
    )
    return place


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Path:
    """The current directory of `cli`, with that model and run."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path


def found(cli: Run, *arguments: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Returns the facts that the command finds, by their kinds and names."""
    done = cli("info", "--format", "jsonl", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    facts = [json.loads(line) for line in done.stdout.splitlines()]
    return {(each["kind"], each.get("name", "")): each for each in facts}


def test_what_is_installed_is_what_python_says(cli: Run, tmp_path: Path) -> None:
    facts = found(cli)
    program = facts["program", ""]
    assert program["version"] == __version__
    assert program["tensorflow"] == metadata.version("tensorflow")
    assert facts["machine", ""]["cores"] == len(os.sched_getaffinity(0))
    assert 0 < facts["machine", ""]["free_bytes"] < 1e14
    extra = facts["extra", "export"]
    assert extra["packages"] == {"gguf": metadata.version("gguf")}
    assert extra["installed"]
    assert {name for kind, name in facts if kind == "extra"} == {"fast", "gpu", "export", "plots"}
    assert list(tmp_path.iterdir()) == []


def test_a_model_and_a_run_are_described_as_they_are(place: Path, cli: Run) -> None:
    facts = found(cli)
    model, run = facts["model", "small"], facts["run", "run1"]
    assert (model["weights"], model["form"]) == (models.MINI.count(), "openai")
    files = [file for file in (place / "checkpoint" / "run1").rglob("*") if file.is_file()]
    assert run["bytes"] == sum(file.stat().st_size for file in files)
    assert run["changed"] == max(file.stat().st_mtime for file in files)
    assert (run["model"], run["step"], run["problem"]) == ("small", 3, None)
    saved = state.read_state(place / "checkpoint" / "run1", 3)
    assert (run["best_step"], run["best_loss"]) == saved.lowest
    assert run["average_loss"] == saved.average


def test_a_named_run_shows_its_settings_and_its_losses(place: Path, cli: Run) -> None:
    facts = found(cli, "run1")["run", "run1"]
    past = run_log.history(place / "checkpoint" / "run1")
    assert facts["settings"]["steps"] == 3
    assert facts["curve"]["validation"] == [
        list(each) for each in zip(past.val_steps, past.val_losses, strict=True)
    ]
    assert [step for step, _ in facts["curve"]["average"]] == [1, 2, 3]
    shown = cli("info", "--run-name", "run1").stdout
    settings = next(line for line in shown.splitlines() if line.startswith("settings"))
    for word in ("text.txt", "--steps 3", "--no-xla", "--seed 1", "--val-every 1"):
        assert word in settings
    assert "--save-every" not in settings
    plot = shown[shown.index("loss over steps") :]
    assert "|" in plot
    assert "o" in plot
    assert cli("info", "small").stdout.splitlines()[:2] == [
        "model    models/small",
        "layers   1",
    ]
    both = cli("info", "run1", "small").stdout
    assert "run            checkpoint/run1" in both
    assert "model    models/small" in both


def test_what_is_not_a_number_of_json_is_null(place: Path, cli: Run) -> None:
    run = place / "checkpoint" / "run1"
    (run / "config.json").write_text('{"learning_rate": 1e999, "clip_norm": -1e999, "steps": 3}')
    done = cli("info", "run1", "--format", "jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    facts = json_reader.parse(done.stdout, "the facts", dict)
    assert facts["settings"] == {"learning_rate": None, "clip_norm": None, "steps": 3}


def test_a_setting_is_shown_as_it_would_be_typed(place: Path, cli: Run) -> None:
    config = place / "checkpoint" / "run1" / "config.json"
    settings = json.loads(config.read_text())
    odd = {"sample_prefix": "it's \x1b[31m\n", "val_dataset": ["a b", "c"], "steps": {"x": [1]}}
    config.write_text(json.dumps(settings | odd))
    (line,) = [
        line for line in cli("info", "run1").stdout.splitlines() if line.startswith("settings")
    ]
    assert line.isprintable()
    assert "--val-dataset 'a b' --val-dataset c" in line
    config.write_text("no JSON")
    assert "settings       all at their defaults" in cli("info", "run1").stdout


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def keep_one(run: Path) -> None:
    shutil.rmtree(run)
    run.mkdir()
    (run / "a.txt").touch()


def relink(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def repipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut weights": (lambda run: cut(run / "model-3.data-00000-of-00001"), "is cut"),
    "cut optimiser": (lambda run: cut(run / "optimizer-3.data-00000-of-00001"), "should have"),
    "no index": (lambda run: (run / "model-3.index").unlink(), "model-3.index"),
    "no shape": (lambda run: (run / "hparams.json").unlink(), "hparams.json is missing"),
    "odd shape": (lambda run: (run / "hparams.json").write_text("[]"), "hparams.json"),
    "odd state": (lambda run: (run / "state-3.json").write_text("{"), "state-3.json is damaged"),
    "no state": (lambda run: (run / "state-3.json").unlink(), ""),
    "foreign": (keep_one, "Not a trained run: it holds a.txt"),
    "loop": (lambda run: relink(run / "hparams.json"), "hparams.json"),
    "pipe": (lambda run: repipe(run / "state-3.json"), "state-3.json"),
}


@pytest.mark.parametrize("kind", few(DAMAGE, 4))
def test_a_damaged_run_is_listed_as_such(kind: str, place: Path, cli: Run) -> None:
    harm, reason = DAMAGE[kind]
    harm(place / "checkpoint" / "run1")
    before = sorted(path.name for path in (place / "checkpoint" / "run1").iterdir())
    run = found(cli)["run", "run1"]
    assert bool(run["problem"]) == bool(reason)
    assert reason in (run["problem"] or "")
    if reason:
        done = cli("info", "run1")
        assert (done.returncode, done.stdout) == (65, "")
        assert reason in done.stderr
        assert f"  run1: {run['problem']}" in cli("info").stdout
    assert sorted(path.name for path in (place / "checkpoint" / "run1").iterdir()) == before


def test_damaged_and_foreign_models_are_listed_as_such(place: Path, cli: Run) -> None:
    there = place / "models"
    cut(shutil.copytree(there / "small", there / "cut") / "model.ckpt.data-00000-of-00001")
    (there / "empty").mkdir()
    (there / "photos\x1b[31m").mkdir()
    (there / "photos\x1b[31m" / "cat.jpg").touch()
    (there / "README.md").write_text("not a folder")
    (there / "dangling").symlink_to("nowhere")
    (there / "hf").mkdir()
    (there / "hf" / "config.json").write_text('{"model_type": "llama"}')
    facts = found(cli)
    problems = {name: each["problem"] for (kind, name), each in facts.items() if kind == "model"}
    assert sorted(problems) == ["cut", "empty", "hf", "photos\\x1b[31m", "small"]
    assert problems["small"] is None
    assert "is cut" in problems["cut"]
    assert problems["empty"] == "Not a model: it is empty."
    assert problems["photos\\x1b[31m"] == "Not a model: it holds cat.jpg."
    assert "'llama'" in problems["hf"]


def test_what_strangers_wrote_commands_no_terminal(place: Path, cli: Run) -> None:
    odd, run = place / "models" / "odd", place / "checkpoint" / "run1"
    shutil.copytree(place / "models" / "small", odd)
    (odd / "checkpoint").write_text('model_checkpoint_path: "x\x1b]0;mine\x07"\n')
    with (run / run_log.LOG).open("a") as log:
        for number in ("1" + "0" * 400, "1e999"):
            log.write(f'{{"event": "validation", "step": 3, "loss": {number}}}\n')
            log.write(f'{{"event": "validation", "step": {number}, "loss": 1.0}}\n')
    done = cli("info")
    assert done.returncode == 0, done.stderr
    assert all(line.isprintable() for line in done.stdout.splitlines())
    facts = found(cli)
    assert "\\x1b" in facts["model", "odd"]["problem"]
    named = cli("info", "run1")
    assert (named.returncode, named.stderr) == (0, "")
    assert "loss over steps" in named.stdout


def test_folders_deeper_than_python_has_levels_are_measured(tmp_path: Path) -> None:
    levels = [tmp_path / "deep"]
    for _ in range(1200):
        levels.append(levels[-1] / "d")
    for level in levels:
        level.mkdir()
    end = levels[-1] / "end"
    end.write_text("12345")
    try:
        assert inventory.measured(tmp_path) == (5, end.stat().st_mtime)
        assert exports.files(tmp_path) == [end.relative_to(tmp_path).as_posix()]
    finally:
        # shutil.rmtree has no more levels than Python.
        end.unlink()
        for level in reversed(levels):
            level.rmdir()


def test_of_a_pointer_without_end_little_is_read(tmp_path: Path) -> None:
    with (tmp_path / "checkpoint").open("wb") as file:
        file.write(b'model_checkpoint_path: "model-7"\n')
        file.truncate(200_000_000)
    tracemalloc.start()
    try:
        assert paths.newest(tmp_path) == tmp_path / "model-7"
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["none"], 66, "no run or model none"),
        (["--run-name", "none"], 66, "checkpoint holds run1"),
        (["--run-name", "a/b"], 2, "--run-name"),
        (["--model-dir", ""], 2, "--model-dir"),
        (["x" * 5000], 66, "File name too long"),
        (["\x1b[31m"], 66, "no run or model \\x1b[31m"),
    ],
)
def test_what_is_not_there_is_refused(
    arguments: list[str], code: int, reason: str, place: Path, cli: Run
) -> None:
    done = cli("info", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert reason in done.stderr


def test_tensorflow_is_loaded_only_if_it_is_asked_for(place: Path, cli: Run) -> None:
    began = time.monotonic()
    cli("info")
    # Half a second on an idle machine; TensorFlow takes several.
    assert time.monotonic() - began < 2
    done = cli("info", "--tensorflow", env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    assert "TensorFlow sees: CPU:0" in done.stdout
