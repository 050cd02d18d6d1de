"""A lock that nobody could sign leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import resource
import sys
from pathlib import Path

from gpt2cli.files import lock

# As on a full disk: a file can be made, and nothing be written to it.
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
try:
    with lock.locked(Path(sys.argv[1]), "the run"):
        print("locked")
except OSError as error:
    print(type(error).__name__)
"""


def test_a_lock_for_which_there_is_no_room_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    run = [sys.executable, "-c", PROGRAM, str(path)]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert done.stdout == "OSError\n"
    assert not path.exists()
    # One that was there before stays.
    path.touch()
    subprocess.run(run, capture_output=True, check=True)
    assert path.exists()
