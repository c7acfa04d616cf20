"""Which windows of a length stand at another place too: one suffix array over pieces of text decides.

Invariant: every place stands in one piece only, and a window is compared with all of its equals, so what is found is
exact: how often the window stands, and whether this place is its first (by doc_id, then by place). Equal pieces are
collapsed before, so boilerplate in a million pages costs one piece and 40 bytes a page.

An array takes 22 bytes for each byte of distinct text and 0.2 s a megabyte. Text that would pass the memory given is
grouped by two 61-bit hashes of its windows instead, in as many passes as the memory asks for: windows that differ pass
for equal there with a chance of 2^-122.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.dedup.columns import identifier_halves, numbers, read_only, whole
from pipelines.dedup.compiled import compiled
from pipelines.dedup.shuffle import PLACE, parts_of, shuffled_schema
from pipelines.dedup.spans.anchors import PIECES
from pipelines.dedup.spans.parameters import SubstringConfig
from storage.schema import IDENTIFIER

Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int32]
Integers = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

RUNS = shuffled_schema(
    ("place", PLACE),
    ("first", pa.int64()),
    ("last", pa.int64()),
    ("is_first", pa.bool_()),
    ("occurrences", pa.int64()),
    ("at", pa.int64()),
    ("example", IDENTIFIER),
)
"""Windows in a row that stand elsewhere too, units first..last (exclusive) of the text. `range`: the place's part.

`is_first`: this place is the first of each of them. `occurrences`: of the window that has most, which starts at `at`;
`example`: a document that has that one: the first place's, or the second's where this is the first."""

ARRAY_BYTES = 22
"""Memory for each byte of text in an array: the text three times, the array and its inverse (8), what is found (9)."""
GROUP_BYTES = 64
"""Memory for each window in a pass: position, two hashes, their order, and numpy's copies while sorting."""
SEPARATOR = 0xFF
"""No UTF-8 has it, and no unit starts with it."""
_MOST_POSITIONS = (1 << 31) - 1
_MERSENNE = np.uint64((1 << 61) - 1)
_BASES = np.array([0x0B7E151628AED2A6, 0x13198A2E03707344], np.uint64)


def find_repeats(batches: Iterable[pa.Table], config: SubstringConfig, memory: int) -> pa.Table:
    """RUNS of all PIECES of a range, sorted by part; `memory` in bytes."""
    pieces = _collapse(batches, memory // 4)
    members = _rank_members(pieces)
    text = _lay_out(pieces, config)
    size = len(text.data)
    pieces_of = np.repeat(np.arange(len(pieces.texts), dtype=np.int32), np.diff(text.offsets))
    found = _Found(np.zeros(size, np.int32), pieces_of, np.zeros(size, np.bool_))
    for positions, same in _equal_windows(text, config, memory):
        given = (read_only(positions), read_only(same), members.lowest, members.second, members.counts)
        settle_groups(*given, found.occurrences, found.example, found.is_first)
    return _runs_table(pieces, members, text, found, config)


@dataclass(frozen=True)
class _Pieces:
    """Distinct pieces, `texts`, and their places: member i has the text texts[which[i]]."""

    texts: pa.Array
    which: Integers
    members: pa.Table


def _collapse(batches: Iterable[pa.Table], limit: int) -> _Pieces:
    """Equal pieces become one as they are read, so that no more than `limit` bytes of copies wait at a time."""
    waiting, size = [_distinct(PIECES.empty_table())], 0
    for batch in batches:
        waiting.append(_distinct(batch))
        size += waiting[-1].texts.nbytes
        if size > limit:
            waiting, size = [_merge(waiting)], 0
    return _merge(waiting)


def _distinct(batch: pa.Table) -> _Pieces:
    coded = whole(batch.column("units")).dictionary_encode()
    which = coded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return _Pieces(coded.dictionary, which, batch.select(["place", "doc_id", "first"]))


def _merge(several: list[_Pieces]) -> _Pieces:
    texts = pa.concat_arrays([pieces.texts for pieces in several]).dictionary_encode()
    starts = np.cumsum([0, *(len(pieces.texts) for pieces in several)])
    places = texts.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    which = [places[start + pieces.which] for start, pieces in zip(starts, several, strict=False)]
    members = pa.concat_tables([pieces.members for pieces in several])
    return _Pieces(texts.dictionary, np.concatenate(which), members)


@dataclass(frozen=True)
class _Members:
    """Of each distinct piece the ranks of its first two places (by doc_id, then by window) and how many it has.

    int64[pieces]; `order`: member of each rank. A piece with one place has the rank -1 as its second.
    """

    order: Integers
    lowest: Integers
    second: Integers
    counts: Integers


def _rank_members(pieces: _Pieces) -> _Members:
    high, low = identifier_halves(pieces.members.column("doc_id"))
    place, first = (numbers(pieces.members.column(name), np.int64) for name in ("place", "first"))
    order = np.lexsort((first, place, low, high))
    which, num_pieces = pieces.which[order], len(pieces.texts)
    grouped = np.argsort(which, kind="stable")
    counts = np.bincount(which, minlength=num_pieces)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])[:-1]
    behind = np.minimum(starts + 1, max(len(grouped) - 1, 0))
    second = np.where(counts > 1, grouped[behind], -1) if num_pieces else np.zeros(0, np.int64)
    lowest = grouped[starts]
    return _Members(order, read_only(lowest), read_only(second), read_only(counts))


@dataclass(frozen=True)
class _Text:
    """Pieces one after another: piece p is data[offsets[p] : offsets[p + 1]], a separator unit at its end."""

    data: Bytes
    offsets: Integers


def _lay_out(pieces: _Pieces, config: SubstringConfig) -> _Text:
    buffers = pieces.texts.buffers()
    ends = np.frombuffer(buffers[1], np.int64)[pieces.texts.offset :][: len(pieces.texts) + 1]
    data = np.frombuffer(buffers[2] or b"", np.uint8)
    offsets = ends - ends[0] + config.width * np.arange(len(ends))
    laid = lay_out(read_only(data), read_only(ends), read_only(offsets), config.width)
    return _Text(laid, read_only(offsets))


@compiled
def lay_out(data: Bytes, ends: Integers, offsets: Integers, width: int) -> Bytes:
    """The pieces with `width` separator bytes after each."""
    out = np.full(offsets[-1], SEPARATOR, np.uint8)
    for piece in range(len(ends) - 1):
        size = ends[piece + 1] - ends[piece]
        out[offsets[piece] : offsets[piece] + size] = data[ends[piece] : ends[piece + 1]]
    return out


def _equal_windows(text: _Text, config: SubstringConfig, memory: int) -> Iterator[tuple[Positions, Flags]]:
    """Positions of windows, equal ones side by side; the flag says that a window equals the one before it."""
    size = len(text.data)
    if size * ARRAY_BYTES <= memory and size < _MOST_POSITIONS:
        yield _sort_windows(text, config)
        return
    passes = 1 + size * GROUP_BYTES // memory
    for number in range(passes):
        yield _hash_windows(text, config, number, passes)


def _sort_windows(text: _Text, config: SubstringConfig) -> tuple[Positions, Flags]:
    """By the suffix array."""
    from pydivsufsort import divsufsort

    positions = divsufsort(text.data) if len(text.data) else np.zeros(0, np.int32)
    if config.width > 1:
        positions = positions[positions % config.width == 0]
    need = config.length * config.width
    same = equals_before(text.data, read_only(positions), need, config.width)
    positions = positions[is_whole(text.offsets, need, config.width)[positions]]
    return positions, same[positions]


@compiled
def is_whole(offsets: Integers, need: int, width: int) -> Flags:
    """bool[bytes]: whether a window of `need` bytes starts here and ends in its piece.

    No other suffix lies between two that begin with equal windows, so those that are left stand side by side.
    """
    whole = np.zeros(offsets[-1], np.bool_)
    for piece in range(len(offsets) - 1):
        for position in range(offsets[piece], offsets[piece + 1] - width - need + 1, width):
            whole[position] = True
    return whole


@compiled
def equals_before(data: Bytes, suffixes: Positions, need: int, width: int) -> Flags:
    """bool[bytes]: whether the suffix at a position shares `need` bytes with the one before it in the array.

    Kasai et al. 2001 over the permuted array (Kärkkäinen, Manzini, Puglisi 2009), cut off at `need`.
    """
    before = np.full(len(data), -1, np.int32)
    for i in range(1, len(suffixes)):
        before[suffixes[i]] = suffixes[i - 1]
    same = np.zeros(len(data), np.bool_)
    shared = 0
    for position in range(0, len(data), width):
        other = before[position]
        if other < 0:
            shared = 0
            continue
        most = min(need, len(data) - max(position, other))
        while shared < most and data[position + shared] == data[other + shared]:
            shared += 1
        same[position] = shared >= need
        shared = max(0, shared - width)
    return same


def _hash_windows(text: _Text, config: SubstringConfig, number: int, passes: int) -> tuple[Positions, Flags]:
    """By hashes: the windows of one pass, whose first hash says that it is theirs."""
    need = config.length * config.width
    positions, high, low = hash_windows(text.data, text.offsets, need, config.width, _BASES, number, passes)
    order = np.lexsort((low, high))
    positions, high, low = positions[order], high[order], low[order]
    same = np.zeros(len(order), np.bool_)
    same[1:] = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
    return positions, same


@compiled
def _times(a: np.uint64, b: np.uint64) -> np.uint64:
    """a * b mod 2^61 - 1, of numbers below 2^61."""
    half, quarter = np.uint64((1 << 31) - 1), np.uint64((1 << 30) - 1)
    a_high, a_low, b_high, b_low = a >> np.uint64(31), a & half, b >> np.uint64(31), b & half
    middle = a_low * b_high + a_high * b_low
    total = np.uint64(2) * a_high * b_high + a_low * b_low
    total += (middle >> np.uint64(30)) + ((middle & quarter) << np.uint64(31))
    total = (total >> np.uint64(61)) + (total & _MERSENNE)
    return total - _MERSENNE if total >= _MERSENNE else total


@compiled
def _leave_table(base: np.uint64, need: int) -> Hashes:
    """What each byte weighs when it leaves a window of `need` bytes, negated."""
    power = np.uint64(1)
    for _ in range(need):
        power = _times(power, base)
    table = np.empty(256, np.uint64)
    for byte in range(256):
        table[byte] = _MERSENNE - _times(np.uint64(byte + 1), power)
    return table


@compiled
def _push(value: np.uint64, base: np.uint64, byte: np.uint8) -> np.uint64:
    value = _times(value, base) + np.uint64(byte) + np.uint64(1)
    return value - _MERSENNE if value >= _MERSENNE else value


@compiled
def hash_windows(
    data: Bytes, offsets: Integers, need: int, width: int, bases: Hashes, number: int, passes: int
) -> tuple[Positions, Hashes, Hashes]:
    """(positions, two hashes) of the whole windows of all pieces whose first hash is `number` modulo `passes`."""
    first_leave, second_leave = _leave_table(bases[0], need), _leave_table(bases[1], need)
    room = 1024 + len(data) // (width * passes) * 5 // 4
    positions, high, low = np.empty(room, np.int32), np.empty(room, np.uint64), np.empty(room, np.uint64)
    found = 0
    for piece in range(len(offsets) - 1):
        start, end = offsets[piece], offsets[piece + 1] - width
        first, second = np.uint64(0), np.uint64(0)
        for i in range(start, end):
            first, second = _push(first, bases[0], data[i]), _push(second, bases[1], data[i])
            if i - start >= need:
                first = _reduce(first + first_leave[data[i - need]])
                second = _reduce(second + second_leave[data[i - need]])
            window = i + 1 - need
            if window < start or (window - start) % width or first % np.uint64(passes) != np.uint64(number):
                continue
            if found == len(positions):
                positions = np.concatenate((positions, np.empty_like(positions)))
                high, low = np.concatenate((high, np.empty_like(high))), np.concatenate((low, np.empty_like(low)))
            positions[found], high[found], low[found] = window, first, second
            found += 1
    return positions[:found], high[:found], low[:found]


@compiled
def _reduce(value: np.uint64) -> np.uint64:
    return value - _MERSENNE if value >= _MERSENNE else value


@dataclass(frozen=True)
class _Found:
    """Of each position of a text: how often its window stands (0: once), another place's rank, and whether the window
    is the first of its kind at the first place of its piece. Until a window is found, `example` is its piece."""

    occurrences: npt.NDArray[np.int32]
    example: npt.NDArray[np.int32]
    is_first: Flags


@compiled
def settle_groups(
    positions: Positions,
    same: Flags,
    lowest: Integers,
    second: Integers,
    counts: Integers,
    occurrences: npt.NDArray[np.int32],
    example: npt.NDArray[np.int32],
    is_first: Flags,
) -> None:
    """Write what is found of each group of equal windows that stand at two places or more."""
    start = 0
    while start < len(positions):
        stop = start + 1
        while stop < len(positions) and same[stop]:
            stop += 1
        if stop - start > 1 or counts[example[positions[start]]] > 1:
            _settle(positions[start:stop], lowest, second, counts, occurrences, example, is_first)
        start = stop


@compiled
def _settle(
    group: Positions,
    lowest: Integers,
    second: Integers,
    counts: Integers,
    occurrences: npt.NDArray[np.int32],
    example: npt.NDArray[np.int32],
    is_first: Flags,
) -> None:
    """The first place of a group's window, by (rank, position), the second, and how many there are."""
    largest = np.int64(1) << 62
    total, rank, place, next_rank, next_place = np.int64(0), largest, np.int64(0), largest, np.int64(0)
    for position in group:
        piece = example[position]
        total += counts[piece]
        low = lowest[piece]
        if low < rank or (low == rank and position < place):
            next_rank, next_place = rank, place
            rank, place = low, np.int64(position)
        elif low < next_rank or (low == next_rank and position < next_place):
            next_rank, next_place = low, np.int64(position)
    piece = example[place]
    if counts[piece] > 1 and second[piece] < next_rank:
        next_rank = second[piece]
    for position in group:
        occurrences[position] = total
        example[position] = rank
    example[place], is_first[place] = next_rank, True


def _runs_table(pieces: _Pieces, members: _Members, text: _Text, found: _Found, config: SubstringConfig) -> pa.Table:
    """RUNS of every member of every piece."""
    first = _list_runs(text, members, found, config, of_first=True)
    others = _list_runs(text, members, found, config, of_first=False)
    rank_of = np.empty(len(members.order), np.int64)
    rank_of[members.order] = np.arange(len(members.order))
    is_lowest = members.lowest[pieces.which] == rank_of if len(members.order) else np.zeros(0, np.bool_)
    both = [
        _expand(pieces, members, first, np.flatnonzero(is_lowest)),
        _expand(pieces, members, others, np.flatnonzero(~is_lowest)),
    ]
    return pa.concat_tables(both).sort_by([("place", "ascending"), ("first", "ascending")])


def _list_runs(text: _Text, members: _Members, found: _Found, config: SubstringConfig, *, of_first: bool) -> Integers:
    """int64[7, runs]: piece, first, last, is_first, occurrences, at, rank of the example."""
    skips = read_only(members.counts < (1 if of_first else 2))
    given = (text.offsets, config.length, config.width, skips, members.lowest)
    marks = (read_only(found.occurrences), read_only(found.example), read_only(found.is_first))
    runs = np.zeros((7, walk_runs(*given, *marks, of_first, np.zeros((7, 0), np.int64))), np.int64)
    walk_runs(*given, *marks, of_first, runs)
    return runs


@compiled
def walk_runs(
    offsets: Integers,
    length: int,
    width: int,
    skips: Flags,
    lowest: Integers,
    occurrences: npt.NDArray[np.int32],
    example: npt.NDArray[np.int32],
    is_first: Flags,
    of_first: bool,
    runs: Integers,
) -> int:
    """Write the runs of the pieces' first members, or of their others, as far as there is room; how many there are."""
    found = -1
    for piece in range(len(offsets) - 1):
        if skips[piece]:
            continue
        windows, state = (offsets[piece + 1] - offsets[piece]) // width - length, 0
        for window in range(windows):
            position = offsets[piece] + window * width
            before, state = state, 0
            if occurrences[position]:
                state = 2 if of_first and is_first[position] else 1
            if not state:
                continue
            if state != before:
                found += 1
            if found >= runs.shape[1]:
                continue
            if state != before:
                runs[0, found], runs[1, found], runs[3, found], runs[4, found] = piece, window, state == 2, 0
            runs[2, found] = window + length
            if occurrences[position] > runs[4, found]:
                runs[4, found], runs[5, found] = occurrences[position], window
                runs[6, found] = lowest[piece] if is_first[position] and not of_first else example[position]
    return found + 1


def _expand(pieces: _Pieces, members: _Members, runs: Integers, chosen: Integers) -> pa.Table:
    """RUNS of the chosen members, each with the runs of its piece."""
    starts = np.searchsorted(runs[0], np.arange(len(pieces.texts) + 1))
    number = np.diff(starts)[pieces.which[chosen]]
    member = np.repeat(chosen, number)
    within = np.arange(len(member)) - np.repeat(np.cumsum(number) - number, number)
    _, first, last, is_first, occurrences, at, rank = runs[:, starts[pieces.which[member]] + within]
    place, base = (numbers(pieces.members.column(name), np.int64)[member] for name in ("place", "first"))
    columns = [
        pa.array(parts_of(place).astype(np.uint32)),
        pa.array(place),
        *(pa.array(base + side) for side in (first, last)),
        pa.array(is_first.astype(np.bool_)),
        pa.array(occurrences),
        pa.array(base + at),
        whole(pieces.members.column("doc_id")).take(pa.array(members.order[rank])),
    ]
    return pa.table(columns, schema=RUNS)
