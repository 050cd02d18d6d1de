"""What lies in a run folder or beside an export may be anybody's: its readers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2cli.files import exports, lock
from gpt2cli.formats import archive
from gpt2cli.storage import run_log
from tests.fuzz.bounds import cases, refusals
from tests.fuzz.mutations import damaged, mutated

pytestmark = pytest.mark.fuzz

STEP = {"event": "step", "time": 1.5, "step": 7, "loss": 2.5, "average": 2.5, "speed": 100.0}
VALIDATION = {"event": "validation", "time": 1.5, "step": 7, "loss": 2.5, "perplexity": 12.0}
LINES = "".join(json.dumps(record) + "\n" for record in (STEP, VALIDATION)).encode()
OWNER = {"pid": 7, "host": "here", "started": "2026-01-01 00:00:00"}
CONTENTS = (
    damaged(LINES)
    | mutated(STEP).map(lambda value: json.dumps(value).encode() + b"\n")
    | st.integers(0, 6000).map(lambda size: b'{"event": "step", "step": ' + b"9" * size + b"}\n")
    | st.binary()
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@cases(1000)
@given(CONTENTS)
def test_a_runs_log(folder: Path, content: bytes) -> None:
    (folder / run_log.LOG).write_bytes(content)
    with refusals():
        assert run_log.last_step(folder) >= 0
        run_log.history(folder)
        archive.log_until(folder, 5)


@cases(500)
@given(mutated({"step": 7, "loss": 2.5}).map(lambda v: json.dumps(v).encode()) | st.binary())
def test_what_names_the_best_step_and_the_settings(folder: Path, content: bytes) -> None:
    for name, read in ((run_log.BEST, run_log.best_step), (run_log.CONFIG, run_log.read_config)):
        (folder / name).write_bytes(content)
        with refusals():
            read(folder)


@cases(500)
@given(mutated(OWNER).map(lambda v: json.dumps(v).encode()) | st.binary())
def test_who_has_signed_a_lock(folder: Path, content: bytes) -> None:
    (folder / "lock").write_bytes(content)
    file = os.open(folder / "lock", os.O_RDONLY)
    try:
        assert lock.holder(file).isprintable()
    finally:
        os.close(file)


@cases(500)
@given(damaged(b'{"exported": ["a", "b"]}\n') | st.binary())
def test_the_mark_of_an_export(folder: Path, content: bytes) -> None:
    export = folder / "export"
    export.mkdir(exist_ok=True)
    (export / exports.MARK).write_bytes(content)
    with refusals():
        exports.foreign(export)
