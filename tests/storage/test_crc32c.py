"""CRC-32C against known values, and against TensorFlow's own sums in a checkpoint."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2cli.errors import BadDataError
from gpt2cli.files import paths
from gpt2cli.storage import bundle, checkpoint, crc32c


def without_library(monkeypatch: pytest.MonkeyPatch) -> None:
    assert crc32c.library() is not None
    monkeypatch.setattr(crc32c, "library", lambda: None)


# RFC 3720, B.4
STANDARD = {
    b"123456789": 0xE3069283,
    bytes(32): 0x8A9136AA,
    bytes(range(32)): 0x46DD794E,
}


@pytest.mark.parametrize("short", [0, crc32c.SHORT_BYTES])
@pytest.mark.parametrize("installed", [True, False])
def test_the_check_values_of_the_standard_come_masked(
    installed: bool, short: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not installed:
        without_library(monkeypatch)
    monkeypatch.setattr(crc32c, "SHORT_BYTES", short)
    for data, crc in STANDARD.items():
        assert crc32c.masked(data) == crc32c.mask(crc)
        assert crc32c.masked(memoryview(data)) == crc32c.mask(crc)


@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 255, 256, 257, 1023, 5000, 3_000_000])
def test_all_three_ways_agree(length: int) -> None:
    data = np.random.default_rng(length).bytes(length)
    wanted = crc32c.masked(data)
    assert crc32c.mask(crc32c.bytewise(data)) == wanted
    assert crc32c.by_tensorflow(data) == wanted


def test_tensorflow_loads_for_tensors_and_not_for_an_index() -> None:
    program = (
        "import sys\nfrom gpt2cli.storage import crc32c\n"
        "sys.modules['google_crc32c'] = None\n"
        "crc32c.masked(bytes(crc32c.SHORT_BYTES - 1))\n"
        "print('tensorflow' in sys.modules)\n"
        "print(crc32c.masked(bytes(crc32c.SHORT_BYTES)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"False\n{crc32c.masked(bytes(crc32c.SHORT_BYTES))}\n"
    assert done.stderr == ""


@pytest.mark.parametrize("module", [None, types.SimpleNamespace(implementation="python")])
def test_without_the_library_or_its_compiled_part_there_is_none(
    module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "google_crc32c", module)
    assert crc32c.library.__wrapped__() is None


@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize("short", [0, crc32c.SHORT_BYTES])
def test_the_sums_are_tensorflows_and_a_flipped_bit_is_named(
    tmp_path: Path,
    tensorflow: None,
    installed: bool,
    short: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not installed:
        without_library(monkeypatch)
    monkeypatch.setattr(crc32c, "SHORT_BYTES", short)
    arrays = {"a": np.arange(3000, dtype=np.float32), "b": np.ones([2, 3], np.float32)}
    checkpoint.save(tmp_path / "model-1", arrays)
    bundle.check_sums(tmp_path / "model-1")
    path = paths.data_file(tmp_path / "model-1")
    content = bytearray(path.read_bytes())
    content[-1] ^= 64
    path.write_bytes(content)
    with pytest.raises(BadDataError, match=r"model-1\.data-00000-of-00001 is damaged at b:"):
        bundle.check_sums(tmp_path / "model-1")
