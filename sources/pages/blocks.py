"""Runs of text to blocks, and their features piece by piece.

A block is the text between two line-breaking tags. Invariant: each run belongs to exactly one block, and a block's
features are the same wherever the pieces are cut. Memory: 100 bytes a block and as many a run; the features of all
blocks at once would take 1 KB a block, 9 GB for a page of 10 MB that is made for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sources.pages.counting import B_WORDS, N_SUMS, STATS, count_blocks
from sources.pages.elements import BLOCK_BREAK, Elements
from sources.pages.features import FEATURES, N_STATE, PAGE_FEATURES, Found, Parts, describe, survey
from sources.pages.names import FLAGS, TEXT_TABLE
from sources.pages.scan import NOTE_TITLE, Scan

Array = npt.NDArray[Any]
_MAX_TITLE_WORDS = 64
PIECE_BLOCKS = 4096
"""Blocks whose features are held at once, 4 MB: a page of 10 MiB may have 2.6 million blocks."""


class _Page(NamedTuple):
    """All that the features of a block are made of; `row` has the PAGE_FEATURES."""

    tree: Elements
    parts: Parts
    found: Found
    row: Array

    def describe(self, begin: int, state: Array) -> Array:
        """The features of a piece that begins at a block; `state` is what stands before it, and moves on."""
        features = np.zeros((min(len(self.parts.first) - begin, PIECE_BLOCKS), len(FEATURES)), np.float32)
        if len(features):
            describe(self.tree, self.parts, self.found, self.row, state, begin, features)
        return features


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks in order: `first_run` to `last_run` of the scan, the element that holds them, words, template.

    `words` counts as extraction is measured: runs of letters and digits, each Chinese character for itself. `page` is
    the row of PAGE_FEATURES (float32).
    """

    first_run: Array
    last_run: Array
    element: Array
    words: Array
    twin: Array
    page: Array
    _seen: _Page
    _begun: Array
    _state: Array

    def features(self) -> Iterator[Array]:
        """The blocks' features in order, in pieces of PIECE_BLOCKS (float32, [blocks, len(FEATURES)]).

        Those of the first piece, nearly always the only one, are kept; others are found anew each time.
        """
        yield self._begun
        state = self._state.copy()
        for begin in range(PIECE_BLOCKS, len(self.words), PIECE_BLOCKS):
            yield self._seen.describe(begin, state)


def find_blocks(scan: Scan) -> Blocks:
    """The blocks of a page."""
    parts = _count(scan, *_cut(scan))
    seen, state = _look_around(scan, parts)
    found, begun = seen.found, seen.describe(0, state)
    words = parts.stats[:, B_WORDS].copy()
    return Blocks(parts.first, parts.last, found.element, words, found.twin, seen.row, seen, begun, state)


def _cut(scan: Scan) -> tuple[Array, Array]:
    """First and last run of each block."""
    starts = np.flatnonzero((scan.run_break & 7) >= BLOCK_BREAK)
    if len(scan.run_break) and (not len(starts) or starts[0]):
        starts = np.concatenate([[0], starts])
    first = starts.astype(np.int32)
    return first, np.append(first[1:], len(scan.run_start)).astype(np.int32) if len(first) else first


def _count(scan: Scan, first: Array, last: Array) -> Parts:
    stats, hashes = np.zeros((len(first), len(STATS)), np.int32), np.empty(len(first), np.uint64)
    sums = np.zeros((len(scan.run_start) + 1, N_SUMS), np.int32)
    titles = scan.notes[scan.notes[:, 0] == NOTE_TITLE]
    title_start, title_end = (int(titles[0, 1]), int(titles[0, 2])) if len(titles) else (0, 0)
    count_blocks(
        np.frombuffer(scan.source, np.uint8), scan.run_start, scan.run_end, scan.run_element, scan.run_kind, scan.marks,
        first, last, TEXT_TABLE.keys, TEXT_TABLE.values, np.zeros(_MAX_TITLE_WORDS, np.uint64), title_start,
        min(title_end, title_start + 1000), stats, hashes, sums,
    )  # fmt: skip
    return Parts(first, last, scan.run_element, stats, hashes, sums)


def _look_around(scan: Scan, parts: Parts) -> tuple[_Page, Array]:
    """What can be told by a look at all blocks and elements, and the state before the first block."""
    tree = Elements(
        scan.tag, scan.parent, scan.marks, scan.words, scan.above, scan.signature, scan.first_run, scan.last_run
    )
    elements, size = len(tree.tag), len(parts.first)
    found = Found(
        np.zeros(elements, np.int16), np.zeros(elements, np.int32), np.zeros(size, np.int32), np.empty(size, np.int32),
        np.empty(size, np.int64),
    )  # fmt: skip
    row, state = np.zeros(len(PAGE_FEATURES), np.float32), np.zeros(N_STATE, np.int64)
    slots = 1 << (2 * max(elements, size, 4)).bit_length()
    if size:
        survey(tree, parts, FLAGS, found, np.zeros(slots, np.uint64), np.zeros(slots, np.int32), state, row)
    return _Page(tree, parts, found, row), state
