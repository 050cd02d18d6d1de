"""Compiled loops against NumPy in float64."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from gpt2cli.inference.cpu import amx_tiles, kernels, ops
from gpt2cli.inference.cpu.kernels import INT16_MOST
from gpt2cli.inference.cpu.matmul_tiles import BLOCK, TILE_ROWS
from gpt2cli.inference.cpu.ops import FEW_ROWS, NORM_EPSILON, ROW_BLOCK, Matrix
from gpt2cli.network import rounding
from tests.marks import few

NOISE = np.random.default_rng(0)
KINDS = ("float32", "float16", "bfloat16", "int8")
NO_AMX = "this processor has no AMX"
# int8 both ways that this processor has.
WAYS = [*KINDS, "int8 without AMX"]


@pytest.fixture
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Returns the precision of a way, in which products are computed from now on."""
    precision, _, without = request.param.partition(" ")
    if without:
        monkeypatch.setattr(amx_tiles, "is_available", lambda: False)
    return str(precision)


def least_columns() -> int:
    """Returns the columns that a matrix of int8 has at least to meet whole numbers."""
    return amx_tiles.ROWS if amx_tiles.is_available() else BLOCK


def noise(*shape: int) -> Any:
    return NOISE.normal(size=shape).astype(np.float32)


def stands_for(rows: Any, kind: str) -> Any:
    """Returns in float64 what weights are once they are held in a precision."""
    if kind == "int8":
        scale = np.abs(rows).max(axis=1, keepdims=True) / 127
        return np.rint(rows / scale) * scale.astype(np.float64)
    return rows.astype({"bfloat16": ml_dtypes.bfloat16}.get(kind, kind)).astype(np.float64)


def taken_as(x: Any, kind: str, columns: int) -> Any:
    """Returns in float64 what rows are once so many columns of a precision are multiplied by them.

    Whole tiles of int8 meet whole numbers of 16 bits.
    """
    if kind != "int8" or columns < least_columns():
        return x.astype(np.float64)
    largest = np.abs(x).max(axis=1, keepdims=True).astype(np.float64)
    return np.rint(x / largest * INT16_MOST) * largest / INT16_MOST


@pytest.mark.parametrize("kind", WAYS, indirect=True)
@pytest.mark.parametrize("many", [1, 2, 3, 4, 7, 16, 17, FEW_ROWS, FEW_ROWS + 1, ROW_BLOCK + 3])
def test_products_are_those_of_what_the_weights_stand_for(kind: str, many: int) -> None:
    for columns, width in ((1, 3), (5, 64), (23, 97), (40, 256)):
        rows, x, bias = noise(columns, width) / 10, noise(many, width), noise(columns)
        matrix, exact = Matrix(rows, kind), stands_for(rows, kind)
        expected = taken_as(x, kind, columns) @ exact.T
        # Where a number is half way between two whole ones float32 may take the other one.
        atol = 1e-4 if kind == "int8" else 1e-5
        near = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=atol)
        near(matrix.times(x), expected)
        near(matrix.times(x, bias), expected + bias)
        places = [columns - 1, 0, 0]
        np.testing.assert_allclose(matrix.rows(places), exact[places], rtol=1e-6)


@pytest.mark.parametrize("kind", WAYS[-2:], indirect=True)
def test_whole_numbers_are_as_near_as_sixteen_bits(kind: str) -> None:
    rows, x = noise(64, 768), noise(9, 768)
    # One number that is far from the others, as GPT-2's hidden states have them.
    x[:, 7] *= 30
    matrix = Matrix(rows, kind)
    expected = x.astype(np.float64) @ stands_for(rows, kind).T
    error = matrix.times(x) - expected
    assert np.sqrt((error**2).mean() / (expected**2).mean()) < 1e-3


@pytest.mark.parametrize("kind", WAYS[-2:], indirect=True)
def test_rows_that_cannot_be_whole_numbers_are_told_apart(kind: str) -> None:
    rows, bias = noise(16, 40), noise(16)
    x = noise(7, 40)
    x[0, 3], x[1, 3], x[2, 3], x[3], x[4] = np.nan, np.inf, -np.inf, 0, 1e-38
    x[5] *= np.float32(1e37)
    found = Matrix(rows, kind).times(x, bias)
    assert np.isnan(found[:3]).all()
    np.testing.assert_array_equal(found[3:5], [bias, bias])
    expected = x[5:].astype(np.float64) @ stands_for(rows, kind).T + bias
    near = np.abs(found[5:] - expected) / np.abs(expected).max(axis=1, keepdims=True)
    assert near.max() < 1e-3


@pytest.mark.parametrize("kind", WAYS, indirect=True)
def test_a_row_has_the_same_products_to_the_bit_alone_and_among_others(kind: str) -> None:
    matrix, x, bias = Matrix(noise(29, 100), kind), noise(21, 100), noise(29)
    together = matrix.times(x, bias)
    for number in range(len(x)):
        alone = matrix.times(x[number : number + 1], bias)
        np.testing.assert_array_equal(alone[0], together[number])


@pytest.mark.skipif(not amx_tiles.is_available(), reason=NO_AMX)
@pytest.mark.parametrize(("columns", "depth"), [(16, 64), (17, 128), (95, 192), (500, 3072)])
def test_amx_finds_the_whole_sums(columns: int, depth: int) -> None:
    """The largest numbers there are, and others: halves of 16 bits are put together right."""
    weights = NOISE.integers(-127, 128, (columns, depth)).astype(np.int8)
    weights[0], weights[-1] = 127, -127
    rows = noise(23, depth)
    rows[0], rows[1], rows[2, ::2] = 1, -1, 0
    ones, none = np.ones(columns, np.float32), np.zeros(columns, np.float32)
    whole, lengths = kernels.to_int16(rows, depth)
    sums = whole[:, :depth].astype(np.int64) @ weights.astype(np.int64).T
    expected = sums * lengths[:, None].astype(np.float64)
    for many in (1, 5, 16, 23):
        found = np.full((many, columns), np.nan, np.float32)
        kernels.int8_gemm_amx(rows[:many], weights, (ones, none), found, 3)
        atol = 1e-6 * np.abs(expected).max()
        np.testing.assert_allclose(found, expected[:many], rtol=1e-6, atol=atol)


OTHER_PROCESSOR = """
import llvmlite.binding, numba, numpy
import platform
features, machine = llvmlite.binding.get_host_cpu_features, platform.machine()
llvmlite.binding.get_host_cpu_features = lambda: {features}
platform.machine = lambda: {machine!r} or machine
from gpt2cli.inference.cpu import matmul_tiles
llvmlite.binding.get_host_cpu_features = features
from gpt2cli.inference.cpu.ops import Matrix
noise = numpy.random.default_rng(0)
rows, x = (noise.normal(size=size).astype(numpy.float32) for size in ((13, 52), (7, 52)))
for kind, near in (("float32", 1e-5), ("int8", 1e-3)):
    matrix = Matrix(rows, kind)
    expected = x.astype(float) @ matrix.rows(range(13)).astype(float).T
    numpy.testing.assert_allclose(matrix.times(x), expected, rtol=1e-4, atol=near)
    numpy.testing.assert_array_equal(matrix.times(x)[3], matrix.times(x[3:4])[0])
# The largest sums that there are: the widest matrix of GPT-2 1558M.
most = numpy.ones((13, 6400), numpy.float32)
numpy.testing.assert_allclose(Matrix(most, "int8").times(-most[:3]), -6400 * most[:3, :13])
from gpt2cli.inference.cpu import ops
mixed, keys, values = (
    noise.normal(size=size).astype(numpy.float32)
    for size in ((1, 384), (1, 2, 30, 64), (1, 2, 30, 64))
)
found = ops.attend_newest(mixed, keys, values, numpy.array([20]), numpy.array([0, 1]))
scores = (mixed[0, :128].reshape(2, 1, 64) * keys[0, :, :21]).sum(-1, dtype=float) / 8
shares = numpy.exp(scores) / numpy.exp(scores).sum(-1, keepdims=True)
expected = (shares[:, :, None] * values[0, :, :21]).sum(1)
numpy.testing.assert_allclose(found, expected.reshape(1, 128), rtol=1e-4, atol=1e-6)
names = "LANES", "TILE_ROWS", "TILE_COLUMNS", "LINE_COLUMNS"
print(*(getattr(matmul_tiles, name) for name in names))
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="these features are of that processor")
@pytest.mark.parametrize(
    ("features", "machine", "shape"),
    few(
        [
            ({"avx512bw": True}, "", "16 6 4 1"),
            ({"avx2": True}, "", "8 4 3 4"),
            ({}, "", "4 4 3 4"),
            # What is built for it is judged here; that ARM's processors run it is not.
            ({}, "aarch64", "4 6 4 4"),
        ],
        1,
    ),
    ids=["512 bits", "256 bits", "128 bits", "ARM"],
)
def test_products_are_right_in_tiles_for_every_processor(
    features: dict[str, bool], machine: str, shape: str, tmp_path: Path
) -> None:
    told = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESSOR.format(features=features, machine=machine)],
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert told.stdout.strip() == shape, told.stderr


def test_every_half_is_widened_to_what_it_stands_for() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    for kind, held in (("float16", bits.view(np.float16)), ("bfloat16", bits)):
        wide = held.view(ml_dtypes.bfloat16 if kind == "bfloat16" else np.float16)
        finite = np.isfinite(wide.astype(np.float32))
        rows = wide.astype(np.float32)[finite][:, None]
        found = Matrix(rows, kind).times(np.ones((1, 1), np.float32))
        np.testing.assert_array_equal(found[0], rows[:, 0])


def test_bfloat16_is_rounded_as_its_own_library_rounds_it() -> None:
    special = np.array([0, -0.0, 1e-40, 3.4e38, np.inf, -np.inf, np.nan], np.float32)
    ties = np.float32(1) + np.arange(64, dtype=np.float32) * np.float32(2**-9)
    for rows in (special, ties, -ties, noise(100_000), np.float32(1e-38) * noise(1000)):
        expected = rows.astype(ml_dtypes.bfloat16).view(np.uint16)
        np.testing.assert_array_equal(rounding.to_bfloat16_bits(rows), expected)


def test_powers_are_as_near_as_float32_can_tell() -> None:
    x = np.linspace(-87, 88, 100_001, dtype=np.float32)
    found = np.array([kernels.power(value) for value in x[::10]])
    np.testing.assert_allclose(found, np.exp(x[::10].astype(np.float64)), rtol=3e-7)
    assert kernels.power(np.float32(0)) == 1
    assert kernels.power(np.float32("-inf")) == 0


def test_gelu_and_norm_are_numpys() -> None:
    x, gain, bias = 4 * noise(7, 96), noise(96), noise(96)
    x[0, :3] = 0, 30, -30
    rows = x.astype(np.float64)
    expected = 0.5 * rows * (1 + np.tanh(np.sqrt(2 / np.pi) * (rows + 0.044715 * rows**3)))
    np.testing.assert_allclose(ops.gelu(x.copy()), expected, rtol=1e-5, atol=1e-6)
    centred = rows - rows.mean(axis=1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + NORM_EPSILON)
    np.testing.assert_allclose(ops.norm(x, gain, bias), scaled * gain + bias, rtol=1e-4, atol=1e-5)


def attended(mixed: Any, keys: Any, values: Any) -> Any:
    """Returns what the last position attends to, in float64.

    Args:
        mixed: (3 * embed,): its query, key and value.
        keys: (heads, time, head), its own the last.
        values: like keys.
    """
    heads, _, head = keys.shape
    query = mixed[: heads * head].astype(np.float64).reshape(heads, 1, head)
    scores = (query * keys).sum(axis=-1) / np.sqrt(head)  # (heads, time)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    probabilities = powers / powers.sum(axis=-1, keepdims=True)
    return (probabilities[:, :, None] * values).sum(axis=1).ravel()


def cached(array: Any) -> Any:
    """Returns keys or values, (texts, heads, slots, head), as compiled loops need them."""
    found = ops.new_cache(array.shape)
    found[:, :, : array.shape[2], : array.shape[3]] = array
    return found


@pytest.mark.parametrize(("time", "head"), [(TILE_ROWS, 6), (7, 8), (70, 64), (131, 21)])
def test_attention_of_a_prompt_is_numpys(
    time: int, head: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpt2cli.inference.cpu.ops.LONG_PROMPT", TILE_ROWS)
    mixed, keys, values = noise(time, 9 * head), noise(3, time + 2, head), noise(3, time + 2, head)
    expected = [
        attended(row, keys[:, : place + 1], values[:, : place + 1])
        for place, row in enumerate(mixed)
    ]
    there = cached(keys[None])[0], cached(values[None])[0]
    for found in (ops.attend_prompt(mixed, *there), ops.attend_by_blas(mixed, *there)):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


# Of as many numbers as have sums of their own, of twice as many; and of some that are padded.
@pytest.mark.parametrize("head", [16, 64, 128, 8, 50])
@pytest.mark.parametrize("counts", [(1, 1, 1), (2, 1, 4), (0, 1, 5), (3, 0, 0)])
def test_attention_of_texts_at_different_places_is_numpys(
    counts: tuple[int, ...], head: int
) -> None:
    texts, heads, slots = 3, 2, 45
    seen, starts = np.array([0, 40, 3]), np.cumsum([0, *counts])
    mixed = noise(sum(counts), 3 * heads * head)
    keys, values = noise(texts, heads, slots, head), noise(texts, heads, slots, head)
    there = cached(keys), cached(values)
    found = ops.attend_newest(mixed, *there, seen, starts)
    for text, count in enumerate(counts):
        for row, place in enumerate(range(seen[text], seen[text] + count), starts[text]):
            _, keys[text, :, place], values[text, :, place] = mixed[row].reshape(3, heads, head)
            before = (array[text, :, : place + 1] for array in (keys, values))
            expected = attended(mixed[row], *before)
            np.testing.assert_allclose(found[row], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal([array[..., :head] for array in there], (keys, values))


@pytest.mark.parametrize("head", [64, 50])
def test_positions_see_the_same_to_the_bit_one_by_one_and_together(head: int) -> None:
    counts, heads, slots = [1, 2, 7, 13], 2, 45
    seen, starts = np.array([0, 30, 3, 9]), np.cumsum([0, *counts])
    mixed = noise(sum(counts), 3 * heads * head)
    caches = [noise(4, heads, slots, head) for _ in range(2)]
    for cache in caches:
        for text, begin in enumerate(seen):
            # What was there before, and need not be a number.
            cache[text, :, begin:] = np.nan
    caches = [cached(cache) for cache in caches]
    keys, values = (cache.copy() for cache in caches)
    together = ops.attend_newest(mixed, keys, values, seen, starts)
    for text, count in enumerate(counts):
        for ahead, row in enumerate(range(starts[text], starts[text] + count)):
            keys, values = (cache[text : text + 1] for cache in caches)
            place, alone = np.array([seen[text] + ahead]), np.array([0, 1])
            found = ops.attend_newest(mixed[row : row + 1], keys, values, place, alone)
            np.testing.assert_array_equal(found[0], together[row])
    assert np.isfinite(together).all()
