"""Run folders travel both ways between gpt2cli and gpt-2-simple."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from gpt2cli.hparams import HParams
from tests import models
from tests.conftest import Run

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    # Importing it would switch TensorFlow to graphs in this process.
    pytest.mark.skipif(find_spec("gpt_2_simple") is None, reason="needs the extra `interop`"),
]

HPARAMS = HParams(n_vocab=50257, n_ctx=1024, n_embd=64, n_head=4, n_layer=2)
TEXT = "Night and day the mill turned, and nobody in the valley heard it any more.\n" * 200
PREFIX = "Night and day the"
# Tokens with the prompt in gpt-2-simple, without it in gpt2cli.
LENGTH = 30

GENERATE = f"""
import gpt_2_simple as gpt2
session = gpt2.start_tf_sess()
gpt2.load_gpt2(session, run_name="run1")
(text,) = gpt2.generate(
    session, run_name="run1", prefix={PREFIX!r}, length={LENGTH}, top_k=1, temperature=1.0,
    return_as_list=True,
)
print("<<" + text + ">>")
"""
FINETUNE = """
import gpt_2_simple as gpt2
session = gpt2.start_tf_sess()
gpt2.finetune(
    session, "text.txt", model_name="small", steps=3, run_name="simple", sample_every=100,
    save_every=3, print_every=1, accumulate_gradients=1, sample_length=20,
)
"""


def gpt_2_simple(program: str, folder: Path) -> str:
    """Runs a program in a process of its own; returns what it printed."""
    environment = os.environ | {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture
def place(tmp_path: Path, tensorflow: None) -> Path:
    """The command line's folder, with a model that has the real vocabulary."""
    models.write_model(tmp_path / "models" / "small", HPARAMS, deviation=0.3)
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path


def test_gpt_2_simple_reads_our_run_and_goes_on_with_the_same_greedy_text(
    place: Path, cli: Run
) -> None:
    done = cli("finetune", "text.txt", "--model-name", "small", "--steps", 3, "--sample-every", 0)
    assert done.returncode == 0, done.stderr
    ours = cli("generate", "--prefix", PREFIX, "--temperature", 0, "--length", LENGTH)
    theirs = gpt_2_simple(GENERATE, place)
    found = theirs[theirs.index("<<") + 2 : theirs.rindex(">>")]
    assert found.startswith(PREFIX)
    assert len(found) > len(PREFIX) + LENGTH
    # gpt-2-simple's length counts tokens a little differently: the shorter text decides.
    length = min(len(found), len(ours.stdout.removesuffix("\n")))
    assert length > len(PREFIX) + 2 * LENGTH
    assert ours.stdout[:length] == found[:length]


def test_a_run_that_gpt_2_simple_wrote_is_continued_and_generated_from(
    place: Path, cli: Run
) -> None:
    gpt_2_simple(FINETUNE, place)
    assert (place / "checkpoint" / "simple" / "model-3.meta").exists()
    done = cli("finetune", "text.txt", "--run-name", "simple", "--steps", 2, "--sample-every", 0)
    assert done.returncode == 0, done.stderr
    assert "no optimiser state" in done.stderr
    assert "[5 |" in done.stderr
    assert (place / "checkpoint" / "simple" / "model-3.meta").exists()
    text = cli("generate", "--run-name", "simple", "--prefix", PREFIX, "--length", 5)
    assert text.stdout.startswith(PREFIX)
