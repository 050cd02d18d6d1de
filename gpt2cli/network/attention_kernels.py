"""Causal attention on a CPU, compiled by Numba: of the newest positions, and of whole prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from gpt2cli.native import compiled
from gpt2cli.network.kernels import SUMS, TILE_COLUMNS, TILE_ROWS, ZERO, softmax, tile


@compiled(parallel=True, fastmath=SUMS)
def attend_newest(mixed: Any, keys: Any, values: Any, seen: Any, found: Any) -> None:
    """Adds each text's newest position to its keys and values, and attends to all of them.

    Args:
        mixed: float32 (texts, 3 * embed): queries, keys and values of the newest positions.
        keys: float32 (texts, heads, slots, head).
        values: like keys.
        seen: int64 (texts,), how many positions each text has already.
        found: float32 (texts, embed), the result.
    """
    texts, heads = values.shape[:2]
    for job in prange(texts * heads):
        text, number = job // heads, job % heads
        pair = keys[text, number], values[text, number]
        attend(mixed[text], number, pair, seen[text] + 1, found[text])


@compiled(fastmath=SUMS)
def attend(mixed: Any, number: Any, pair: Any, end: Any, found: Any) -> None:
    """The same for one text and one head, by its number.

    Args:
        mixed: float32 (3 * embed,).
        number: the head.
        pair: float32 (slots, head) twice: the head's keys and values.
        end: how many positions there are with the newest.
        found: float32 (embed,), of which the head's part is set.
    """
    keys, values = pair
    embed, head, first = len(found), keys.shape[1], number * keys.shape[1]
    scale = np.float32(1 / np.sqrt(np.float32(head)))
    scores, query, sums = (
        np.empty(end, np.float32),
        np.empty(head, np.float32),
        np.empty(head, np.float32),
    )
    for place in range(head):
        query[place] = mixed[first + place] * scale
        keys[end - 1, place] = mixed[embed + first + place]
        values[end - 1, place] = mixed[2 * embed + first + place]
        sums[place] = ZERO
    for slot in range(end):
        total = ZERO
        for place in range(head):
            total += query[place] * keys[slot, place]
        scores[slot] = total
    softmax(scores, end)
    for slot in range(end):
        share = scores[slot]
        for place in range(head):
            sums[place] += share * values[slot, place]
    for place in range(head):
        found[first + place] = sums[place]


@compiled(parallel=True, fastmath=SUMS)
def attend_prompt(mixed: Any, keys: Any, values: Any, found: Any) -> None:
    """Lets each position of a prompt attend to those before it and to itself.

    Args:
        mixed: float32 (time, 3 * embed), of which the queries are taken; at least 4 positions.
        keys: float32 (heads, slots, head), of the prompt; a head has at least 5.
        values: like keys.
        found: float32 (time, embed), the result.
    """
    for number in prange(len(keys)):
        attend_head(mixed, number, keys[number], values[number], found)


@compiled(fastmath=SUMS)
def attend_head(mixed: Any, number: Any, keys: Any, values: Any, found: Any) -> None:
    """The same for one head, by its number; four queries at a time."""
    time, head = len(found), keys.shape[1]
    turned = np.empty((2, head, time), np.float32)
    for slot in range(time):
        for place in range(head):
            turned[0, place, slot] = keys[slot, place]
            turned[1, place, slot] = values[slot, place]
    scale, at = np.float32(1 / np.sqrt(np.float32(head))), number * head
    scores, queries = (
        np.empty((TILE_ROWS, time), np.float32),
        np.empty((TILE_ROWS, head), np.float32),
    )
    for start in range(0, time, TILE_ROWS):
        # The last four may have been among those before.
        first = min(start, time - TILE_ROWS)
        end = first + TILE_ROWS
        for row in range(TILE_ROWS):
            for place in range(head):
                queries[row, place] = mixed[first + row, at + place] * scale
        pair_product(queries, 0, turned[0], end, scores)
        pair_product(queries, 2, turned[0], end, scores)
        for row in range(TILE_ROWS):
            softmax(scores[row, :end], first + row + 1)
        for column in range(0, head, TILE_COLUMNS):
            place = min(column, head - TILE_COLUMNS)
            tile(
                scores, 0, turned[1, place : place + TILE_COLUMNS], end, found[first:, at + place :]
            )


@compiled(fastmath=SUMS)
def pair_product(left: Any, row: Any, right: Any, end: Any, found: Any) -> None:
    """Sets rows `row` and `row + 1` of found, up to `end`: those of left times right.

    Args:
        left: float32 (rows, depth).
        row: the first of two rows.
        right: float32 (depth, columns).
        end: how many columns are wanted.
        found: float32 (rows, columns).
    """
    depth, next_row = left.shape[1], row + 1
    found[row, :end], found[next_row, :end] = ZERO, ZERO
    fours = depth - depth % 4
    for k in range(0, fours, 4):
        a0, a1, a2, a3 = left[row, k], left[row, k + 1], left[row, k + 2], left[row, k + 3]
        b0, b1 = left[next_row, k], left[next_row, k + 1]
        b2, b3 = left[next_row, k + 2], left[next_row, k + 3]
        for place in range(end):
            c0, c1 = right[k, place], right[k + 1, place]
            c2, c3 = right[k + 2, place], right[k + 3, place]
            found[row, place] += a0 * c0 + a1 * c1 + a2 * c2 + a3 * c3
            found[next_row, place] += b0 * c0 + b1 * c1 + b2 * c2 + b3 * c3
    for k in range(fours, depth):
        for place in range(end):
            found[row, place] += left[row, k] * right[k, place]
            found[next_row, place] += left[next_row, k] * right[k, place]
