"""Marks for cases of a test: the first few run each time, the others with the slow tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def few(cases: Iterable[Any], quick: int) -> list[Any]:
    """Returns cases for `parametrize`, all but the first `quick` marked slow."""
    return [
        case
        if place < quick
        else pytest.param(*(case if isinstance(case, tuple) else [case]), marks=pytest.mark.slow)
        for place, case in enumerate(cases)
    ]
