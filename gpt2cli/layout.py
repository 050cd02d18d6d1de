"""Tables and curves as lines of text."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

# The points of a curve: x ascending, and y.
Points = Sequence[tuple[float, float]]
# What is less is drawn as this: nothing has no logarithm.
LEAST = 1e-6


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> Iterator[str]:
    """Yields rows, which may be shorter than others, as lines whose columns stand below each other.

    The columns to the `right` end at the same place, as numbers do.
    """
    widths = [max(map(len, column)) for column in itertools.zip_longest(*rows, fillvalue="")]
    for row in rows:
        cells = (
            f"{cell:>{widths[n]}}" if n in right else f"{cell:<{widths[n]}}"
            for n, cell in enumerate(row)
        )
        yield "  ".join(cells).rstrip()


def curve(lines: Sequence[tuple[str, Points]], *, width: int, height: int) -> Iterator[str]:
    """Yields a plot of curves over a logarithmic axis; later curves are drawn on top.

    A curve is its character and its points, and one at least has some. The width (characters) and
    height (lines) are without the numbers beside and below the plot.
    """
    drawn = [(mark, points) for mark, points in lines if points]
    xs = [x for _, points in drawn for x, _ in points]
    ys = [math.log(max(y, LEAST)) for _, points in drawn for _, y in points]
    left, wide = min(xs), (max(xs) - min(xs)) or 1
    low, high = min(ys), max(ys)
    grid = [[" "] * width for _ in range(height)]
    for mark, points in drawn:
        for column, y in columns_of(points, left, wide, width):
            place = (high - math.log(max(y, LEAST))) / ((high - low) or 1)
            grid[min(max(round(place * (height - 1)), 0), height - 1)][column] = mark
    labels = [""] * height
    for row in (0, height // 2, height - 1):
        labels[row] = f"{math.exp(high - row / (height - 1) * (high - low)):.3g}"
    margin = max(map(len, labels))
    for label, cells in zip(labels, grid, strict=True):
        yield f"{label:>{margin}} |{''.join(cells)}".rstrip()
    first, last = f"{left:g}", f"{max(xs):g}"
    yield f"{'':>{margin}}  {first}{last:>{width - len(first)}}"


def columns_of(points: Points, left: float, wide: float, width: int) -> Iterator[tuple[int, float]]:
    """Yields each column that has points, and the mean of their y."""
    sums: dict[int, list[float]] = {}
    for x, y in points:
        sums.setdefault(round((x - left) / wide * (width - 1)), []).append(y)
    for column, values in sums.items():
        yield column, math.fsum(values) / len(values)
