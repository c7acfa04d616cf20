"""Best-fit packing against a plain implementation of the paper's algorithm."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtures.packing import expected_cuts, fit_best, pack_documents

LENGTHS = st.lists(st.integers(1, 70), max_size=60)


def plainly(sizes: list[int], capacity: int) -> Counter[int]:
    """Best-fit decreasing, a piece at a time: how many bins have how much room left."""
    rooms: list[int] = []
    for size in sorted(sizes, reverse=True):
        fitting = [room for room in rooms if room >= size]
        if fitting:
            rooms[rooms.index(min(fitting))] -= size
        else:
            rooms.append(capacity - size)
    return Counter(rooms)


@settings(max_examples=200, deadline=None)
@given(sizes=st.lists(st.integers(1, 40), max_size=80), capacity=st.integers(40, 64))
def test_the_bins_are_those_of_best_fit_decreasing(sizes: list[int], capacity: int) -> None:
    placed = fit_best(np.array(sizes, np.int64), capacity)
    filled = np.bincount(placed, weights=sizes).astype(int) if sizes else np.empty(0, int)
    assert Counter((capacity - filled).tolist()) == plainly(sizes, capacity)


@settings(max_examples=100, deadline=None)
@given(lengths=LENGTHS, length=st.integers(1, 50))
def test_every_token_stands_once_and_only_long_documents_are_cut(lengths: list[int], length: int) -> None:
    packed = pack_documents(np.array(lengths, np.int64), length)
    spots: Counter[tuple[int, int]] = Counter()
    tokens: Counter[tuple[int, int]] = Counter()
    for sequence, offset, document, first, count in zip(
        packed.sequence, packed.offset, packed.document, packed.first, packed.tokens, strict=True
    ):
        spots.update((int(sequence), int(offset) + i) for i in range(count))
        tokens.update((int(document), int(first) + i) for i in range(count))
    assert set(spots.values()) | set(tokens.values()) <= {1}
    assert len(tokens) == sum(lengths) and all(0 <= spot < length for _, spot in spots)
    assert packed.num_sequences * length - len(spots) == packed.padding
    assert packed.cut_documents == sum(size > length for size in lengths)
    ends = dict(zip(packed.sequence.tolist(), (packed.offset + packed.tokens).tolist(), strict=True))
    assert all((sequence, spot) in spots for sequence, end in ends.items() for spot in range(end)), "no holes"


def test_a_piece_larger_than_a_bin_is_refused() -> None:
    with pytest.raises(ValueError, match="do not go into 5"):
        fit_best(np.array([3, 6]), 5)


def test_expected_cuts_are_those_of_random_cuts() -> None:
    draw = np.random.default_rng(1)
    lengths = draw.integers(1, 150, 5_000)
    found = []
    for phase in range(0, 100, 7):
        ends = np.cumsum(lengths) + phase
        found.append(np.sum((ends - 1) // 100 != (ends - lengths) // 100))
    assert expected_cuts(lengths, 100) == pytest.approx(np.mean(found), rel=0.02)
