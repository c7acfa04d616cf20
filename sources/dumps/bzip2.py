"""bzip2, block by block, compiled: the format of 1996 read three times as fast as by its library.

Two thirds of the library's time are waits for memory, which `bzip2_order.py` lets overlap. Invariant: as with the
library, each block's checksum is verified, and what cannot be read raises. Price: 22 MB a stream, of which a usual
block touches 6, and a block is read when all of it is here.

Where nothing hangs on where one stream ends, `JoinedBzip2` reads those that follow each other as one: the streams of a
multistream dump hold a block or two each.

The format: https://github.com/dsnet/compress/blob/master/doc/bzip2-format.pdf. Randomised blocks, which no program has
written since 1997, are refused.
"""

from __future__ import annotations

import numpy as np

from sources.dumps.bzip2_blocks import (
    BLOCK_MAGIC,
    CHECKSUM,
    CODES,
    END_MAGIC,
    LENGTH,
    ORIGIN,
    SELECTORS,
    bits_at,
    find_magic,
    read_block,
)
from sources.dumps.bzip2_order import LANES, QUARTERS, SUM, arc_rows, expand_runs, lane_bytes, restore_order
from sources.dumps.bzip2_symbols import CODE_ROW, SPARE, TABLE_BITS, WORDS, Bytes

_HEADER_BYTES = 4
_MAGIC_BITS = 48
_LEVEL_BYTES = 100_000
_MOST_PACKED = 4 << 20
"""Bytes of the longest block: 18,002 groups of fifty codes of twenty bits are 2.3 MB."""
_OUT_BYTES = 1 << 20


class Bzip2:
    """One bzip2 stream, with the interface of bz2.BZ2Decompressor. Raises OSError over what is no bzip2."""

    joined = False

    def __init__(self) -> None:
        self.begun = 0
        """Where the stream that is being read begins, among several that are joined."""
        self._dropped = 0
        self._last = False
        self._packed = bytearray()
        self._bit = 0
        self._searched = 0
        self._end = 0
        """Where the block ends, in bits of the input, if its checksum is right: a damaged one may run on."""
        self._level = 0
        self._holds = False
        self._ended = False
        self._lost = False
        self.eof = False
        self.needs_input = True
        self.unused_data = b""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """Up to `max_length` bytes; b"" if more input is needed, or behind the last of them with `eof`."""
        self._packed += data
        if not self._level and not self._read_header():
            return b""
        if not self._holds:
            self._advance()
        if self._holds:
            return self._give(max_length)
        if self._ended:
            self.eof, self.unused_data = True, bytes(self._packed)
        return b""

    def finish(self) -> bool:
        """After the last input: whether there is anything yet to be given."""
        self._last = True
        if self._level and not self._holds:
            self._advance()
        return self._holds or self._ended

    def resume(self) -> bool:
        """After damage: go on at the next block, this stream's or the next one's; whether there was a stream at all."""
        self.needs_input = False
        return bool(self._level)

    def _read_header(self) -> bool:
        if len(self._packed) < _HEADER_BYTES:
            return False
        if self._packed[:3] != b"BZh" or not 49 <= self._packed[3] <= 57:
            raise OSError("Invalid data stream")
        self._level, self._bit, self._searched = self._packed[3] - 48, 32, 32
        size = self._level * _LEVEL_BYTES
        self._block = np.empty(size + SPARE, np.uint8)
        self._facts = np.zeros(3, np.int64)
        self._head = (
            np.empty(SELECTORS, np.uint8),
            np.empty((CODES, 1 << TABLE_BITS), np.uint16),
            np.empty((CODES, CODE_ROW), np.int64),
            np.empty(WORDS, np.int64),
        )
        self._ring = (
            np.empty(size, np.uint32),
            np.empty((QUARTERS, 256), np.int64),
            np.empty((arc_rows(size), 4), np.int64),
            np.empty((LANES, lane_bytes(size)), np.uint8),
            np.empty(LANES, np.uint32),
            np.empty(LANES, np.int64),
        )
        self._out = np.empty(_OUT_BYTES, np.uint8)
        self._state = np.zeros(8, np.int64)
        return True

    def _advance(self) -> None:
        """Go to the next block or the end of the stream, as far as it is here, and read it. Raises OSError."""
        packed = np.frombuffer(bytes(self._packed), np.uint8)
        try:
            self._holds = self._next_block(packed)
        finally:
            self.needs_input = not (self._holds or self._ended)
            self._forget()

    def _next_block(self, packed: Bytes) -> bool:
        if self._lost and not self._find_block(packed):
            return False
        while len(packed) * 8 >= self._bit + _MAGIC_BITS:
            magic = bits_at(packed, self._bit, _MAGIC_BITS)
            if magic == BLOCK_MAGIC:
                return self._read_block(packed)
            if magic != END_MAGIC:
                self._lost = True
                raise OSError("Invalid data stream: no block where one should begin")
            if not self._pass_end(packed):
                break
        return False

    def _read_block(self, packed: Bytes) -> bool:
        """Read the block that begins here; False if its end, where another magic is, has yet to come."""
        begun = self._bit + _MAGIC_BITS
        following = find_magic(packed, max(self._searched, begun))
        if following < 0 and len(packed) < _MOST_PACKED:
            self._searched = max(begun, len(packed) * 8 - _MAGIC_BITS)
            return False
        end = read_block(packed, begun, self._block, self._facts, *self._head) if following >= 0 else -1
        if end < 0:
            self._bit = self._searched = max(following, begun)
            self._lost = True
            raise OSError("Invalid data stream")
        self._bit = self._searched = min(end, following)
        self._end = 8 * self._dropped + end
        restore_order(self._block, self._facts[LENGTH], self._facts[ORIGIN], *self._ring)
        self._state[:] = 0
        return True

    def _pass_end(self, packed: Bytes) -> bool:
        """Go from the end of a stream to the blocks of one that is joined to it; False if none is, or not yet here."""
        end = (self._bit + _MAGIC_BITS + 32 + 7) // 8
        if len(packed) < end or (self.joined and not self._last and len(packed) < end + _HEADER_BYTES):
            return False
        header = b"BZh%d" % self._level
        if self.joined and packed[end : end + len(header)].tobytes() == header:
            self.begun = self._dropped + end
            self._bit = self._searched = 8 * (end + len(header))
            return True
        self._bit, self._ended = 8 * end, True
        return False

    def _find_block(self, packed: Bytes) -> bool:
        """Whether the next magic is here; what stands before it is passed over."""
        found = find_magic(packed, self._bit)
        self._bit = self._searched = found if found >= 0 else max(self._bit, len(packed) * 8 - _MAGIC_BITS)
        self._lost = found < 0
        return found >= 0

    def _forget(self) -> None:
        """Let go of the whole bytes that are read."""
        whole = self._bit // 8
        self._dropped += whole
        del self._packed[:whole]
        self._bit -= 8 * whole
        self._searched = max(self._bit, self._searched - 8 * whole)

    def _give(self, max_length: int) -> bytes:
        """The next bytes of the block. Raises OSError once they are at its end and its checksum is another."""
        out = self._out[: min(max_length, _OUT_BYTES)]
        size, done = expand_runs(self._block, self._facts[LENGTH], out, len(out), self._state)
        if done:
            self._holds = False
            if self._state[SUM] ^ 0xFFFFFFFF != self._facts[CHECKSUM]:
                raise OSError("Invalid data stream: a block's checksum is another")
            self._bit = self._searched = self._end - 8 * self._dropped
        return out[:size].tobytes()


class JoinedBzip2(Bzip2):
    """Streams of one block size that follow each other without a gap, as if they were one."""

    joined = True
