"""Causal attention on a CPU, compiled by Numba: of the newest positions, and of whole prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from gpt2cli.inference.cpu.kernels import SUMS, ZERO, softmax
from gpt2cli.inference.cpu.matmul_tiles import LANES, TILE_COLUMNS, TILE_ROWS, near_line, tile
from gpt2cli.inference.cpu.weighted_sums import WIDTH, weighted_sum
from gpt2cli.runtime.numba import jit


@jit(parallel=True, fastmath=SUMS)
def attend_newest(mixed: Any, keys: Any, values: Any, seen: Any, starts: Any, found: Any) -> None:
    """Adds each text's newest positions to its keys and values, and attends to all before them.

    Args:
        mixed: float32 (positions, 3 * embed): queries, keys and values, text after text.
        keys: float32 (texts, heads, slots, head).
        values: like keys.
        seen: int64 (texts,), how many positions each text has already.
        starts: int64 (texts + 1,), the begin of each text's rows of `mixed`, and the end of all.
        found: float32 (positions, embed), the result.
    """
    heads = values.shape[1]
    for job in prange(len(seen) * heads):
        text, number = job // heads, job % heads
        for row in range(starts[text], starts[text + 1]):
            slot = seen[text] + row - starts[text]
            attend(mixed, keys[text, number], values[text, number], (row, number, slot), found)


@jit(fastmath=SUMS)
def attend(mixed: Any, keys: Any, values: Any, job: Any, found: Any) -> None:
    """The same for one position and one head; of the result their part is set.

    Args:
        mixed: as above.
        keys: float32 (slots, head), of the position's text and the head.
        values: like keys.
        job: the position's row, the number of the head, and the position's slot.
        found: as above.
    """
    row, number, slot_of = job
    embed, head, end = found.shape[1], keys.shape[1], slot_of + 1
    first = number * head
    factor = np.float32(1 / np.sqrt(np.float32(head)))
    scores, query, sums = (
        np.empty((1, end), np.float32),
        np.empty((1, head), np.float32),
        np.zeros(head, np.float32),
    )
    for place in range(head):
        query[0, place] = mixed[row, first + place] * factor
        keys[slot_of, place] = mixed[row, embed + first + place]
        values[slot_of, place] = mixed[row, 2 * embed + first + place]
    score(query, keys, end, scores)
    softmax(scores[0], end)
    add_values(scores[0], values, end, sums)
    for place in range(head):
        found[row, first + place] = sums[place]


@jit(fastmath=SUMS)
def score(query: Any, keys: Any, end: Any, scores: Any) -> None:
    """Sets float32 (1, slots) to the products of (1, head) with the first `end` keys."""
    head = keys.shape[1]
    if end >= TILE_COLUMNS and head % LANES == 0:
        for slot in range(0, end, TILE_COLUMNS):
            near_line(query, keys, (0, min(slot, end - TILE_COLUMNS)), (), scores)
        return
    for slot in range(end):
        total = ZERO
        for place in range(head):
            total += query[0, place] * keys[slot, place]
        scores[0, slot] = total


@jit(fastmath=SUMS)
def add_values(shares: Any, values: Any, end: Any, sums: Any) -> None:
    """Adds up in float32 (head,), of zeros, the first `end` values (slots, head) by shares."""
    head = values.shape[1]
    if head % WIDTH == 0:
        for place in range(0, head, WIDTH):
            weighted_sum(shares, values, (end, place), sums)
        return
    for slot in range(end):
        for place in range(head):
            sums[place] += shares[slot] * values[slot, place]


@jit(parallel=True, fastmath=SUMS)
def attend_prompt(mixed: Any, keys: Any, values: Any, found: Any) -> None:
    """Lets each position of a prompt attend to those before it and to itself.

    Args:
        mixed: float32 (time, 3 * embed), of which the queries are taken; at least as many as a tile
            has rows.
        keys: float32 (heads, slots, head), of the prompt; a head has at least as many
            numbers as a tile has columns.
        values: like keys.
        found: float32 (time, embed), the result.
    """
    for number in prange(len(keys)):
        attend_head(mixed, number, keys[number], values[number], found)


@jit(fastmath=SUMS)
def attend_head(mixed: Any, number: Any, keys: Any, values: Any, found: Any) -> None:
    """The same for one head, by its number; as many queries at a time as a tile has rows."""
    time, head = len(found), keys.shape[1]
    # Shares of positions that are not there are 0, and so must be what is multiplied by them.
    turned = np.zeros((2, head, whole(time)), np.float32)
    for slot in range(time):
        for place in range(head):
            turned[0, place, slot] = keys[slot, place]
            turned[1, place, slot] = values[slot, place]
    factor, at = np.float32(1 / np.sqrt(np.float32(head))), number * head
    scores, queries = (
        np.empty((TILE_ROWS, whole(time)), np.float32),
        np.empty((TILE_ROWS, head), np.float32),
    )
    line = np.ones(head, np.float32), np.zeros(head, np.float32)
    for start in range(0, time, TILE_ROWS):
        # The last ones may have been among those before.
        first = min(start, time - TILE_ROWS)
        end = first + TILE_ROWS
        for row in range(TILE_ROWS):
            for place in range(head):
                queries[row, place] = mixed[first + row, at + place] * factor
        for row in range(0, TILE_ROWS, 2):
            pair_product(queries, row, turned[0], end, scores)
        for row in range(TILE_ROWS):
            softmax(scores[row, : whole(end)], first + row + 1)
        seen, there = turned[1, :, : whole(end)], found[first:, at:]
        for column in range(0, head, TILE_COLUMNS):
            tile(scores, seen, (0, min(column, head - TILE_COLUMNS)), line, there)


@jit()
def whole(count: Any) -> Any:
    """Returns `count`, rounded up to whole registers."""
    return (count + LANES - 1) // LANES * LANES


@jit(fastmath=SUMS)
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
