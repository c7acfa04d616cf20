"""Draws against a plain sort: the smallest set of lowest keys that reaches the target, in any cut of the input."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mixtures.corpus import Rows
from mixtures.draw import EVERYTHING, Candidates, claim_groups, is_drawn, is_heldout, settle_thresholds

KEYS = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 5), st.integers(2**52 - 3, 2**52 + 3))
ROWS = st.lists(st.tuples(st.integers(0, 2), KEYS, st.integers(1, 1000)), max_size=60)


def expected(rows: list[tuple[int, int, int]], source: int, target: int) -> int | None:
    reached = 0
    for key, tokens in sorted((key, tokens) for own, key, tokens in rows if own == source):
        reached += tokens
        if reached >= target > 0:
            return key
    return EVERYTHING if target > 0 else None


@given(rows=ROWS, targets=st.lists(st.integers(0, 20_000), min_size=3, max_size=3), cut=st.integers(0, 60))
def test_the_threshold_is_that_of_a_sort(rows: list[tuple[int, int, int]], targets: list[int], cut: int) -> None:
    parts = [
        Candidates(
            np.array([row[0] for row in piece], np.int32),
            np.array([row[1] for row in piece], np.uint64),
            np.array([row[2] for row in piece], np.int64),
        )
        for piece in (rows[:cut], rows[cut:])
    ]
    assert settle_thresholds(parts, targets) == [expected(rows, i, target) for i, target in enumerate(targets)]


GROUPED = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12), st.integers(1, 9)), max_size=60)


def rows_of(members: list[tuple[int, int, int]], sizes: dict[int, int]) -> Rows:
    """Documents as (source, group, tokens): a group's number is its place in the draw."""
    source, group, tokens = (np.array([member[i] for member in members], np.int64) for i in range(3))
    none = np.zeros(len(members), np.int64)
    return Rows(
        source=source.astype(np.int32),
        order=none.astype(np.uint64),
        cluster=group.astype(np.uint64) << np.uint64(58),
        grouped=np.array([sizes[member[1]] > 1 for member in members], np.bool_),
        tokens=tokens.astype(np.int32),
        bytes=none.astype(np.int32),
    )


@given(members=GROUPED, targets=st.lists(st.integers(0, 120), min_size=3, max_size=3), cut=st.integers(0, 60))
def test_a_group_that_any_source_draws_is_out_of_training_in_all(
    members: list[tuple[int, int, int]], targets: list[int], cut: int
) -> None:
    """Against the definition: each source draws whole groups in their order; what one draws, all hold out."""
    sizes = {group: sum(other == group for _, other, _ in members) for _, group, _ in members}
    drawn = set()
    for source, target in enumerate(targets):
        reached = 0
        for group in sorted({group for own, group, _ in members if own == source}):
            if reached < target:
                drawn.add((source, group))
            reached += sum(tokens for own, other, tokens in members if (own, other) == (source, group))
    parts = [rows_of(piece, sizes) for piece in (members[:cut], members[cut:])]
    candidates = [Candidates(rows.source, rows.cluster, rows.tokens) for rows in parts]
    thresholds = settle_thresholds(candidates, targets)
    claimed = claim_groups(parts, thresholds)
    own = np.concatenate([is_drawn(rows, thresholds) for rows in parts]).tolist()
    heldout = np.concatenate([is_heldout(rows, thresholds, claimed) for rows in parts]).tolist()
    assert own == [(source, group) in drawn for source, group, _ in members]
    assert heldout == [group in {other for _, other in drawn} for _, group, _ in members]
    contested = {group for _, group in drawn} - {
        g for g in sizes if all(t is not None and g << 58 <= t for t in thresholds)
    }
    assert {int(key) >> 58 for key in claimed} == {group for group in contested if sizes[group] > 1}
