"""The blocks of a bzip2 stream, compiled: found, and read as sorted bytes (how and why: `bzip2.py`).

Any bytes may come in: no place outside the arrays is read or written, and what is no block gives a negative number.
"""

from __future__ import annotations

import numpy as np

from sources.compiled import Scalar, kernel, part
from sources.dumps.bzip2_symbols import (
    DAMAGED,
    MAX_LENGTH,
    TABLE_BITS,
    TRUNCATED,
    Bytes,
    Numbers,
    Tables,
    read_symbols,
)  # fmt: skip

BLOCK_MAGIC = 0x314159265359
END_MAGIC = 0x177245385090
SELECTORS = 18_002
"""Groups of fifty symbols that a block can have."""
CODES = 6
LENGTH, ORIGIN, CHECKSUM = 0, 1, 2
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
    data: Bytes, bit: int, out: Bytes, facts: Numbers, selectors: Bytes, tables: Tables, codes: Numbers, order: Numbers
) -> Scalar:
    """The bit after a block whose magic ends at `bit`: its sorted bytes, their number, origin and checksum.

    Negative if it is none. `selectors`, `tables`, `codes` and `order` are room for what stands at its head.
    """
    size = len(data) * 8
    if bit + 32 + 25 + 16 > size:
        return TRUNCATED
    facts[CHECKSUM], facts[ORIGIN] = _read(data, bit, 32), _read(data, bit + 33, 24)
    if _read(data, bit + 32, 1):
        return DAMAGED
    bit, symbols = _read_alphabet(data, bit + 57, size, order)
    if bit < 0 or symbols == 0 or bit + 18 > size:
        return DAMAGED
    groups, used = _read(data, bit, 3), _read(data, bit + 3, 15)
    if groups < 2 or groups > CODES or used == 0:
        return DAMAGED
    bit = _read_selectors(data, bit + 18, size, groups, used, selectors)
    for group in range(groups):
        if bit >= 0:
            bit = _read_code(data, bit, size, symbols + 2, tables[group], codes[group])
    if bit < 0:
        return bit
    bit, length = read_symbols(data, bit, symbols, selectors[: min(used, SELECTORS)], tables, codes, order, out)
    facts[LENGTH] = length
    return bit if bit <= size and facts[ORIGIN] < length else DAMAGED


@part
def _read(data: Bytes, bit: int, count: int) -> Scalar:
    """`count` bits, 32 at most, that must be there."""
    value: Scalar = 0
    for i in range(bit >> 3, (bit + count + 7) >> 3):
        value = value << 8 | np.int64(data[i])
    end = (bit + count) & 7
    return value >> (0 if end == 0 else 8 - end) & ((1 << count) - 1)


@part
def _read_alphabet(data: Bytes, bit: int, size: int, order: Numbers) -> tuple[int, int]:
    """Which bytes there are, in their order, and how many: a bit for each row of sixteen, and one for each in it."""
    rows = _read(data, bit, 16)
    bit += 16
    symbols = 0
    order[:] = 0
    for i in range(16):
        if not rows >> (15 - i) & 1:
            continue
        if bit + 16 > size:
            return TRUNCATED, 0
        row = _read(data, bit, 16)
        bit += 16
        for k in range(16):
            if row >> (15 - k) & 1:
                order[symbols >> 3] |= (i * 16 + k) << 8 * (symbols & 7)
                symbols += 1
    return bit, symbols


@part
def _read_selectors(data: Bytes, bit: int, size: int, groups: int, count: int, selectors: Bytes) -> int:
    """Which code each group of fifty symbols has; more than there can be are passed over."""
    first = 0x543210
    for k in range(count):
        rank = 0
        while True:
            if bit >= size:
                return TRUNCATED
            one = _read(data, bit, 1)
            bit += 1
            if not one:
                break
            rank += 1
            if rank >= groups:
                return DAMAGED
        chosen = first >> (4 * rank) & 15
        below = first & ((1 << (4 * rank)) - 1)
        first = (first >> (4 * rank + 4) << (4 * rank + 4)) | below << 4 | chosen
        if k < SELECTORS:
            selectors[k] = chosen
    return bit


@part
def _read_code(data: Bytes, bit: int, size: int, symbols: int, table: Tables, code: Numbers) -> int:
    """A canonical code, its lengths read twice: a table for its first bits, and for longer ones `code`.

    `code`: 0–31 the first code of each length, 32–63 where its symbols begin, 64–95 their number, 128–… the
    symbols by code.
    """
    end = _count_lengths(data, bit, size, symbols, code)
    if end < 0:
        return end
    _place_lengths(code)
    table[:] = 0
    length = _read(data, bit, 5)
    bit += 5
    for symbol in range(symbols):
        while _read(data, bit, 1):
            length += -1 if _read(data, bit + 1, 1) else 1
            bit += 2
        bit += 1
        number = code[64 + length]
        code[64 + length] += 1
        code[128 + code[32 + length] + number] = symbol
        value = code[length] + number
        if length <= TABLE_BITS:
            if value >> length:
                return DAMAGED
            first = value << (TABLE_BITS - length)
            table[first : first + (1 << (TABLE_BITS - length))] = symbol << 5 | length
    return end


@part
def _count_lengths(data: Bytes, bit: int, size: int, symbols: int, code: Numbers) -> int:
    """The bit after a code's lengths, each by its difference to the one before; how many codes have each."""
    if bit + 5 > size:
        return TRUNCATED
    length = _read(data, bit, 5)
    bit += 5
    code[:96] = 0
    for _ in range(symbols):
        while True:
            if bit + 2 > size:
                return TRUNCATED
            if length < 1 or length > MAX_LENGTH:
                return DAMAGED
            if not _read(data, bit, 1):
                bit += 1
                break
            length += -1 if _read(data, bit + 1, 1) else 1
            bit += 2
        code[64 + length] += 1
    return bit


@part
def _place_lengths(code: Numbers) -> None:
    """The first code of each length and where its symbols begin; their numbers back to zero."""
    value = coded = 0
    for length in range(1, MAX_LENGTH + 1):
        code[length] = value
        code[32 + length] = coded
        coded += code[64 + length]
        value = (value + code[64 + length]) << 1
        code[64 + length] = 0
