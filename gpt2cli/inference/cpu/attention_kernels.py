"""Causal attention on a CPU, compiled by Numba: of the newest positions, and of whole prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from gpt2cli.inference.cpu.kernels import SUMS, ZERO, softmax
from gpt2cli.inference.cpu.matmul_tiles import BLOCK, TILE_COLUMNS, TILE_ROWS, near_block, tile
from gpt2cli.inference.cpu.vectors import LANES
from gpt2cli.inference.cpu.weighted_sums import WIDTH, weighted_sums
from gpt2cli.runtime.numba import jit


@jit(parallel=True, fastmath=SUMS)
def attend_newest(mixed: Any, keys: Any, values: Any, seen: Any, starts: Any, found: Any) -> None:
    """Adds each text's newest positions to its keys and values, and attends to all before them.

    Args:
        mixed: float32 (positions, 3 * embed): queries, keys and values, text after text.
        keys: float32 (texts, heads, slots, padded head): a head's numbers, and zeros up to whole
            WIDTHs. Slots are at least as many as a block has columns.
        values: like keys.
        seen: int64 (texts,), how many positions each text has already.
        starts: int64 (texts + 1,), the begin of each text's rows of `mixed`, and the end of all.
        found: float32 (positions, embed), the result.
    """
    heads, head = keys.shape[1], found.shape[1] // keys.shape[1]
    for job in prange(len(seen) * heads):
        text, number = job // heads, job % heads
        rows, columns = (starts[text], starts[text + 1]), (number * head, (number + 1) * head)
        attend(
            mixed, keys[text, number], values[text, number], (*rows, *columns), seen[text], found
        )


@jit(fastmath=SUMS)
def attend(mixed: Any, keys: Any, values: Any, part: Any, seen: Any, found: Any) -> None:
    """The same for one text and one head; of the result their part is set.

    Args:
        mixed: as above.
        keys: float32 (slots, padded head), of the text and the head.
        values: like keys.
        part: the first and the end of the text's rows, and of the head's columns of the result.
        seen: the slot of the first row.
        found: as above.
    """
    begin, stop, first, end = part
    many, head, embed = stop - begin, end - first, found.shape[1]
    factor = np.float32(1 / np.sqrt(np.float32(head)))
    scores, queries, sums = (
        np.empty((many, max(seen + many, BLOCK)), np.float32),
        np.zeros((many, keys.shape[1]), np.float32),
        np.zeros((many, keys.shape[1]), np.float32),
    )
    for row in range(many):
        for place in range(head):
            queries[row, place] = mixed[begin + row, first + place] * factor
            keys[seen + row, place] = mixed[begin + row, embed + first + place]
            values[seen + row, place] = mixed[begin + row, 2 * embed + first + place]
    score(queries, keys, scores)
    for row in range(many):
        softmax(scores[row], seen + row + 1)
    for row in range(many):
        # All see what the first one does; beyond that each has an end of its own.
        rows, slots = (row, row + 1), (seen + 1, seen + row + 1)
        if row == 0:
            rows, slots = (0, many), (0, seen + 1)
        add_values(scores, values, rows, slots, sums)
    for row in range(many):
        for place in range(head):
            found[begin + row, first + place] = sums[row, place]


@jit()
def score(queries: Any, keys: Any, scores: Any) -> None:
    """Sets float32 (rows, slots) to the products of (rows, head) with the keys of the slots.

    They are at least as many as a block has columns: there may be nothing in the last ones yet.
    """
    many, slots = scores.shape
    for slot in range(0, slots, BLOCK):
        row = 0
        while row < many:
            row += near_block(queries, keys, (row, min(slot, slots - BLOCK)), (), scores)


@jit()
def add_values(shares: Any, values: Any, rows: Any, slots: Any, sums: Any) -> None:
    """Adds the values (slots, head) of some slots to some rows of (rows, head), by shares."""
    for place in range(0, sums.shape[1], WIDTH):
        row = rows[0]
        while row < rows[1]:
            row += weighted_sums(shares, values, (row, rows[1]), (*slots, place), sums)


@jit(parallel=True, fastmath=SUMS)
def attend_prompt(mixed: Any, keys: Any, values: Any, found: Any) -> None:
    """Lets each position of a prompt attend to those before it and to itself.

    Args:
        mixed: float32 (time, 3 * embed), of which the queries are taken; at least as many as a tile
            has rows.
        keys: float32 (heads, slots, padded head), of the prompt; a head has at least as many
            numbers as a tile has columns.
        values: like keys.
        found: float32 (time, embed), the result.
    """
    head = found.shape[1] // len(keys)
    for number in prange(len(keys)):
        columns = number * head, (number + 1) * head
        attend_head(mixed, keys[number], values[number], columns, found)


@jit(fastmath=SUMS)
def attend_head(mixed: Any, keys: Any, values: Any, columns: Any, found: Any) -> None:
    """The same for one head, by its columns; as many queries at a time as a tile has rows."""
    time, at, head = len(found), columns[0], columns[1] - columns[0]
    # Shares of positions that are not there are 0, and so must be what is multiplied by them.
    turned = np.zeros((2, head, whole(time)), np.float32)
    for slot in range(time):
        for place in range(head):
            turned[0, place, slot] = keys[slot, place]
            turned[1, place, slot] = values[slot, place]
    factor = np.float32(1 / np.sqrt(np.float32(head)))
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
