"""Strategies that damage what was good: a field here, a byte there."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**31, 2**63, 10**400, -1])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["\ud800", "\0", "..", "a" * 10_000, "\x1b[31m"])
)
JUNK = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(max_size=4), SCALARS)


@st.composite
def mutated(draw: st.DrawFn, good: Any) -> Any:
    """Draws a JSON value in which a few places hold something else, or nothing."""
    whole = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        place, key = whole, None
        while isinstance(place, (dict, list)) and place:
            keys = list(place) if isinstance(place, dict) else range(len(place))
            parent, key = place, draw(st.sampled_from(keys))
            place = parent[key]
            if draw(st.booleans()):
                break
        if key is None:
            return draw(JUNK)
        if draw(st.integers(0, 3)) == 0:
            del parent[key]
        else:
            parent[key] = draw(JUNK)
    return whole


@st.composite
def damaged(draw: st.DrawFn, good: bytes) -> bytes:
    """Draws bytes of which a few are others, or that are cut."""
    content = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)
