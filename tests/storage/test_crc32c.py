"""CRC-32C against known values, and against TensorFlow's own sums in a checkpoint."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2cli.errors import BadDataError
from gpt2cli.files import paths
from gpt2cli.storage import bundle, checkpoint, crc32c


@pytest.fixture(params=["library", "our own"], autouse=True)
def means(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Computes by the extra's library, and once more as where there is none."""
    assert crc32c.library() is not None
    if request.param == "our own":
        monkeypatch.setattr(crc32c, "library", lambda: None)


def bitwise(data: bytes) -> int:
    crc = crc32c.ONES
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (crc & 1) * crc32c.POLYNOMIAL
    return crc ^ crc32c.ONES


def test_the_check_value_of_the_standard() -> None:
    # RFC 3720, B.4
    assert crc32c.crc32c(b"123456789") == 0xE3069283
    assert crc32c.crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c.crc32c(bytes(range(32))) == 0x46DD794E


@pytest.mark.parametrize("short", [0, 1 << 13])
@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 255, 256, 257, 1023, 5000])
def test_every_length_equals_bit_by_bit(
    length: int, short: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crc32c, "SHORT_BYTES", short)
    data = np.random.default_rng(length).bytes(length)
    assert crc32c.crc32c(data) == bitwise(data)


def test_more_than_a_chunk_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(0).bytes(3 * 1024 + 77)
    monkeypatch.setattr(crc32c, "CHUNK_BYTES", 1024)
    monkeypatch.setattr(crc32c, "SHORT_BYTES", 0)
    assert crc32c.crc32c(data) == bitwise(data)


@pytest.mark.parametrize("module", [None, types.SimpleNamespace(implementation="python")])
def test_without_the_library_or_its_compiled_part_there_is_none(
    module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "google_crc32c", module)
    assert crc32c.library.__wrapped__() is None


def test_the_sums_are_tensorflows_and_a_flipped_bit_is_named(
    tmp_path: Path, tensorflow: None
) -> None:
    arrays = {"a": np.arange(3000, dtype=np.float32), "b": np.ones([2, 3], np.float32)}
    checkpoint.save(tmp_path / "model-1", arrays)
    bundle.check_sums(tmp_path / "model-1")
    path = paths.data_file(tmp_path / "model-1")
    content = bytearray(path.read_bytes())
    content[-1] ^= 64
    path.write_bytes(content)
    with pytest.raises(BadDataError, match=r"model-1\.data-00000-of-00001 is damaged at b:"):
        bundle.check_sums(tmp_path / "model-1")
