"""Which part of a text is held out to validate on: its last documents, or its tail."""

from __future__ import annotations

import numpy as np

from gpt2cli.text.batches import Tokens

# Whole documents are held out where they come within this factor of what was asked for.
TOLERANCE = 2.0


def training_length(tokens: Tokens, fraction: float, end_of_text: int) -> int:
    """Returns how many of a text's tokens are trained on; what follows them is held out.

    The place is the end of a document, the one that leaves most nearly the fraction, if that
    leaves half to twice the fraction; else it is where the fraction says. It depends on the text
    and the fraction alone.

    Args:
        tokens: uint16 (tokens,), each document followed by the end-of-text token.
        fraction: the share to hold out, 0 to 1.
        end_of_text: the token that follows each document.
    """
    length = len(tokens)
    wanted = fraction * length
    exact = length - round(wanted)
    if exact in (0, length):
        return exact
    first = max(length - int(wanted * TOLERANCE), 1)
    last = min(length - int(np.ceil(wanted / TOLERANCE)), length - 1)
    near = np.asarray(tokens[first - 1 : last])  # so that a border just before `first` counts
    ends = np.flatnonzero(near == end_of_text) + first
    if not len(ends):
        return exact
    return int(ends[np.argmin(np.abs(ends - exact))])
