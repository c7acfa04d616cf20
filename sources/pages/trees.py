"""Gradient-boosted trees as data: read from JSON, applied in one kernel; training them is `benchmarks`' business.

Invariant: the same sums, in the same order, on every machine: a probability never depends on batch or thread.

Each tree is laid out as a complete one of `DEPTH` levels, absent nodes sending everything left, so that no step waits
for a child's place or mispredicts an end, and four rows descend side by side, so that one's wait is another's step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sources.compiled import kernel

Array = npt.NDArray[Any]
DEPTH = 6
_NODES, _LEAVES = (1 << DEPTH) - 1, 1 << DEPTH
_TOGETHER = 16
"""Trees that pass over a row one after the other: 8 KB of nodes, which stay in the nearest cache."""


@dataclass(frozen=True, slots=True)
class Forest:
    """Node n of a tree sends a row to 2n + 1 where its feature is at most the threshold, else to 2n + 2.

    `feature` and `threshold` are [trees, 63], `value` is [trees, 64], `groups` says which output a tree adds to.
    """

    feature: Array
    threshold: Array
    value: Array
    groups: Array
    outputs: int

    def scores(self, features: Array) -> Array:
        """Sums of leaves (float64, [rows, outputs])."""
        found = np.zeros((len(features), self.outputs))
        _sum_leaves(np.ascontiguousarray(features), self.feature, self.threshold, self.value, self.groups, found)
        return found

    def probabilities(self, features: Array) -> Array:
        """Of the one output (float64, [rows])."""
        return np.asarray(1.0 / (1.0 + np.exp(-self.scores(features)[:, 0])))


def read_forest(path: Path, name: str) -> Forest:
    """The forest called `name` of a weights file."""
    return forest_of(json.loads(path.read_text())[name])


def forest_of(columns: Mapping[str, Any]) -> Forest:
    """The forest of columns `feature, threshold, left, right` (by node) and `value` (by leaf), trees end to end.

    `roots` holds each tree's first node; a child that is a leaf is -1 - leaf. Raises ValueError for deeper trees.
    """
    trees = len(columns["roots"])
    feature, value = np.zeros((trees, _NODES), np.int32), np.zeros((trees, _LEAVES))
    threshold = np.full((trees, _NODES), np.inf, np.float32)

    def place(tree: int, node: int, at: int, level: int) -> None:
        if node < 0:
            value[tree, (at + 1 << DEPTH - level) - _LEAVES] = columns["value"][-1 - node]
            return
        if level == DEPTH:
            raise ValueError(f"a tree of the weights is deeper than {DEPTH}")
        feature[tree, at], threshold[tree, at] = columns["feature"][node], columns["threshold"][node]
        place(tree, columns["left"][node], 2 * at + 1, level + 1)
        place(tree, columns["right"][node], 2 * at + 2, level + 1)

    for tree, root in enumerate(columns["roots"]):
        place(tree, root, 0, 0)
    return Forest(feature, threshold, value, np.array(columns["groups"], np.int32), columns["outputs"])


@kernel
def _sum_leaves(rows: Array, feature: Array, threshold: Array, value: Array, groups: Array, found: Array) -> None:
    last = len(rows) - 1
    for begin in range(0, len(feature), _TOGETHER):
        for row in range(0, len(rows), 4):
            second, third, fourth = min(row + 1, last), min(row + 2, last), min(row + 3, last)
            for tree in range(begin, min(begin + _TOGETHER, len(feature))):
                a, b, c, d = 0, 0, 0, 0
                for _level in range(DEPTH):
                    a = 2 * a + 1 + (rows[row, feature[tree, a]] > threshold[tree, a])
                    b = 2 * b + 1 + (rows[second, feature[tree, b]] > threshold[tree, b])
                    c = 2 * c + 1 + (rows[third, feature[tree, c]] > threshold[tree, c])
                    d = 2 * d + 1 + (rows[fourth, feature[tree, d]] > threshold[tree, d])
                group = groups[tree]
                found[row, group] += value[tree, a - _NODES]
                if row + 1 <= last:
                    found[second, group] += value[tree, b - _NODES]
                if row + 2 <= last:
                    found[third, group] += value[tree, c - _NODES]
                if row + 3 <= last:
                    found[fourth, group] += value[tree, d - _NODES]
