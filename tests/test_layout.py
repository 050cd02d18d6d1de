"""Tables and curves as lines of text."""

from __future__ import annotations

import math

import pytest

from gpt2cli import layout


def test_a_tables_columns_stand_below_each_other() -> None:
    rows = [["", "name", "size"], ["", "a", "1,000"], ["", "longer", "7"], ["", "x"]]
    assert list(layout.table(rows, right=(2,))) == [
        "  name     size",
        "  a       1,000",
        "  longer      7",
        "  x",
    ]
    assert list(layout.table([])) == []


def test_a_curve_falls_as_its_points_do() -> None:
    points = [(step, math.exp(-step)) for step in range(5)]
    lines = list(layout.curve([(".", points)], width=9, height=5))
    # Exponential decay is a straight line over a logarithmic axis.
    assert lines == [
        "     1 |.",
        "       |  .",
        " 0.135 |    .",
        "       |      .",
        "0.0183 |        .",
        "        0       4",
    ]


def test_later_curves_are_on_top_and_empty_ones_are_left_out() -> None:
    lines = list(
        layout.curve([(".", [(0, 2), (9, 1)]), ("o", [(0, 2)]), ("x", [])], width=4, height=2)
    )
    assert lines == ["2 |o", "1 |   .", "   0  9"]


@pytest.mark.parametrize(
    "points", [[(3, 2.5)], [(0, 0.0), (1, 0.0)], [(0, 1e300), (1, 0.0), (10**15, -1.0)]]
)
def test_odd_points_are_drawn_too(points: list[tuple[float, float]]) -> None:
    lines = list(layout.curve([("*", points)], width=20, height=6))
    assert len(lines) == 7
    assert any("*" in line for line in lines[:-1])
    assert all(len(line) < 60 for line in lines)


def test_points_of_one_column_are_averaged() -> None:
    points = [(step, 1.0 if step % 2 else 3.0) for step in range(1000)]
    columns = dict(layout.columns_of(points, 0, 999, 10))
    assert sorted(columns) == list(range(10))
    assert all(mean == pytest.approx(2, abs=0.1) for mean in columns.values())
