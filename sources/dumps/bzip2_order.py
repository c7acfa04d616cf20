"""The bytes of a bzip2 block from their sorted order back into their own, and its runs written out, compiled.

Sorted bytes are a ring of jumps through 3.6 MB, each of which waits for memory. Every 256th entry begins an arc of the
ring; sixteen arcs are followed at once, so that their waits overlap, and put together by where each one ended. Any
bytes may come in: a ring that holds no such entry is one arc. 3 ns a byte, where one jump after the other takes 20.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sources.compiled import Scalar, kernel, part, piece

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]
Chain = NDArray[np.uint32]

LANES, QUARTERS = 16, 4
SUM = 4
_ARC_BITS = 8
_ARC_MASK = np.uint32((1 << _ARC_BITS) - 1)
_LANE, _FROM, _TO, _NEXT = 0, 1, 2, 3
_COUNTED = 4
_AT, _PREVIOUS, _RUN, _REPEATS = 0, 1, 2, 3


def arc_rows(size: int) -> int:
    """Arcs of a block of `size` bytes: that of its first byte, and those that begin at every 256th entry."""
    return 2 + (size - 1 >> _ARC_BITS)


def lane_bytes(size: int) -> int:
    """Room of a lane: one arc may be nearly the whole ring, and begin after the lane's share of all others."""
    return size + size // LANES + LANES


def _checksum_table() -> Chain:
    """CRC-32 as bzip2 has it, highest bit first; row k is for a byte that k others follow."""
    table = np.zeros((8, 256), np.uint32)
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = (value << 1 & 0xFFFFFFFF) ^ (0x04C11DB7 if value >> 31 else 0)
        table[0, byte] = value
    for k in range(1, 8):
        for byte in range(256):
            value = int(table[k - 1, byte])
            table[k, byte] = (value << 8 & 0xFFFFFFFF) ^ int(table[0, value >> 24])
    return table


_CRC = _checksum_table()


@kernel
def restore_order(
    block: Bytes, length: int, origin: int, chain: Chain, places: Numbers, arcs: Numbers, lanes: Bytes, cursors: Chain,
    state: Numbers,
) -> None:  # fmt: skip
    """The first `length` bytes of the block, in place; `origin` is the entry of the first one."""
    _link(block, length, chain, places)
    _follow(chain, length, origin, arcs, lanes, cursors, state)
    _join(arcs, lanes, block, length)


@part
def _link(block: Bytes, length: int, chain: Chain, places: Numbers) -> None:
    """An entry is a byte, and above it where the one after it is.

    The block's quarters have places of their own: the next place of a byte waits for its last one, and bytes repeat.
    """
    quarter = length // QUARTERS
    places[:] = 0
    for i in range(quarter):
        for k in range(QUARTERS):
            places[k, block[k * quarter + i]] += 1
    for i in range(QUARTERS * quarter, length):
        places[QUARTERS - 1, block[i]] += 1
    total = 0
    for byte in range(256):
        for k in range(QUARTERS):
            total, places[k, byte] = total + places[k, byte], total
    for i in range(quarter):
        for k in range(QUARTERS):
            _link_byte(block, k * quarter + i, chain, places[k])
    for i in range(QUARTERS * quarter, length):
        _link_byte(block, i, chain, places[QUARTERS - 1])


@piece
def _link_byte(block: Bytes, i: int, chain: Chain, places: Numbers) -> None:
    byte = block[i]
    at = places[byte]
    places[byte] = at + 1
    chain[at] = np.uint32(i << 8) | np.uint32(byte)


@part
def _follow(
    chain: Chain, length: int, origin: int, arcs: Numbers, lanes: Bytes, cursors: Chain, state: Numbers
) -> None:
    """Each arc's bytes into the lane that it has in its turn, up to the entry that begins another one."""
    begun = active = row = 0
    count = 2 + (length - 1 >> _ARC_BITS)
    for lane in range(LANES):
        cursors[lane] = 0
        begun = _begin_arc(arcs, cursors, state, lane, begun, count, origin, 0)
        active += state[lane] >= 0
    while active and row < lanes.shape[1]:
        met = False
        for lane in range(LANES):
            entry = chain[cursors[lane]]
            lanes[lane, row] = entry & np.uint32(255)
            cursors[lane] = entry >> np.uint32(8)
            met |= cursors[lane] & _ARC_MASK == 0
        row += 1
        if met:
            for lane in range(LANES):
                if state[lane] >= 0 and cursors[lane] & _ARC_MASK == 0:
                    _end_arc(arcs, cursors, state, lane, row)
                    begun = _begin_arc(arcs, cursors, state, lane, begun, count, origin, row)
                    active -= state[lane] < 0
    for lane in range(LANES):
        if state[lane] >= 0:
            _end_arc(arcs, cursors, state, lane, row)


@part
def _begin_arc(
    arcs: Numbers, cursors: Chain, state: Numbers, lane: int, begun: int, count: int, origin: int, row: int
) -> int:
    """The next arc in a lane, if there is one more; a lane without one goes on to follow the ring, and is not read."""
    if begun == count:
        state[lane] = -1
        return begun
    state[lane] = begun
    cursors[lane] = (begun - 1) << _ARC_BITS if begun else origin
    arcs[begun, _LANE] = lane
    arcs[begun, _FROM] = row
    return begun + 1


@part
def _end_arc(arcs: Numbers, cursors: Chain, state: Numbers, lane: int, row: int) -> None:
    arc = state[lane]
    arcs[arc, _TO] = row
    arcs[arc, _NEXT] = 1 + (np.int64(cursors[lane]) >> _ARC_BITS)


@part
def _join(arcs: Numbers, lanes: Bytes, out: Bytes, length: int) -> None:
    n = arc = 0
    while n < length:
        first = arcs[arc, _FROM]
        size = min(arcs[arc, _TO] - first, length - n)
        _copy(lanes[arcs[arc, _LANE], first : first + size], out[n : n + size])
        n += size
        arc = arcs[arc, _NEXT]


@piece
def _copy(data: Bytes, out: Bytes) -> None:
    for i in range(len(out)):
        out[i] = data[i]


@kernel
def expand_runs(plain: Bytes, length: int, out: Bytes, size: int, state: Numbers) -> tuple[int, bool]:
    """Bytes written to `out`, and whether the block is at its end: four equal bytes are followed by a count of more."""
    if not state[_AT] and not state[_RUN]:
        state[SUM] = 0xFFFFFFFF
        state[_PREVIOUS] = -1
    n = 0
    while n < size:
        if state[_REPEATS]:
            count = min(state[_REPEATS], size - n)
            out[n : n + count] = state[_PREVIOUS]
            state[_REPEATS] -= count
            n += count
        elif state[_AT] == length:
            break
        elif state[_RUN] == _COUNTED:
            state[_REPEATS] = plain[state[_AT]]
            state[_AT] += 1
            state[_RUN] = 0
        else:
            count = min(length - state[_AT], size - n)
            n += _copy_to_run(plain[state[_AT] : state[_AT] + count], out[n : n + count], state)
    state[SUM] = _add_checksum(out, n, state[SUM])
    return n, state[_AT] == length and not state[_REPEATS]


@part
def _copy_to_run(data: Bytes, out: Bytes, state: Numbers) -> int:
    """Copy bytes until four are equal; how many were copied."""
    previous, run = state[_PREVIOUS], state[_RUN]
    n = 0
    for i in range(len(out)):
        byte = np.int64(data[i])
        out[i] = byte
        run = run + 1 if byte == previous else 1
        previous = byte
        n = i + 1
        if run == _COUNTED:
            break
    state[_PREVIOUS], state[_RUN] = previous, run
    state[_AT] += n
    return n


@part
def _add_checksum(out: Bytes, size: int, value: Scalar) -> Scalar:
    """The CRC-32 after `size` more bytes, eight at a step."""
    i = 0
    while i + 8 <= size:
        value ^= np.int64(out[i]) << 24 | np.int64(out[i + 1]) << 16 | np.int64(out[i + 2]) << 8 | np.int64(out[i + 3])
        value = (
            np.int64(_CRC[7, value >> 24 & 255])
            ^ np.int64(_CRC[6, value >> 16 & 255])
            ^ np.int64(_CRC[5, value >> 8 & 255])
            ^ np.int64(_CRC[4, value & 255])
            ^ np.int64(_CRC[3, out[i + 4]])
            ^ np.int64(_CRC[2, out[i + 5]])
            ^ np.int64(_CRC[1, out[i + 6]])
            ^ np.int64(_CRC[0, out[i + 7]])
        )
        i += 8
    while i < size:
        value = (value << 8 & 0xFFFFFFFF) ^ np.int64(_CRC[0, (value >> 24 ^ np.int64(out[i])) & 255])
        i += 1
    return value
