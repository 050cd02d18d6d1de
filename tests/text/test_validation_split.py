"""What is held out: whole documents where they fit, else the tail; and always the same."""

from __future__ import annotations

import numpy as np
import pytest

from gpt2cli.text import dataset

END = 9


def text(*lengths: int) -> np.ndarray[tuple[int], np.dtype[np.uint16]]:
    """Returns documents of these lengths, the end-of-text token included."""
    tokens = [token for length in lengths for token in [1] * (length - 1) + [END]]
    return np.array(tokens, np.uint16)


@pytest.mark.parametrize(
    ("lengths", "fraction", "expected"),
    [
        # The border that leaves most nearly the fraction.
        ([10] * 100, 0.05, 950),
        ([10] * 100, 0.052, 950),
        ([10] * 100, 0.058, 940),
        ([920, 40, 30, 10], 0.05, 960),
        # Half the fraction and twice the fraction will do, and no less and no more.
        ([975, 25], 0.05, 975),
        ([976, 24], 0.05, 950),
        ([900, 100], 0.05, 900),
        ([899, 101], 0.05, 950),
        # One document alone: its tail.
        ([1000], 0.05, 950),
        ([1000], 0.0001, 1000),
        ([500, 500], 0.5, 500),
        ([1000], 1.0, 0),
        ([2], 0.5, 1),
    ],
)
def test_whole_documents_are_held_out_where_they_come_near_the_fraction(
    lengths: list[int], fraction: float, expected: int
) -> None:
    assert dataset.training_length(text(*lengths), fraction, END) == expected


def test_a_document_remains_on_both_sides() -> None:
    assert dataset.training_length(text(5, 5), 0.9, END) == 5
    assert dataset.training_length(text(5, 5), 0.3, END) == 5
