"""Anchors: how a corpus that fits no suffix array is cut into ranges that can be searched one by one.

**Method** (winnowing: Schleimer, Wilkerson, Aiken 2003). Of each window of `length` units the anchor is the k-gram
with the least hash, so equal windows have anchors of the same hash, wherever they stand. All windows whose anchor has a
given hash are looked at by the one task that has this hash in its range, text and all, and compared there unit by unit;
a window whose anchor's hash occurs once in the corpus occurs once itself (or overlaps its equal, which ties the
anchor), and its text is never fetched. So each window is decided exactly once, in full sight of all of its equals, and
the union over the ranges is what one array would find.

Consecutive windows share anchors, so an anchor stands for a run of windows: with k = length / 2 there are 2 anchors to
each length / 2 units (28 bytes each), and the text of a run that is fetched is 1.3 lengths: 5 bytes for each byte that
stands near an anchor seen twice. Where hashes tie, an anchor stays while it can, so one character over and over gives
one anchor to each length / 2 units, and pieces that are all equal.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.dedup.columns import numbers
from pipelines.dedup.compiled import compiled
from pipelines.dedup.shuffle import PLACE, groups_of, parts_of, places, ranges_of, rows_of, shuffled_schema
from pipelines.dedup.spans.parameters import SubstringConfig
from pipelines.dedup.spans.units import Units
from storage.schema import IDENTIFIER

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]

ANCHORS = shuffled_schema(
    ("key", pa.uint64()), ("place", PLACE), ("first", pa.uint32()), ("windows", pa.uint32()), ("is_tied", pa.bool_())
)
"""`first`: the first window of the run, in units; `windows`: how many there are; `is_tied`: the anchor's hash stands
twice within the run, so its windows may equal one another. `range`: of the key."""

WANTED = ANCHORS
"""ANCHORS that are tied, or whose key stands elsewhere too. `range`: their part."""

PIECES = shuffled_schema(("place", PLACE), ("doc_id", IDENTIFIER), ("first", pa.uint32()), ("units", pa.large_binary()))
"""The units of a run of windows, `first` the first. `range`: the group of the key."""

_BASE = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_LARGEST = np.uint64(0xFFFFFFFFFFFFFFFF)


def gram_length(config: SubstringConfig) -> int:
    """Units of the k-gram that anchors a window."""
    return max(1, config.length // 2)


def scatter_anchors(units: Units, part: int, first_row: int, config: SubstringConfig, num_ranges: int) -> pa.Table:
    """ANCHORS of a batch of texts that starts at row `first_row` of its part, sorted by range."""
    gram = gram_length(config)
    rows, keys, first, windows, tied = select_anchors(units.offsets, units.data, config.length, gram, units.width)
    ranges = ranges_of(keys, num_ranges)
    order = np.argsort(ranges, kind="stable")
    columns: list[npt.NDArray[Any]] = [ranges, keys, places(part, rows + first_row), first, windows, tied]
    arrays = [pa.array(column[order]).cast(kind.type) for column, kind in zip(columns, ANCHORS, strict=True)]
    return pa.table(arrays, schema=ANCHORS)


def estimate_anchors(num_units: int, config: SubstringConfig) -> int:
    """How many anchors so many units have, on average, from above."""
    return 1 + 2 * num_units // (config.length - gram_length(config) + 2)


def find_shared(anchors: pa.Table) -> pa.Table:
    """WANTED of one range of ANCHORS, sorted by part."""
    keys = numbers(anchors.column("key"), np.uint64)
    shared = _stand_twice(keys) | anchors.column("is_tied").to_numpy()
    found = anchors.filter(pa.array(shared))
    place = numbers(found.column("place"), np.int64)
    order = np.lexsort((numbers(found.column("first"), np.int64), place))
    found = found.take(pa.array(order))
    return found.set_column(0, WANTED.field("range"), pa.array(parts_of(place)[order].astype(np.uint32))).cast(WANTED)


def _stand_twice(keys: Hashes) -> npt.NDArray[np.bool_]:
    order = np.argsort(keys)
    same = keys[order][1:] == keys[order][:-1]
    shared = np.zeros(len(keys), np.bool_)
    shared[order[1:][same]] = True
    shared[order[:-1][same]] = True
    return shared


def units_wanted(wanted: pa.Table, config: SubstringConfig) -> int:
    """How many units the pieces of WANTED hold."""
    windows = int(numbers(wanted.column("windows"), np.int64).sum())
    return windows + len(wanted) * (config.length - 1)


def cut_pieces(
    units: Units, doc_ids: pa.Array, first_row: int, wanted: pa.Table, config: SubstringConfig, num_groups: int,
    low: int, high: int,
) -> pa.Table:  # fmt: skip
    """PIECES of the groups low..high (exclusive), of a batch of texts that starts at row `first_row`.

    `wanted` is its part's, sorted by place.
    """
    rows = rows_of(numbers(wanted.column("place"), np.int64))
    start, stop = np.searchsorted(rows, [first_row, first_row + len(doc_ids)])
    wanted, rows = wanted.slice(start, stop - start), rows[start:stop] - first_row
    groups = groups_of(numbers(wanted.column("key"), np.uint64).view(np.int64), num_groups)
    order = np.argsort(groups, kind="stable")
    order = order[slice(*np.searchsorted(groups[order], [low, high]))]
    rows, chosen = rows[order], wanted.take(pa.array(order))
    first, windows = numbers(chosen.column("first"), np.int64), numbers(chosen.column("windows"), np.int64)
    starts = units.offsets[rows] + first * units.width
    columns = [
        pa.array(groups[order]),
        chosen.column("place"),
        doc_ids.take(pa.array(rows)),
        chosen.column("first"),
        _slices(units.data, starts, starts + (windows + config.length - 1) * units.width),
    ]
    return pa.table(columns, schema=PIECES)


def whole_pieces(units: Units, doc_ids: pa.Array, part: int, first_row: int, config: SubstringConfig) -> pa.Table:
    """PIECES of a batch of texts, each text one piece; texts shorter than the length have none."""
    rows = np.flatnonzero(units.counts() >= config.length)
    columns = [
        pa.array(np.zeros(len(rows), np.uint32)),
        pa.array(places(part, rows + first_row)),
        doc_ids.take(pa.array(rows)),
        pa.array(np.zeros(len(rows), np.uint32)),
        _slices(units.data, units.offsets[rows], units.offsets[rows + 1]),
    ]
    return pa.table(columns, schema=PIECES)


def _slices(data: Bytes, starts: Integers, ends: Integers) -> pa.Array:
    """large_binary[n] of data[starts[i]:ends[i]]."""
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(ends - starts)])
    together = copy_slices(data, starts, ends, offsets)
    return pa.Array.from_buffers(pa.large_binary(), len(starts), [None, pa.py_buffer(offsets), pa.py_buffer(together)])


@compiled
def copy_slices(data: Bytes, starts: Integers, ends: Integers, offsets: Integers) -> Bytes:
    """The slices one after another, slice i at offsets[i]."""
    out = np.empty(offsets[-1], np.uint8)
    for i in range(len(starts)):
        out[offsets[i] : offsets[i + 1]] = data[starts[i] : ends[i]]
    return out


@compiled
def _finish(value: np.uint64) -> np.uint64:
    """The finaliser of SplitMix64: every input bit reaches every output bit."""
    value ^= value >> np.uint64(30)
    value *= _MIX_1
    value ^= value >> np.uint64(27)
    value *= _MIX_2
    return value ^ (value >> np.uint64(31))


@compiled
def _roll_in(rolling: np.uint64, data: Bytes, start: int, end: int) -> np.uint64:
    for i in range(start, end):
        rolling = rolling * _BASE + np.uint64(data[i]) + np.uint64(1)
    return rolling


@compiled
def _power(exponent: int) -> np.uint64:
    power = np.uint64(1)
    for _ in range(exponent):
        power *= _BASE
    return power


@compiled
def _least(ring: Hashes, first: int, last: int) -> int:
    """The last place in first..last with the least hash; place p's hash stands at ring[p % len(ring)]."""
    least, value, mask = first, _LARGEST, len(ring) - 1
    for place in range(first, last + 1):
        if ring[place & mask] <= value:
            least, value = place, ring[place & mask]
    return least


@compiled
def _roll(rolling: np.uint64, data: Bytes, entering: int, leaving: int, width: int, power: np.uint64) -> np.uint64:
    """The hash of the next k-gram: a unit enters, and, unless the place is negative, one leaves."""
    if width == 1 and leaving >= 0:
        left = (np.uint64(data[leaving]) + np.uint64(1)) * power
        return rolling * _BASE + np.uint64(data[entering]) + np.uint64(1) - left
    rolling = _roll_in(rolling, data, entering, entering + width)
    if leaving >= 0:
        left = _roll_in(np.uint64(0), data, leaving, leaving + width)
        rolling -= left * power
    return rolling


@compiled
def _select_in_text(
    data: Bytes,
    start: int,
    num_units: int,
    length: int,
    gram: int,
    width: int,
    ring: Hashes,
    found: int,
    keys: Hashes,
    firsts: Integers,
    windows: Integers,
    tied: Flags,
) -> int:
    """Write the anchors of one text from `found` on; the place after the last, negative where there is no room."""
    span, mask, power = length - gram + 1, len(ring) - 1, _power(gram * width)
    rolling = _roll_in(np.uint64(0), data, start, start + (gram - 1) * width)
    anchor = -1
    for place in range(num_units - gram + 1):
        leaving = start + (place - 1) * width if place else -1
        rolling = _roll(rolling, data, start + (place + gram - 1) * width, leaving, width, power)
        ring[place & mask] = _finish(rolling)
        window, before = place - span + 1, anchor
        if window < 0:
            continue
        if anchor < window:
            anchor = _least(ring, window, place)
        elif ring[place & mask] < ring[anchor & mask]:
            anchor = place
        elif ring[place & mask] == ring[anchor & mask]:
            tied[found - 1] = True
        if anchor != before:
            if found == len(keys):
                return -1
            keys[found] = _finish(ring[anchor & mask] ^ _BASE)
            firsts[found], windows[found], tied[found] = window, 0, False
            found += 1
        windows[found - 1] += 1
    return found


@compiled
def _grown(array: Integers) -> Integers:
    return np.concatenate((array, np.empty_like(array)))


@compiled
def select_anchors(
    offsets: Integers, data: Bytes, length: int, gram: int, width: int
) -> tuple[Integers, Hashes, Integers, Integers, Flags]:
    """(text, key, first window, windows, whether it is tied) of each anchor, in the order of texts and windows.

    Keys are not the hashes that are compared: the least of many would all lie in the lowest ranges.
    """
    span, size = length - gram + 1, 1
    while size < span:
        size *= 2
    ring = np.empty(size, np.uint64)
    expected = 16 + 3 * ((offsets[-1] - offsets[0]) // width) // span
    rows, keys = np.empty(expected, np.int64), np.empty(expected, np.uint64)
    firsts, windows = np.empty(expected, np.int64), np.empty(expected, np.int64)
    tied = np.empty(expected, np.bool_)
    found, text = 0, 0
    while text < len(offsets) - 1:
        num_units = (offsets[text + 1] - offsets[text]) // width
        after = found
        if num_units >= length:
            after = _select_in_text(
                data, offsets[text], num_units, length, gram, width, ring, found, keys, firsts, windows, tied
            )
        if after < 0:
            rows, firsts, windows = _grown(rows), _grown(firsts), _grown(windows)
            keys, tied = np.concatenate((keys, keys)), np.concatenate((tied, tied))
            continue
        rows[found:after] = text
        found, text = after, text + 1
    return rows[:found], keys[:found], firsts[:found], windows[:found], tied[:found]
