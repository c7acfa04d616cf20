"""What of each document stands elsewhere too: RUNS of windows united to spans, in bytes of its text, row for row.

Invariant: spans are disjoint, ascending, and begin and end between characters; halves of characters at their ends are
left out. `surplus` is what can go so that, under `keep: first`, every window that stood twice still stands at its first
place: the spans of all other places, less what first places need. Under `keep: none` it is all spans.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.dedup.columns import numbers, read_only, string_buffers, whole
from pipelines.dedup.compiled import compiled
from pipelines.dedup.shuffle import rows_of
from pipelines.dedup.spans.parameters import Keep
from pipelines.dedup.spans.units import Units
from storage.schema import IDENTIFIER

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]

SPAN = pa.struct([("start", pa.int64()), ("end", pa.int64()), ("occurrences", pa.int64())])
SURPLUS = pa.struct([("start", pa.int64()), ("end", pa.int64())])
REPEATED = pa.struct(
    [
        pa.field("share", pa.float32(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("surplus_bytes", pa.int64(), nullable=False),
        pa.field("occurrences", pa.int64(), nullable=False),
        pa.field("example", IDENTIFIER),
        pa.field("spans", pa.list_(SPAN), nullable=False),
        pa.field("surplus", pa.list_(SURPLUS), nullable=False),
    ]
)
"""`share`: of the text's bytes, 0 to 1; `bytes`: in spans; `surplus_bytes`: of them, what can go; `occurrences`: of
what stands most often; `example`: a document that has that too. Spans are byte offsets, `end` exclusive."""


@dataclass(frozen=True)
class _Spans:
    """Disjoint spans by row and place, int64[n] each; `run`: the run whose window stands most often."""

    rows: Integers
    starts: Integers
    ends: Integers
    run: Integers


def measure_spans(texts: pa.Array, units: Units, runs: pa.Table, first_row: int, keep: Keep) -> pa.StructArray:
    """REPEATED of a batch of texts that starts at row `first_row`; `runs` are those of its part, by place and first."""
    places = rows_of(numbers(runs.column("place"), np.int64))
    low, high = np.searchsorted(places, [first_row, first_row + len(texts)])
    runs, rows = runs.slice(low, high - low), places[low:high] - first_row
    first, last = numbers(runs.column("first"), np.int64), numbers(runs.column("last"), np.int64)
    counts, at = numbers(runs.column("occurrences"), np.int64), numbers(runs.column("at"), np.int64)
    is_first = whole(runs.column("is_first")).to_numpy(zero_copy_only=False)
    spans = _Spans(*unite(read_only(rows), first, last, counts, at))
    surplus = spans if keep == "none" else _surplus(rows, first, last, counts, at, is_first)
    spans, surplus = (_in_bytes(found, texts, units) for found in (spans, surplus))
    return _column(texts, spans, surplus, counts, at, whole(runs.column("example")))


def _surplus(
    rows: Integers, first: Integers, last: Integers, counts: Integers, at: Integers, is_first: npt.NDArray[np.bool_]
) -> _Spans:
    sides: list[Integers] = []
    for chosen in (~is_first, is_first):
        sides += unite(*(read_only(column[chosen]) for column in (rows, first, last, counts, at)))[:3]
    kept = subtract(*(read_only(side) for side in sides))
    return _Spans(*kept, np.zeros(len(kept[0]), np.int64))


def _in_bytes(spans: _Spans, texts: pa.Array, units: Units) -> _Spans:
    offsets, data = string_buffers(texts)
    starts, ends = units.to_bytes(spans.rows, spans.starts, spans.ends)
    starts, ends = trim(offsets, data, read_only(spans.rows), read_only(starts), read_only(ends))
    there = ends > starts
    return _Spans(spans.rows[there], starts[there], ends[there], spans.run[there])


def _column(
    texts: pa.Array, spans: _Spans, surplus: _Spans, counts: Integers, at: Integers, examples: pa.Array
) -> pa.StructArray:
    lengths = np.diff(string_buffers(texts)[0])
    covered, removable = (_sum(found, len(texts)) for found in (spans, surplus))
    occurrences = counts[spans.run]
    order = np.lexsort((at[spans.run], -occurrences, spans.rows))
    rows, firsts = np.unique(spans.rows[order], return_index=True)
    best = np.full(len(texts), -1, np.int64)
    best[rows] = spans.run[order[firsts]]
    most = np.where(best >= 0, counts[np.maximum(best, 0)], 0) if len(counts) else np.zeros(len(texts), np.int64)
    columns = [
        pa.array((covered / np.maximum(lengths, 1)).astype(np.float32)),
        pa.array(covered),
        pa.array(removable),
        pa.array(most),
        examples.take(pa.array(best, mask=best < 0)),
        _lists(spans.rows, [spans.starts, spans.ends, occurrences], SPAN, len(texts)),
        _lists(surplus.rows, [surplus.starts, surplus.ends], SURPLUS, len(texts)),
    ]
    return pa.StructArray.from_arrays(columns, fields=list(REPEATED))


def _sum(spans: _Spans, count: int) -> Integers:
    return np.bincount(spans.rows, weights=spans.ends - spans.starts, minlength=count).astype(np.int64)


def _lists(rows: Integers, columns: list[Integers], kind: pa.StructType, count: int) -> pa.ListArray:
    offsets = np.searchsorted(rows, np.arange(count + 1)).astype(np.int32)
    values = pa.StructArray.from_arrays([pa.array(column) for column in columns], fields=list(kind))
    return pa.ListArray.from_arrays(pa.array(offsets), values)


@compiled
def unite(
    rows: Integers, firsts: Integers, lasts: Integers, counts: Integers, ats: Integers
) -> tuple[Integers, Integers, Integers, Integers]:
    """(row, start, end, run that stands most often, then that starts first) of each union of runs that touch."""
    out = np.empty((4, len(rows)), np.int64)
    found = -1
    for i in range(len(rows)):
        if found < 0 or rows[i] != out[0, found] or firsts[i] > out[2, found]:
            found += 1
            out[0, found], out[1, found], out[2, found], out[3, found] = rows[i], firsts[i], lasts[i], i
            continue
        out[2, found] = max(out[2, found], lasts[i])
        best = out[3, found]
        if (-counts[i], ats[i]) < (-counts[best], ats[best]):
            out[3, found] = i
    found += 1
    return out[0, :found].copy(), out[1, :found].copy(), out[2, :found].copy(), out[3, :found].copy()


@compiled
def subtract(
    rows: Integers, starts: Integers, ends: Integers, less_rows: Integers, less_starts: Integers, less_ends: Integers
) -> tuple[Integers, Integers, Integers]:
    """What of disjoint ascending spans is in none of others: (row, start, end)."""
    out = np.empty((3, len(rows) + len(less_rows)), np.int64)
    found, other = 0, 0
    for i in range(len(rows)):
        start = starts[i]
        while other < len(less_rows) and (less_rows[other], less_ends[other]) <= (rows[i], start):
            other += 1
        j = other
        while j < len(less_rows) and less_rows[j] == rows[i] and less_starts[j] < ends[i]:
            if less_starts[j] > start:
                out[0, found], out[1, found], out[2, found] = rows[i], start, less_starts[j]
                found += 1
            start = max(start, less_ends[j])
            j += 1
        if start < ends[i]:
            out[0, found], out[1, found], out[2, found] = rows[i], start, ends[i]
            found += 1
    return out[0, :found].copy(), out[1, :found].copy(), out[2, :found].copy()


@compiled
def trim(offsets: Integers, data: Bytes, rows: Integers, starts: Integers, ends: Integers) -> tuple[Integers, Integers]:
    """The spans without the halves of characters at their ends."""
    new_starts, new_ends = starts.copy(), ends.copy()
    for i in range(len(rows)):
        base, length = offsets[rows[i]], offsets[rows[i] + 1] - offsets[rows[i]]
        while new_starts[i] < new_ends[i] and data[base + new_starts[i]] & 0xC0 == 0x80:
            new_starts[i] += 1
        while new_ends[i] > new_starts[i] and new_ends[i] < length and data[base + new_ends[i]] & 0xC0 == 0x80:
            new_ends[i] -= 1
    return new_starts, new_ends
