"""The filters once more, in NumPy and double precision, a row at a time by sorting and looping."""

from __future__ import annotations

from typing import Any

import numpy as np

Row = np.ndarray[Any, np.dtype[np.float64]]


def shares(logits: Row) -> Row:
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())


def filtered(logits: Any, history: list[int], **settings: Any) -> Row:
    """Returns a row of logits after every filter that is set; -inf is removed."""
    row = np.asarray(logits, np.float64) / settings.get("temperature", 1.0)
    row[list(settings.get("ends", ()))] = -np.inf
    row = penalised(row, history, settings.get("repetition_penalty", 1.0))
    row[repeats(history, settings.get("no_repeat_ngram_size", 0))] = -np.inf
    if k := settings.get("top_k", 0):
        row[row < np.sort(row)[-k]] = -np.inf
    if p := settings.get("top_p", 0.0):
        keep(row, np.argsort(-row, kind="stable"), p)
    if p := settings.get("min_p", 0.0):
        row[shares(row) < p * shares(row).max()] = -np.inf
    if (p := settings.get("typical_p", 1.0)) < 1:
        chances = shares(row)
        with np.errstate(divide="ignore", invalid="ignore"):
            surprise = -np.log(chances)
            expected = np.nansum(chances * surprise)
        keep(row, np.argsort(np.abs(surprise - expected), kind="stable"), p)
    return row


def keep(row: Row, order: Any, mass: float) -> None:
    """Removes what comes, in that order, after the probability has been reached."""
    reached = np.cumsum(shares(row)[order])
    row[order[int(np.searchsorted(reached, mass)) + 1 :]] = -np.inf


def penalised(row: Row, history: list[int], penalty: float) -> Row:
    row = row.copy()
    for token in set(history):
        row[token] = row[token] * penalty if row[token] < 0 else row[token] / penalty
    return row


def repeats(history: list[int], size: int) -> list[int]:
    """Returns the tokens that would end a run of `size` tokens that the history has."""
    if not size:
        return []
    runs = [tuple(history[at : at + size]) for at in range(len(history) - size + 1)]
    newest = tuple(history[len(history) - size + 1 :]) if size > 1 else ()
    return [run[-1] for run in runs if run[:-1] == newest]


def drawn(logits: Row, uniform: float) -> int:
    """Returns the token in whose stretch of the cumulative sum the number falls."""
    return int(np.searchsorted(np.cumsum(shares(logits)), uniform, side="right"))
