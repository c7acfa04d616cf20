"""The blocks of a bzip2 stream, compiled: found, read, their bytes put in order (how and why: `bzip2.py`).

Any bytes may come in: no place outside the arrays is read or written, and what is no block gives a negative number.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sources.compiled import Scalar, kernel, part, piece

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]
Chains = NDArray[np.uint32]

LANES = 8
BLOCK_MAGIC = 0x314159265359
END_MAGIC = 0x177245385090
TABLE_BITS = 11
SELECTORS = 18_002
LENGTH, _ORIGIN, CHECKSUM = 0, 1, 2
SUM = 4
_MAX_LENGTH = 20
_FRONT = 8
"""Bytes used last are held in one number, the first of them lowest: nine in ten symbols mean one of these."""
_TRUNCATED, _DAMAGED = -1, -2
_AT, _PREVIOUS, _RUN, _REPEATS = 0, 1, 2, 3


def _checksum_table() -> Chains:
    """CRC-32 as bzip2 has it, highest bit first; row k is for a byte that k others follow."""
    table = np.zeros((4, 256), np.uint32)
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = (value << 1 & 0xFFFFFFFF) ^ (0x04C11DB7 if value >> 31 else 0)
        table[0, byte] = value
    for k in range(1, 4):
        for byte in range(256):
            value = int(table[k - 1, byte])
            table[k, byte] = (value << 8 & 0xFFFFFFFF) ^ int(table[0, value >> 24])
    return table


_CRC = _checksum_table()
_SECOND_BYTE = np.zeros(256, np.uint8)
_SECOND_BYTE[[magic >> (32 + shift) & 255 for magic in (BLOCK_MAGIC, END_MAGIC) for shift in range(8)]] = 1
"""Whether a magic that begins in the byte before, at any of its bits, has this byte."""


@kernel
def bits_at(data: Bytes, bit: int, count: int) -> Scalar:
    value: Scalar = 0
    for i in range(bit, bit + count):
        value = value << 1 | (np.int64(data[i >> 3]) >> (7 - (i & 7)) & 1)
    return value


@kernel
def find_magic(data: Bytes, bit: int) -> int:
    """The next place at or after `bit` where a block or the end of the stream begins, -1 if none is there."""
    size = len(data)
    for i in range((bit >> 3) + 1, size):
        if not _SECOND_BYTE[data[i]]:
            continue
        window: Scalar = 0
        for k in range(i - 1, i + 6):
            window = window << 8 | (np.int64(data[k]) if k < size else 0)
        for shift in range(8):
            found = window >> (8 - shift) & ((1 << 48) - 1)
            at = (i - 1) * 8 + shift
            if (found == BLOCK_MAGIC or found == END_MAGIC) and at >= bit and at + 48 <= size * 8:
                return at
    return -1


@kernel
def read_block(
    data: Bytes, bit: int, ahead: Chains, back: Chains, sorted_bytes: Bytes, facts: Numbers, tables: NDArray[np.int32],
    scratch: Numbers,
) -> int:  # fmt: skip
    """The bit after a block whose magic ends at `bit`: its chains, length, origin and checksum; negative if it is none.

    An entry of `ahead` is a byte and above it where the one after it is, an entry of `back` where the one before it is.

    `scratch` holds selectors, then 1,024 numbers each: the order of bytes, counts, and the code's limits.
    """
    size = len(data) * 8
    if bit + 32 + 25 + 16 > size:
        return _TRUNCATED
    facts[CHECKSUM] = _read(data, bit, 32)
    if _read(data, bit + 32, 1):
        return _DAMAGED
    origin = _read(data, bit + 33, 24)
    bit += 57
    order = scratch[SELECTORS : SELECTORS + 1024]
    symbols = 0
    used = _read(data, bit, 16)
    bit += 16
    for i in range(16):
        if used >> (15 - i) & 1:
            if bit + 16 > size:
                return _TRUNCATED
            row = _read(data, bit, 16)
            bit += 16
            for k in range(16):
                if row >> (15 - k) & 1:
                    order[symbols] = i * 16 + k
                    symbols += 1
    if symbols == 0 or bit + 18 > size:
        return _DAMAGED
    groups = _read(data, bit, 3)
    selectors = _read(data, bit + 3, 15)
    bit += 18
    if groups < 2 or groups > 6 or selectors == 0:
        return _DAMAGED
    bit = _read_selectors(data, bit, size, groups, selectors, scratch)
    if bit < 0:
        return bit
    limits = scratch[SELECTORS + 2048 :]
    for group in range(groups):
        bit = _read_code(data, bit, size, symbols + 2, tables[group], limits[group * 512 : group * 512 + 512])
        if bit < 0:
            return bit
    counts = scratch[SELECTORS + 1024 : SELECTORS + 2048]
    bit = _read_symbols(
        data, bit, symbols, min(selectors, 18_002), tables, scratch, order, counts, limits, sorted_bytes, facts
    )
    if bit < 0:
        return bit
    length = facts[LENGTH]
    if bit > size or origin >= length:
        return _DAMAGED
    total = 0
    for i in range(256):
        total, counts[i] = total + counts[i], total
    for i in range(length):
        byte = np.uint32(sorted_bytes[i])
        at = counts[byte]
        counts[byte] = at + 1
        ahead[at] = np.uint32(i << 8) | byte
        back[i] = np.uint32(at << 8) | byte
    facts[_ORIGIN] = origin
    return bit


@part
def _read(data: Bytes, bit: int, count: int) -> Scalar:
    """`count` bits, 32 at most, that must be there."""
    value: Scalar = 0
    for i in range(bit >> 3, (bit + count + 7) >> 3):
        value = value << 8 | np.int64(data[i])
    end = (bit + count) & 7
    return value >> (0 if end == 0 else 8 - end) & ((1 << count) - 1)


@part
def _read_selectors(data: Bytes, bit: int, size: int, groups: int, selectors: int, scratch: Numbers) -> int:
    """Which code each group of fifty symbols has, into `scratch`; more than there can be are passed over."""
    first = 0x543210
    for k in range(selectors):
        rank = 0
        while True:
            if bit >= size:
                return _TRUNCATED
            one = _read(data, bit, 1)
            bit += 1
            if not one:
                break
            rank += 1
            if rank >= groups:
                return _DAMAGED
        chosen = first >> (4 * rank) & 15
        below = first & ((1 << (4 * rank)) - 1)
        first = (first >> (4 * rank + 4) << (4 * rank + 4)) | below << 4 | chosen
        if k < SELECTORS:
            scratch[k] = chosen
    return bit


@part
def _read_code(data: Bytes, bit: int, size: int, symbols: int, table: NDArray[np.int32], limits: Numbers) -> int:
    """A canonical code, its lengths read twice: a table for its first 11 bits, and for longer ones `limits`.

    `limits`: 0–31 the first code of each length, 32–63 where its symbols begin, 64–95 their number, 128–… the
    symbols by code.
    """
    if bit + 5 > size:
        return _TRUNCATED
    length = _read(data, bit, 5)
    bit += 5
    limits[:96] = 0
    table[:] = 0
    start = bit
    for _ in range(symbols):
        while True:
            if bit + 2 > size:
                return _TRUNCATED
            if length < 1 or length > _MAX_LENGTH:
                return _DAMAGED
            if not _read(data, bit, 1):
                bit += 1
                break
            length += -1 if _read(data, bit + 1, 1) else 1
            bit += 2
        limits[64 + length] += 1
    end = bit
    code = coded = 0
    for k in range(1, _MAX_LENGTH + 1):
        limits[k] = code
        limits[32 + k] = coded
        coded += limits[64 + k]
        code = (code + limits[64 + k]) << 1
        limits[64 + k] = 0
    bit = start
    length = _read(data, start - 5, 5)
    for symbol in range(symbols):
        while _read(data, bit, 1):
            length += -1 if _read(data, bit + 1, 1) else 1
            bit += 2
        bit += 1
        number = limits[64 + length]
        limits[64 + length] += 1
        limits[128 + limits[32 + length] + number] = symbol
        if length <= TABLE_BITS:
            value = limits[length] + number
            if value >> length:
                return _DAMAGED
            first = value << (TABLE_BITS - length)
            for k in range(first, first + (1 << (TABLE_BITS - length))):
                table[k] = symbol << 5 | length
    return end


@part
def _read_symbols(
    data: Bytes, bit: int, symbols: int, selectors: int, tables: NDArray[np.int32], scratch: Numbers, order: Numbers,
    counts: Numbers, limits: Numbers, sorted_bytes: Bytes, facts: Numbers,
) -> Scalar:  # fmt: skip
    """The block's bytes in their sorted order; how often each is there, into `counts`."""
    counts[:256] = 0
    at, size = bit >> 3, len(data)
    if at >= size:
        return _TRUNCATED
    held = 8 - (bit & 7)
    window: Scalar = np.int64(data[at]) & ((1 << held) - 1)
    at += 1
    n = run = 0
    weight = 1
    length: Scalar = 0
    symbol: Scalar = 0
    byte: Scalar = 0
    front: Scalar = 0
    for i in range(_FRONT):
        front |= order[i] << (8 * i)
    last = symbols + 1
    capacity = len(sorted_bytes)
    for k in range(selectors):
        group = scratch[k]
        for _ in range(50):
            if held < _MAX_LENGTH:
                window = window << 32 | _four_bytes(data, at, size)
                at += 4
                held += 32
            entry = np.int64(tables[group, window >> (held - TABLE_BITS)])
            if entry:
                length = entry & 31
                symbol = entry >> 5
            else:
                length = TABLE_BITS + 1
                symbol = -1
                while length <= _MAX_LENGTH:
                    offset = (window >> (held - length)) - limits[group * 512 + length]
                    if 0 <= offset < limits[group * 512 + 64 + length]:
                        symbol = limits[group * 512 + 128 + limits[group * 512 + 32 + length] + offset]
                        break
                    length += 1
                if symbol < 0:
                    return _DAMAGED
            held -= length
            window &= (1 << held) - 1
            if symbol <= 1:
                run += weight << symbol
                weight <<= 1
                if run > capacity:
                    return _DAMAGED
                continue
            if run:
                if n + run > capacity:
                    return _DAMAGED
                byte = front & 255
                counts[byte] += run
                for i in range(n, n + run):
                    sorted_bytes[i] = byte
                n += run
                run = 0
                weight = 1
            if symbol == last:
                facts[LENGTH] = n
                return at * 8 - held
            if n == capacity:
                return _DAMAGED
            if symbol <= _FRONT:
                shift = 8 * (symbol - 1)
                byte = front >> shift & 255
                front = front >> shift >> 8 << 8 << shift | (front & ((1 << shift) - 1)) << 8 | byte
            else:
                rank = symbol - 1
                byte = order[rank]
                while rank > _FRONT:
                    order[rank] = order[rank - 1]
                    rank -= 1
                order[_FRONT] = front >> 56 & 255
                front = front << 8 | byte
            counts[byte] += 1
            sorted_bytes[n] = byte
            n += 1
    return _DAMAGED


@piece
def _four_bytes(data: Bytes, at: int, size: int) -> Scalar:
    """The next 32 bits; behind the end there are zeros."""
    value: Scalar = 0
    for i in range(at, at + 4):
        value = value << 8 | (np.int64(data[i]) if i < size else 0)
    return value


@kernel
def follow_chains(
    ahead: Chains, back: Chains, plain: NDArray[np.uint8], facts: Numbers, lanes: int, ends: NDArray[np.uint32]
) -> None:
    """Each lane's bytes in their order, from both ends to the middle; `ends` has two places a lane.

    All lanes go on to the middle of the longest: a chain is a ring, and what is written outside of a block (below
    its first byte: at the end of its row) is not read.
    """
    longest = 0
    for lane in range(lanes):
        longest = max(longest, facts[lane, LENGTH])
        ends[lane, 0] = ends[lane, 1] = facts[lane, _ORIGIN]
    for i in range((longest + 1) // 2):
        for lane in range(lanes):
            entry = ahead[lane, ends[lane, 0]]
            plain[lane, i] = entry & np.uint32(255)
            ends[lane, 0] = entry >> np.uint32(8)
            entry = back[lane, ends[lane, 1]]
            plain[lane, facts[lane, LENGTH] - 1 - i] = entry & np.uint32(255)
            ends[lane, 1] = entry >> np.uint32(8)


@kernel
def expand_runs(plain: Bytes, length: int, out: Bytes, size: int, state: Numbers) -> tuple[int, bool]:
    """Bytes written to `out`, and whether the block is at its end: four equal bytes are followed by a count of more."""
    if not state[_AT] and not state[_RUN]:
        state[SUM] = 0xFFFFFFFF
        state[_PREVIOUS] = -1
    at, previous, run, repeats = state[_AT], state[_PREVIOUS], state[_RUN], state[_REPEATS]
    n = 0
    while n < size:
        if repeats:
            count = min(repeats, size - n)
            for i in range(n, n + count):
                out[i] = previous
            n += count
            repeats -= count
            continue
        if at == length:
            break
        byte = np.int64(plain[at])
        at += 1
        if run == 4:
            repeats = byte
            run = 0
            continue
        run = run + 1 if byte == previous and run else 1
        previous = byte
        out[n] = byte
        n += 1
    state[_AT], state[_PREVIOUS], state[_RUN], state[_REPEATS] = at, previous, run, repeats
    state[SUM] = _add_checksum(out, n, state[SUM])
    return n, at == length and not repeats


@part
def _add_checksum(out: Bytes, size: int, value: Scalar) -> Scalar:
    """The CRC-32 after `size` more bytes, four at a step."""
    i = 0
    while i + 4 <= size:
        value ^= np.int64(out[i]) << 24 | np.int64(out[i + 1]) << 16 | np.int64(out[i + 2]) << 8 | np.int64(out[i + 3])
        value = (
            np.int64(_CRC[3, value >> 24 & 255])
            ^ np.int64(_CRC[2, value >> 16 & 255])
            ^ np.int64(_CRC[1, value >> 8 & 255])
            ^ np.int64(_CRC[0, value & 255])
        )
        i += 4
    while i < size:
        value = (value << 8 & 0xFFFFFFFF) ^ np.int64(_CRC[0, (value >> 24 ^ np.int64(out[i])) & 255])
        i += 1
    return value
