"""Every disk operation of a save fails, or ends the process, in turn: nothing saved is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import matrix


@pytest.mark.slow
@pytest.mark.parametrize("scene", matrix.SCENES)
def test_a_failure_at_any_operation_loses_nothing(
    scene: str, tmp_path: Path, mini_model: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.matrix", scene, mini_model, tmp_path / "run"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # As many as there are files to write, sync and rename, and more.
    assert int(done.stdout) > 30
