"""Fixtures that several tests share: the real vocabulary, and small real model folders."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gpt2cli.runtime import hardware, numba, signals
from gpt2cli.runtime import tensorflow as tensorflow_start
from gpt2cli.text.tokenizer import Tokenizer
from tests import models

# Before any test imports TensorFlow, so that its greetings stay out of the tests' output.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# And so that it computes here as it does in the commands that tests start.
tensorflow_start.enable_onednn()
# Before any test imports Numba: what it compiles is kept for the next run of the tests.
COMPILED = Path(tempfile.gettempdir()) / f"gpt2cli-tests-{os.getuid()}-{numba.source_hash()}"
os.environ.setdefault("NUMBA_CACHE_DIR", str(COMPILED))

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def unignored() -> None:
    """Lets a child hear signals: a test that runs in the background was told to ignore some."""
    for number in signals.SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Returns 0, one process, if a GPU's tests are asked for: each needs the GPU to itself."""
    return 0 if asks_for("gpu", config) else None


def asks_for(mark: str, config: pytest.Config) -> bool:
    """Returns whether the option -m names a mark other than to leave its tests out."""
    expression = str(config.getoption("markexpr"))
    return re.search(rf"(?<!not )\b{mark}\b", expression) is not None


# Marks of tests that are left out unless they are asked for by name, and why.
LEFT_OUT = {
    "network": "fetches from the network; run it by `-m network`",
    "gpu": "needs an NVIDIA GPU to itself; run it by `-m gpu`",
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what needs more than the machine, unless it is asked for by name."""
    for mark, reason in LEFT_OUT.items():
        asked = asks_for(mark, config)
        if asked and (mark != "gpu" or hardware.may_have_gpu()):
            continue
        skip = pytest.mark.skip(reason="there is no NVIDIA GPU" if asked else reason)
        for item in items:
            if item.get_closest_marker(mark):
                item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where compiled programs are kept while tests run: not in the user's own folder."""
    place = tmp_path_factory.mktemp("cache")
    os.environ["XDG_CACHE_HOME"] = str(place)
    return place


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return models.real_tokenizer()


@pytest.fixture(scope="session")
def tensorflow() -> None:
    tensorflow_start.load(verbose=False)


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory, tensorflow: None) -> Path:
    """A model folder with random weights and a vocabulary of bytes; not to be written to."""
    return models.write_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="session")
def mini_model(tmp_path_factory: pytest.TempPathFactory, tensorflow: None) -> Path:
    """The same of one layer, for tests that compile it many times."""
    return models.write_model(tmp_path_factory.mktemp("models") / "mini", models.MINI)


@pytest.fixture
def cli(tmp_path: Path) -> Run:
    """Runs the real command line in an empty folder; returns what came of it."""

    def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            [sys.executable, "-m", "gpt2cli", *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            **options,
        )

    return run
