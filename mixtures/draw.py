"""Draws: which documents make a held-out set, and how often each is trained on, as one number a source.

A source is gone through in the order of a hash of seed and identifier, or in one that the recipe gives (`order`, equal
documents by the hash), again and again. How far is counted in ticks,
2**64 an epoch: a document of key `k` comes in its epoch `j` at tick `j * 2**64 + k`, one of factor 3 three times as
often, and it has been taken as often as it came before the source's end. So the end is all that a worker needs to
count its part's rows, two ends tell what lies between (a stage goes on where the one before stopped, and takes what was
taken least), and a larger target draws the same documents and more.

An end is settled exactly, without a sort of everything: one pass fills a histogram of the keys' top 12 bits, a second
one looks only into the bins at the end. What is drawn reaches the target and exceeds it by less than the last key's
documents (one, or one group of duplicates).

Held-out sets are whole groups of duplicates over all sources: all sources draw by one order, that of the groups, and a
group that any of them draws is out of training in all. Group and threshold settle it, so a part decides alone, but for
the groups between the lowest and the highest threshold (`claim_groups`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mixtures.conditions import Factors, Numbers
from mixtures.corpus import Counts, Keys, Mask, Rows, Sizes, num_threads, over_parts
from mixtures.recipe import FACTOR_STEPS

BIN_BITS = 12
BINS = 1 << BIN_BITS
EPOCH = 1 << 64
EVERYTHING = EPOCH - 1
_BIN_SHIFT = 64 - BIN_BITS


@dataclass(frozen=True)
class Candidates:
    """Rows that may be drawn: the number of their kind, key and tokens."""

    kind: Numbers
    key: Keys
    tokens: Sizes | Counts


@dataclass(frozen=True)
class Kinds:
    """The documents of one source and factor (in hundredths), all kinds that there are, by their source's number."""

    source: tuple[int, ...]
    factor: tuple[int, ...]

    @classmethod
    def plain(cls, sources: int) -> Kinds:
        """One kind a source, without factors."""
        return cls(tuple(range(sources)), (FACTOR_STEPS,) * sources)

    def of_source(self, source: int) -> list[int]:
        return [kind for kind, own in enumerate(self.source) if own == source]

    def ends(self, ticks: Sequence[int]) -> list[int]:
        """Where each kind stands on its own keys when its source stands at `ticks`."""
        return [_own_end(ticks[source], factor) for source, factor in zip(self.source, self.factor, strict=True)]

    def times(self, rows: Candidates, ticks: Sequence[int]) -> Counts:
        """int64[N]: how often each document has come before its source's end."""
        ends = self.ends(ticks)
        whole = np.array([end // EPOCH for end in ends], np.int64)
        rest = np.array([end % EPOCH for end in ends], np.uint64)
        times: Counts = whole[rows.kind] + (rows.key < rest[rows.kind])
        return times


def _own_end(ticks: int, factor: int) -> int:
    return -(-ticks * factor // FACTOR_STEPS)


def _source_tick(end: int, factor: int) -> int:
    """The first tick of the source at which a kind of that factor stands beyond `end - 1`."""
    return (end - 1) * FACTOR_STEPS // factor + 1


def number_kinds(parts: Sequence[tuple[Numbers, Factors | None]], sources: int) -> tuple[Kinds, list[Numbers]]:
    """The kinds that there are, and of each part the kind of each row, int32[N], by sources and factors."""
    if all(factor is None for _, factor in parts):
        return Kinds.plain(sources), [source for source, _ in parts]
    width = 1 << 16
    codes = [source * np.int64(width) + (FACTOR_STEPS if factor is None else factor) for source, factor in parts]
    known = np.unique(np.concatenate([np.empty(0, np.int64), *over_parts(np.unique, codes)]))
    kinds = Kinds(tuple((known // width).tolist()), tuple((known % width).tolist()))
    return kinds, [np.searchsorted(known, code).astype(np.int32) for code in codes]


def settle_ends(parts: Sequence[Candidates], kinds: Kinds, targets: Sequence[int]) -> list[int]:
    """For each source the first tick by which what came holds its target; one with a target has candidates."""
    return _settle_ends(parts, kinds, _histogram(parts, len(kinds.source)), targets)


def _settle_ends(parts: Sequence[Candidates], kinds: Kinds, reached: Counts, targets: Sequence[int]) -> list[int]:
    brackets = [_bracket(kinds, reached, source, target) for source, target in enumerate(targets)]
    low = [kinds_end >> _BIN_SHIFT for kinds_end in kinds.ends([lower for lower, _ in brackets])]
    high = [-(-kinds_end >> _BIN_SHIFT) for kinds_end in kinds.ends([upper for _, upper in brackets])]
    inside = over_parts(lambda rows: _come_between(rows, low, high), parts)
    kind, turn, key, tokens = (np.concatenate(columns) for columns in zip(*inside, strict=True)) if inside else _NOBODY
    ends = []
    for source, target in enumerate(targets):
        mine = kinds.of_source(source)
        here = np.isin(kind, mine)
        before = sum(_up_to_bin(reached[i], low[i]) for i in mine)
        coming = Coming(kind[here], turn[here], key[here], tokens[here])
        ends.append(_settle(kinds, coming, target - before) if target > 0 else 0)
    return ends


@dataclass(frozen=True)
class Coming:
    """Documents at the end of one source, once for each time that they come there: `turn` counts their epochs."""

    kind: Numbers
    turn: Counts
    key: Keys
    tokens: Counts


_NOBODY = (np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.uint64), np.empty(0, np.int64))


def _histogram(parts: Sequence[Candidates], count: int) -> Counts:
    """int64[kinds, BINS + 1]: tokens of each kind below each bin. A thread fills one of them, 32 KB a kind."""

    def fill(mine: Sequence[Candidates]) -> npt.NDArray[np.float64]:
        filled = np.zeros(count * BINS)
        for rows in mine:
            flat = rows.kind * np.int64(BINS) + (rows.key >> np.uint64(_BIN_SHIFT)).astype(np.int64)
            filled += np.bincount(flat, rows.tokens, count * BINS)
        return filled

    reached = np.zeros((count, BINS + 1), np.int64)
    threads = num_threads()
    for filled in over_parts(fill, [parts[i::threads] for i in range(threads)]):
        reached[:, 1:] += filled.reshape(count, BINS).astype(np.int64)
    return np.cumsum(reached, axis=1)


def _up_to_bin(reached: Counts, number: int) -> int:
    """Tokens of a kind that come before its bin `number`, counted on through the epochs."""
    return (number >> BIN_BITS) * int(reached[-1]) + int(reached[number % BINS])


def _bracket(kinds: Kinds, reached: Counts, source: int, target: int) -> tuple[int, int]:
    """Two ticks: up to the lower one there are too few tokens, up to the upper one enough, and few bins between."""
    mine = [(kinds.factor[i], reached[i]) for i in kinds.of_source(source)]

    def at_most(ticks: int) -> int:
        return sum(_up_to_bin(tokens, -(-_own_end(ticks, factor) >> _BIN_SHIFT)) for factor, tokens in mine)

    def at_least(ticks: int) -> int:
        return sum(_up_to_bin(tokens, _own_end(ticks, factor) >> _BIN_SHIFT) for factor, tokens in mine)

    if target <= 0:
        return 0, 0
    return max(_first(at_most, target) - 1, 0), _first(at_least, target)


def _first(tokens: Callable[[int], int], target: int) -> int:
    """The smallest tick at which `tokens`, which never falls, has reached the target."""
    high = EPOCH
    while tokens(high) < target:
        high *= 2
    low = 0
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if tokens(middle) >= target else (middle + 1, high)
    return low


def _come_between(rows: Candidates, low: Sequence[int], high: Sequence[int]) -> tuple[Numbers, Counts, Keys, Counts]:
    """Kind, turn, key and tokens of what comes in the bins from `low` up to `high` of its kind."""
    bins = (rows.key >> np.uint64(_BIN_SHIFT)).astype(np.int64)
    first = (np.array(low, np.int64)[rows.kind] - bins + BINS - 1) >> BIN_BITS
    after = (np.array(high, np.int64)[rows.kind] - bins + BINS - 1) >> BIN_BITS
    found = np.flatnonzero(after > first)
    often = (after - first)[found]
    row = np.repeat(found, often)
    turn = np.arange(len(row)) - np.repeat(np.cumsum(often) - often, often) + np.repeat(first[found], often)
    return rows.kind[row], turn, rows.key[row], rows.tokens[row].astype(np.int64)


def _settle(kinds: Kinds, coming: Coming, target: int) -> int:
    """The tick by which what is coming holds the target."""
    if len(set(coming.kind.tolist())) == 1:
        in_order = np.lexsort((coming.key, coming.turn))
        last = in_order[np.searchsorted(np.cumsum(coming.tokens[in_order]), target)]
        return _tick(kinds, int(coming.kind[last]), int(coming.turn[last]), int(coming.key[last]))
    ticks = [
        _tick(kinds, *row) for row in zip(coming.kind.tolist(), coming.turn.tolist(), coming.key.tolist(), strict=True)
    ]
    left = target
    for tick, tokens in sorted(zip(ticks, coming.tokens.tolist(), strict=True)):
        left -= tokens
        if left <= 0:
            return tick
    raise AssertionError("the upper tick holds the target")


def _tick(kinds: Kinds, kind: int, turn: int, key: int) -> int:
    """When a document of this kind and key comes for the time `turn`."""
    return _source_tick(turn * EPOCH + key + 1, kinds.factor[kind])


def settle_thresholds(parts: Sequence[Candidates], targets: Sequence[int]) -> list[int | None]:
    """For each source the smallest key up to which its candidates hold its target of tokens; their kinds are sources.

    None for a target of 0; EVERYTHING where all of them are too few.
    """
    reached = _histogram(parts, len(targets))
    there = reached[:, -1].tolist()
    ends = _settle_ends(
        parts,
        Kinds.plain(len(targets)),
        reached,
        [target if target <= all_tokens else 0 for target, all_tokens in zip(targets, there, strict=True)],
    )
    return [
        None if target <= 0 else EVERYTHING if target > all_tokens else end - 1
        for target, all_tokens, end in zip(targets, there, ends, strict=True)
    ]


def claim_groups(parts: Iterable[Rows], thresholds: Sequence[int | None]) -> Keys:
    """The groups of duplicates that one source draws for its held-out set, but another by its own threshold would not.

    uint64[G], sorted. A part needs nothing of another one to name its own, and merging them is a union: 8 bytes a group
    whose key lies between the lowest and the highest threshold (with equal shares next to none).
    """
    lowest = min((-1 if key is None else key for key in thresholds), default=-1)
    of_all = [None if lowest < 0 else lowest] * len(thresholds)

    def named(rows: Rows) -> Keys:
        mine = rows.grouped & is_drawn(rows, thresholds) & ~is_drawn(rows, of_all)
        return np.unique(rows.cluster[mine])

    return np.unique(np.concatenate([np.empty(0, np.uint64), *over_parts(named, parts)]))


def is_drawn(rows: Rows, thresholds: Sequence[int | None]) -> Mask:
    """bool[N]: whether a document is in its own source's held-out draw."""
    limits = np.array([0 if key is None else key for key in thresholds], np.uint64)[rows.source]
    drawn: Mask = rows.cluster <= limits
    if None in thresholds:
        drawn &= np.array([key is not None for key in thresholds], np.bool_)[rows.source]
    return drawn


def is_heldout(rows: Rows, thresholds: Sequence[int | None], claimed: Keys) -> Mask:
    """bool[N]: whether a document is never trained on: its source draws it, or any source draws one of its group."""
    heldout = is_drawn(rows, thresholds)
    if len(claimed):
        heldout |= rows.grouped & np.isin(rows.cluster, claimed)
    return heldout
