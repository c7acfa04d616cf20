"""A piece of a bzip2 block: its codes read as ranks of bytes and runs, and these as the block's bytes, sorted.

The order of bytes by their last use stands in 32 numbers of eight bytes each, the latest lowest. Three in four symbols
are parts of runs or mean one of the first eight, and those are read without a branch that the processor could guess
wrong (runs are counted by arithmetic: 0.8 of the time of an `if`). 9 ns a symbol.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sources.compiled import Scalar, part, piece

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]
Tables = NDArray[np.uint16]

TRUNCATED, DAMAGED = -1, -2
MAX_LENGTH, TABLE_BITS = 20, 10
"""Bits of the longest code, and those by which a table finds a shorter one."""
CODE_ROW = 512
"""Numbers that say all of a code (`bzip2_blocks.py`)."""
SPARE = 8
"""Bytes that are written behind the last one: a run is written by eight."""
_TABLE_MASK = (1 << TABLE_BITS) - 1
_PLACES = (1 << 20) - 1
_GROUP = 50
_FRONT = 8
WORDS = 32
"""Numbers of eight bytes that hold the order of all bytes."""


@part
def read_symbols(
    data: Bytes, bit: int, symbols: int, selectors: Bytes, tables: Tables, codes: Numbers, order: Numbers, out: Bytes
) -> tuple[Scalar, int]:  # fmt: skip
    """The bit after the block, or what is wrong, and how many bytes were written."""
    at, size, capacity = bit >> 3, len(data), len(out) - SPARE
    if at >= size:
        return TRUNCATED, 0
    held = 8 - (bit & 7)
    window: Scalar = np.int64(data[at])
    at += 1
    front: Scalar = order[0]
    byte: Scalar = 0
    weight: Scalar = 1
    n = 0
    for k in range(len(selectors)):
        group = np.int64(selectors[k])
        for _ in range(_GROUP):
            if held < MAX_LENGTH:
                window = window << 32 | _four_bytes(data, at, size)
                at += 4
                held += 32
            entry: Scalar = np.int64(tables[group, window >> (held - TABLE_BITS) & _TABLE_MASK])
            if not entry:
                entry = _read_long_code(window, held, codes[group])
                if not entry:
                    return DAMAGED, 0
            held -= entry & 31
            symbol = entry >> 5
            if symbol > symbols:
                return at * 8 - held, n
            copies = 1
            if symbol <= _FRONT:
                shift = 8 * (symbol - 1 if symbol else 0)
                byte = front >> shift & 255
                front = front >> shift >> 8 << 8 << shift | (front & ((1 << shift) - 1)) << 8 | byte
                run = np.int64(symbol <= 1)
                copies = 1 + run * ((weight << symbol) - 1)
                weight = 1 + run * (2 * weight - 1)
            else:
                order[0] = front
                byte = _take(order, symbol - 1)
                front = order[0]
                weight = 1
            if n + copies > capacity:
                return DAMAGED, 0
            _write_copies(out, n & _PLACES, copies, byte)
            n += copies
    return DAMAGED, 0


@piece
def _four_bytes(data: Bytes, at: int, size: int) -> Scalar:
    """The next 32 bits; behind the end there are zeros."""
    if at + 4 <= size:
        return (
            np.int64(data[at]) << 24
            | np.int64(data[at + 1]) << 16
            | np.int64(data[at + 2]) << 8
            | np.int64(data[at + 3])
        )
    value: Scalar = 0
    for i in range(at, at + 4):
        value = value << 8 | (np.int64(data[i]) if i < size else 0)
    return value


@part
def _read_long_code(window: int, held: int, code: Numbers) -> Scalar:
    """A code that is longer than the table's, as the table's entries are: symbol and length; 0 if it is none."""
    for length in range(TABLE_BITS + 1, MAX_LENGTH + 1):
        number = (window >> (held - length) & ((1 << length) - 1)) - code[length]
        if 0 <= number < code[64 + length]:
            return code[128 + code[32 + length] + number] << 5 | length
    return 0


@piece
def _take(order: Numbers, rank: Scalar) -> Scalar:
    """The byte of a rank, which goes to the front of the order; those before it move up by one."""
    at, shift = rank >> 3, 8 * (rank & 7)
    word = order[at]
    byte = word >> shift & 255
    below = word & ((1 << shift) - 1)
    order[at] = word >> shift >> 8 << 8 << shift | below << 8 | (order[at - 1] >> 56 & 255)
    for k in range(at - 1, 0, -1):
        order[k] = order[k] << 8 | (order[k - 1] >> 56 & 255)
    order[0] = order[0] << 8 | byte
    return byte


@piece
def _write_copies(out: Bytes, n: int, copies: int, byte: int) -> None:
    for i in range(SPARE):
        out[n + i] = byte
    for i in range(SPARE, copies):
        out[n + i] = byte
