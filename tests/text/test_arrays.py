"""Token arrays of NumPy's, as gpt-2-simple's encode writes them, and what is none."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2cli.errors import BadDataError
from gpt2cli.text import arrays
from gpt2cli.text.sources import ReadingState, Source


def tokens(path: Path, vocab: int = 50257) -> list[list[int]]:
    """Returns the tokens of each array of a file."""
    found = arrays.token_documents(Source(path), vocab, ReadingState())
    return [np.frombuffer(b"".join(each), arrays.TOKEN_TYPE).tolist() for each in found]


def saved(path: Path, array: Any) -> Path:
    np.save(path, array)
    return path


@pytest.mark.parametrize("kind", ["<u2", ">u2", "i4", "i8", "u8", "u1"])
def test_an_array_of_any_whole_numbers_is_read(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "READ_TOKENS", 7)
    numbers = list(range(100))
    path = saved(tmp_path / "a.npy", np.array(numbers, kind))
    assert tokens(path) == [numbers]
    (tmp_path / "b.npy.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert tokens(tmp_path / "b.npy.gz") == [numbers]


def test_every_array_of_an_npz_is_a_document_in_order(tmp_path: Path) -> None:
    chunks = [np.array([5, 50256]), np.array([3]), np.arange(6).reshape(2, 3)]
    for write, name in ((np.savez_compressed, "a.npz"), (np.savez, "b.npz")):
        write(tmp_path / name, *chunks)
        assert tokens(tmp_path / name) == [[5, 50256], [3], [0, 1, 2, 3, 4, 5]]
    (tmp_path / "c.npz.gz").write_bytes(gzip.compress((tmp_path / "a.npz").read_bytes()))
    assert tokens(tmp_path / "c.npz.gz") == [[5, 50256], [3], [0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize("wrong", [50257, -1])
def test_a_number_that_is_no_token_is_named_with_its_place(
    wrong: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "READ_TOKENS", 2)
    np.savez(tmp_path / "a.npz", good=np.array([50256]), bad=np.array([1, 2, wrong]))
    with pytest.raises(BadDataError, match=rf"a\.npz, bad: {wrong} at 2 is not a token.*50,257"):
        tokens(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([0.5]), "float64"),
        (np.array(["text"]), "<U4"),
        (np.asfortranarray(np.ones((2, 2), int)), "Fortran"),
        (np.array([{}], object), "object"),
    ],
)
def test_an_array_of_anything_else_is_refused(array: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadDataError, match=message):
        tokens(saved(tmp_path / "a.npy", array))


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", b"text that is no array"])
def test_a_file_that_is_no_array_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    for name in ("a.npy", "a.npz"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadDataError, match=rf"{name}: no whole NumPy file"):
            tokens(tmp_path / name)


def test_a_file_that_is_cut_says_where(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npy", np.arange(100))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(BadDataError, match=r"a\.npy: cut after 0 of 100 tokens"):
        tokens(path)
    np.savez_compressed(tmp_path / "b.npz", np.arange(1000))
    whole = (tmp_path / "b.npz").read_bytes()
    (tmp_path / "b.npz").write_bytes(whole[:200] + b"\0\0\0\0" + whole[204:])
    with pytest.raises(BadDataError, match=r"b\.npz, arr_0: no whole NumPy file"):
        tokens(tmp_path / "b.npz")


def test_an_array_that_goes_on_beyond_its_header_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npy", np.arange(10))
    with path.open("ab") as file:
        np.save(file, np.arange(3))
    with pytest.raises(BadDataError, match=r"a\.npy: more follows the 10 tokens"):
        tokens(path)


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_packing_that_numpy_does_not_use_is_refused(packing: int, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", packing) as archive:
        archive.write(saved(tmp_path / "a.npy", np.arange(9)), "a.npy")
    with pytest.raises(BadDataError, match=r"a\.npz, a: no whole NumPy file"):
        tokens(tmp_path / "a.npz")


def test_an_array_that_unpacks_to_no_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "FREE_OF_RATIO", 1000)
    np.savez_compressed(tmp_path / "a.npz", np.zeros(1_000_000, np.uint16))
    with pytest.raises(BadDataError, match=r"a\.npz, arr_0.* bytes that unpack to 2,000,128"):
        tokens(tmp_path / "a.npz")


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_headers_of_every_version_are_read(version: tuple[int, int], tmp_path: Path) -> None:
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array(file, np.arange(5), version)
    assert tokens(tmp_path / "a.npy") == [[0, 1, 2, 3, 4]]


def test_a_header_that_claims_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b" " * 100_000)
    with pytest.raises(BadDataError, match="its header is damaged"):
        tokens(tmp_path / "a.npy")
