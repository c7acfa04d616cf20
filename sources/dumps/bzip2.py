"""bzip2, block by block, compiled: the format of 1996 read twice as fast as by its library.

A block's bytes are a chain of jumps through 3.6 MB, each of which waits for memory. Eight blocks are followed at once
and from both ends, so that sixteen waits overlap. Invariant: as with the library, each block's checksum is verified,
and what cannot be read raises. Price: 65 MB a stream, and the first bytes come after eight blocks.

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
    END_MAGIC,
    LANES,
    LENGTH,
    SELECTORS,
    SUM,
    TABLE_BITS,
    Bytes,
    bits_at,
    expand_runs,
    find_magic,
    follow_chains,
    read_block,
)  # fmt: skip

_HEADER_BYTES = 4
_MAGIC_BITS = 48
_LEVEL_BYTES = 100_000
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
        self._level = 0
        self._waiting = 0
        self._given = 0
        self._ended = False
        self._fault: str | None = None
        self._lost = False
        self.eof = False
        self.needs_input = True
        self.unused_data = b""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """Up to `max_length` bytes; b"" if more input is needed, and `eof` is set with the last of them."""
        self._packed += data
        if not self._level and not self._read_header():
            return b""
        while not self._given:
            self._read_blocks()
            if not (self._waiting == LANES or self._ended or self._fault):
                self.needs_input = True
                return b""
            self._follow()
            if not self._given:
                break
        return self._give(max_length)

    def finish(self) -> bool:
        """After the last input: go on with the blocks that are whole; whether there is any."""
        self._last = True
        if self._level and not self._given:
            self._read_blocks()
            self._follow()
        return bool(self._given) or self._ended

    def resume(self) -> bool:
        """After damage: go on at the next block, this stream's or the next one's; whether there was a stream at all."""
        self._lost, self._fault, self.needs_input = self._fault is not None, None, False
        return bool(self._level)

    def _read_header(self) -> bool:
        if len(self._packed) < 4:
            return False
        if self._packed[:3] != b"BZh" or not 49 <= self._packed[3] <= 57:
            raise OSError("Invalid data stream")
        self._level, self._bit, self._searched = self._packed[3] - 48, 32, 32
        size = self._level * _LEVEL_BYTES
        self._ahead = np.empty((LANES, size), np.uint32)
        self._back = np.empty((LANES, size), np.uint32)
        self._ends = np.empty((LANES, 2), np.uint32)
        self._plain = np.empty((LANES, size), np.uint8)
        self._facts = np.zeros((LANES, 3), np.int64)
        self._tables = np.empty((6, 1 << TABLE_BITS), np.int32)
        self._scratch = np.empty(SELECTORS + 8 * 1024, np.int64)
        self._out = np.empty(_OUT_BYTES, np.uint8)
        self._state = np.zeros(8, np.int64)
        return True

    def _read_blocks(self) -> None:
        """Read blocks that are here from end to end into free lanes."""
        packed = np.frombuffer(bytes(self._packed), np.uint8)
        while self._waiting < LANES and not self._ended and not self._fault:
            if self._lost and not self._find_block(packed):
                break
            if len(packed) * 8 < self._bit + _MAGIC_BITS:
                break
            magic = bits_at(packed, self._bit, _MAGIC_BITS)
            if magic == END_MAGIC:
                if self._pass_end(packed):
                    continue
                break
            if magic != BLOCK_MAGIC:
                self._fault = "Invalid data stream: no block where one should begin"
                break
            following = find_magic(packed, max(self._searched, self._bit + _MAGIC_BITS))
            if following < 0:
                self._searched = max(self._bit + _MAGIC_BITS, len(packed) * 8 - _MAGIC_BITS)
                break
            lane = self._waiting
            end = read_block(
                packed, self._bit + _MAGIC_BITS, self._ahead[lane], self._back[lane], self._plain[lane],
                self._facts[lane], self._tables, self._scratch,
            )  # fmt: skip
            if end < 0:
                self._fault = "Invalid data stream"
                self._bit = self._searched = following
                break
            self._bit = self._searched = end
            self._waiting += 1
        whole = self._bit // 8
        self._dropped += whole
        del self._packed[:whole]
        self._bit -= 8 * whole
        self._searched = max(self._bit, self._searched - 8 * whole)

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

    def _follow(self) -> None:
        """Turn the chains of the waiting lanes into bytes."""
        if self._waiting:
            follow_chains(self._ahead, self._back, self._plain, self._facts, self._waiting, self._ends)
        self._given, self._waiting, self._lane = self._waiting, 0, 0
        self._state[:] = 0
        self.needs_input = False

    def _give(self, max_length: int) -> bytes:
        """The next bytes of the lanes; raises once they are given, if what follows them cannot be read."""
        if not self._given:
            self._close()
            return b""
        out = self._out[: min(max_length, _OUT_BYTES)]
        facts = self._facts[self._lane]
        size, done = expand_runs(self._plain[self._lane], facts[LENGTH], out, len(out), self._state)
        if done:
            right = self._state[SUM] ^ 0xFFFFFFFF == facts[CHECKSUM]
            self._state[:] = 0
            self._lane += 1
            if self._lane == self._given:
                self._given = 0
            if not right:
                raise OSError("Invalid data stream: a block's checksum is another")
        piece = out[:size].tobytes()
        if self._ended and not self._given:
            self._close()
        return piece

    def _close(self) -> None:
        if self._fault:
            raise OSError(self._fault)
        if self._ended:
            self.eof, self.needs_input = True, False
            self.unused_data = bytes(self._packed[self._bit // 8 :])


class JoinedBzip2(Bzip2):
    """Streams of one block size that follow each other without a gap, as if they were one."""

    joined = True
