"""What gpt-2-simple itself makes of the calls that people bring from it.

    python -m tests.interop.simple calls     its answers, as JSON in the last line
    python -m tests.interop.simple train     the lines of its steps

in a process of its own, as importing gpt-2-simple switches TensorFlow to graphs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

PREFIX = "Night and day the"
# New tokens: the released gpt-2-simple counts them without the prompt.
LENGTH = 30
DELIMITER = "~~\n"
# How often one token is sampled, and how.
DRAWS = 2000
WAYS: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": 0.7},
    "top_k": {"temperature": 1.0, "top_k": 5},
    "top_p": {"temperature": 1.0, "top_p": 0.6},
}
# How runs are trained there, and here.
TRAINING: dict[str, dict[str, Any]] = {
    "adam": {"optimizer": "adam", "learning_rate": 1e-4, "accumulate_gradients": 1},
    "sgd": {"optimizer": "sgd", "learning_rate": 1e-2, "accumulate_gradients": 1},
    "added": {"optimizer": "sgd", "learning_rate": 1e-2, "accumulate_gradients": 3},
    "blocks": {
        "optimizer": "sgd",
        "learning_rate": 1e-2,
        "accumulate_gradients": 1,
        "only_train_transformer_layers": True,
    },
}
STEPS = 3
GREEDY: dict[str, Any] = {"top_k": 1, "temperature": 1.0, "length": LENGTH, "return_as_list": True}


def gpt_2_simple(program: str, folder: Path) -> str:
    """Runs a program of gpt-2-simple's in a process of its own; returns what it printed."""
    return run(["-c", program], folder)


def run(arguments: list[str], folder: Path) -> str:
    """Runs Python in a folder as gpt-2-simple needs it; returns what it printed."""
    environment = os.environ | {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment["PYTHONPATH"] = str(Path(__file__).parent.parent.parent)
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def calls() -> dict[str, Any]:
    """Answers the calls that generate, and those that write and copy files."""
    import gpt_2_simple as gpt2

    session = gpt2.start_tf_sess()
    gpt2.load_gpt2(session, run_name="run1")

    def texts(**options: Any) -> list[str]:
        found: list[str] = gpt2.generate(session, **(GREEDY | options))
        return found

    stop = Path("stop.txt").read_text(encoding="utf-8")
    answers: dict[str, Any] = {
        "prefix": texts(prefix=PREFIX),
        "no prefix": texts(),
        "truncated": texts(prefix=PREFIX, truncate=stop),
        "truncated without prefix": texts(prefix=PREFIX, truncate=stop, include_prefix=False),
    }
    for name, way in WAYS.items():
        drawn = {"top_k": 0, "nsamples": DRAWS, "batch_size": 500, "length": 1, "seed": 1}
        answers[name] = texts(prefix=PREFIX, **(drawn | way))
    files: dict[str, Any] = {key: value for key, value in GREEDY.items() if key != "return_as_list"}
    gpt2.generate_to_file(session, destination_path="one.txt", prefix=PREFIX, **files)
    files |= {"nsamples": 4, "batch_size": 2, "prefix": PREFIX}
    gpt2.generate_to_file(session, destination_path="four.txt", **files)
    gpt2.generate_to_file(session, destination_path="delim.txt", sample_delim=DELIMITER, **files)
    session = gpt2.reset_session(session)
    gpt2.load_gpt2(session, model_name="small")
    answers["model"] = texts(prefix=PREFIX, model_name="small")
    session = gpt2.reset_session(session)
    gpt2.load_gpt2(session, run_name="run1", checkpoint="model-1")
    answers["checkpoint"] = texts(prefix=PREFIX)
    gpt2.reset_session(session)
    options = f"--nfiles 1 --nsamples 2 --batch_size 2 --top_k 1 --temperature 1 --length {LENGTH}"
    sys.argv[1:] = ["generate", *options.split(), "--prefix", PREFIX]
    gpt2.cmd()
    for name in ("small", "exported"):
        answers[f"is {name} there"] = gpt2.is_gpt2_downloaded(model_name=name)
    gpt2.encode_csv("tweets.csv")
    gpt2.encode_dataset("text.txt", model_name="small")
    drive()
    session = gpt2.reset_session(session)
    gpt2.load_gpt2(session, run_name="ours")
    answers["from drive"] = texts(prefix=PREFIX, run_name="ours")
    return answers


def drive() -> None:
    """Copies a run to Colab's drive, which is a folder here, and another run from it."""
    from gpt_2_simple import gpt_2

    def copy(source: str, destination: str) -> None:
        at = "/content/drive/My Drive/"
        shutil.copyfile(source.replace(at, "drive/"), destination.replace(at, "drive/"))

    gpt_2.is_mounted = lambda: None
    gpt_2.shutil = SimpleNamespace(copyfile=copy)
    gpt_2.copy_checkpoint_to_gdrive(run_name="run1")
    gpt_2.copy_checkpoint_from_gdrive(run_name="ours")
    gpt_2.copy_file_to_gdrive("text.txt")


def train() -> None:
    """Trains a run each way on the one window of theirs.npz; the lines of the steps are printed."""
    import gpt_2_simple as gpt2

    session = gpt2.start_tf_sess()
    for name, options in TRAINING.items():
        session = gpt2.reset_session(session)
        sys.stdout.write(f"run {name}\n")
        gpt2.finetune(
            session,
            "theirs.npz",
            model_name="small",
            run_name=name,
            steps=STEPS,
            sample_every=100,
            sample_length=20,
            **options,
        )


if __name__ == "__main__":
    if sys.argv[1] == "train":
        train()
    else:
        found = calls()
        sys.stdout.write("\n" + json.dumps(found))
