"""What a block's surroundings were judged to be: the numbers that the second judgement sees besides the first's.

A menu of twenty short lines and a list of twenty short facts look alike one by one; they differ in what stands around
them. Invariant: one row a block in the order of `CONTEXT_FEATURES`, from the page and the first probabilities alone.
The second judgement brings +0.014 word F1 for 0.4 ms (`benchmarks/LOG.md`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from sources.compiled import Scalar, kernel, part
from sources.pages.blocks import Blocks
from sources.pages.counting import M_HEADING
from sources.pages.scan import Scan

Array = npt.NDArray[Any]

_STEPS = (-3, -2, -1, 1, 2, 3)
_REACH = (3, 8, 20)
_LEVELS = 5
CONTEXT_FEATURES = (
    "probability",
    *(f"probability{step:+d}" for step in _STEPS),
    *(f"within_{reach}" for reach in _REACH),
    *(f"level{level}_{name}" for level in range(_LEVELS) for name in ("mean", "share")),
    "twins_mean", "twins", "mass_before", "mass_after", "page_mean", "page_mass", "best_before", "best_after",
    "heading_probability",
)  # fmt: skip


def add_context(scan: Scan, blocks: Blocks, probabilities: Array) -> Iterator[Array]:
    """The features of the blocks with those of their surroundings behind, in pieces (float32, [blocks, 262 + 31])."""
    context, begin = _find_context(scan, blocks, probabilities), 0
    for rows in blocks.features():
        yield np.concatenate([rows, context[begin : begin + len(rows)]], axis=1)
        begin += len(rows)


def _find_context(scan: Scan, blocks: Blocks, probabilities: Array) -> Array:
    size = len(blocks.words)
    context = np.empty((size, len(CONTEXT_FEATURES)), np.float32)
    if size:
        in_heading = scan.marks[scan.run_element[blocks.first_run]] & M_HEADING != 0
        slots = 1 << (2 * size).bit_length()
        _describe(
            probabilities, blocks.words, blocks.element, blocks.twin, in_heading,
            blocks.first_run, blocks.last_run, scan.parent, scan.first_run, scan.last_run,
            np.empty(len(scan.run_start) + 1, np.int32), np.zeros((size + 1, 2)), np.zeros(slots, np.int64),
            np.zeros((slots, 3)), context,
        )  # fmt: skip
    return context


@part
def _place_of(keys: Array, key: Scalar) -> Scalar:
    mask = len(keys) - 1
    place = (key ^ key >> 29) & mask
    while keys[place] != 0 and keys[place] != key:
        place = (place + 1) & mask
    keys[place] = key
    return place


@part
def _mean(sums: Array, first: Scalar, last: Scalar) -> Scalar:
    words = sums[last, 0] - sums[first, 0]
    return (sums[last, 1] - sums[first, 1]) / max(words, 1.0)


@kernel
def _describe(
    probabilities: Array,
    words: Array,
    element: Array,
    twin: Array,
    heading: Array,
    first: Array,
    last: Array,
    parents: Array,
    first_run: Array,
    last_run: Array,
    block_of: Array,
    sums: Array,
    keys: Array,
    twins: Array,
    rows: Array,
) -> None:
    size = len(words)
    for block in range(size):
        sums[block + 1, 0] = sums[block, 0] + words[block]
        sums[block + 1, 1] = sums[block, 1] + words[block] * probabilities[block]
        place = _place_of(keys, twin[block] | 1)
        twins[place, 0] += words[block]
        twins[place, 1] += words[block] * probabilities[block]
        twins[place, 2] += 1
        for run in range(first[block], last[block]):
            block_of[run] = block
    block_of[len(block_of) - 1] = size
    mass = max(sums[size, 1], 1e-9)
    page_mean = sums[size, 1] / max(sums[size, 0], 1.0)
    best, of_heading = 0.0, -1.0
    for block in range(size):
        row = rows[block]
        row[0] = probabilities[block]
        at = 1
        for step in _STEPS:
            row[at] = probabilities[block + step] if 0 <= block + step < size else -1
            at += 1
        for reach in _REACH:
            row[at] = _mean(sums, max(block - reach, 0), min(block + reach + 1, size))
            at += 1
        holder, held = element[block], -1.0
        for _ in range(_LEVELS):
            low, high = block_of[first_run[holder]], block_of[last_run[holder] - 1] + 1
            while parents[holder] >= 0 and sums[high, 0] - sums[low, 0] <= held:
                holder = parents[holder]
                low, high = block_of[first_run[holder]], block_of[last_run[holder] - 1] + 1
            held = sums[high, 0] - sums[low, 0]
            row[at] = _mean(sums, low, high)
            row[at + 1] = (sums[high, 1] - sums[low, 1]) / mass
            at += 2
        place = _place_of(keys, twin[block] | 1)
        best = max(best, probabilities[block])
        if heading[block]:
            of_heading = probabilities[block]
        row[at] = twins[place, 1] / max(twins[place, 0], 1.0)
        row[at + 1] = np.log1p(twins[place, 2])
        row[at + 2] = sums[block, 1] / mass
        row[at + 3] = (sums[size, 1] - sums[block + 1, 1]) / mass
        row[at + 4] = page_mean
        row[at + 5] = np.log1p(sums[size, 1])
        row[at + 6] = best
        row[at + 8] = of_heading
    best = 0.0
    for block in range(size - 1, -1, -1):
        best = max(best, probabilities[block])
        rows[block, at + 7] = best
