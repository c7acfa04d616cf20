"""The compressions that files and HTTP messages come in, all with the interface of bz2.BZ2Decompressor.

Invariant: one call gives no more than a few MiB, whatever went in, so a bomb of 1000:1 costs time and no space. ISA-L
reads gzip at 900 MB/s where zlib does 420. brotli and zstd bound nothing by themselves.
"""

from __future__ import annotations

import io
import lzma
from typing import Any, Protocol, cast

import brotli
import zstandard
from fastwarc.stream_io import Lz4Reader
from isal import isal_zlib

_ZSTD_BLOCKS = 8
_ZSTD_BLOCK_BYTES = 128 << 10
"""No block of zstd gives more, and 4 bytes may: so output is bounded by the number of blocks that are fed at once."""
_LZ4_FRAME_BYTES = 256 << 20
_INFLATE_ERROR: type[Exception] = cast(Any, isal_zlib).error
ERRORS = (_INFLATE_ERROR, OSError, EOFError, ValueError, lzma.LZMAError, zstandard.ZstdError, MemoryError)
"""What the decompressors raise over damaged bytes."""


class Decompressor(Protocol):
    """The interface of bz2.BZ2Decompressor, which the others are brought to."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class Deflate:
    """One gzip member, or what HTTP calls deflate, with its zlib head or without: ISA-L, twice as fast as zlib."""

    def __init__(self, wbits: int = 31) -> None:
        self._stream: Any = isal_zlib.decompressobj(wbits=wbits)
        self._full = False

    @property
    def eof(self) -> bool:
        return bool(self._stream.eof)

    @property
    def needs_input(self) -> bool:
        return not self._stream.unconsumed_tail and not self._full

    @property
    def unused_data(self) -> bytes:
        return bytes(self._stream.unused_data)

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        tail = self._stream.unconsumed_tail
        found: bytes = self._stream.decompress(tail + data if tail else data, max_length)
        self._full = len(found) >= max_length
        return found


class Brotli:
    """One brotli stream, as HTTP has it; it has no magic and no checksum."""

    unused_data = b""

    def __init__(self) -> None:
        self._stream: Any = brotli.Decompressor()

    @property
    def eof(self) -> bool:
        return bool(self._stream.is_finished())

    @property
    def needs_input(self) -> bool:
        return bool(self._stream.can_accept_more_data())

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """About `max_length` bytes: brotli rounds it up to its own buffers of 32 KiB."""
        try:
            return bytes(self._stream.process(data, output_buffer_limit=max_length))
        except brotli.error as error:
            raise ValueError(f"not brotli: {error}") from error


def zstd_decompressor(dictionary: bytes | None = None) -> zstandard.ZstdDecompressor:
    """For windows of at most 128 MiB."""
    trained = zstandard.ZstdCompressionDict(dictionary) if dictionary else None
    return zstandard.ZstdDecompressor(dict_data=trained, max_window_size=1 << 27)


class Zstd:
    """One zstd frame, whose blocks are counted: the library cannot bound its output, and decides nothing of the end."""

    def __init__(self, decompressor: zstandard.ZstdDecompressor | None = None) -> None:
        """A `decompressor` is for one frame at a time; a new one costs 20 µs."""
        self._object = (decompressor or zstd_decompressor()).decompressobj()
        self._packed = bytearray()
        self._begun = False
        self._trailer_bytes = 0
        self._next = 0
        self._last = False
        self._ready = 0
        self._output, self._taken = b"", 0

    @property
    def eof(self) -> bool:
        return bool(self._object.eof) and self._taken == len(self._output)

    @property
    def needs_input(self) -> bool:
        return self._ready == 0 and self._taken == len(self._output)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._packed)

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        self._packed += data
        self._ready = self._ready or self._count_blocks()
        if self._taken == len(self._output) and self._ready:
            self._output, self._taken = self._object.decompress(bytes(self._packed[: self._ready])), 0
            del self._packed[: self._ready]
            self._next -= self._ready
            self._ready = self._count_blocks()
        found = self._output[self._taken : self._taken + max_length] if self._output else b""
        self._taken += len(found)
        return found

    def _count_blocks(self) -> int:
        """Where some whole blocks end that are here, 0 if none are."""
        packed, ready = self._packed, 0
        if not self._begun and not self._begin():
            return 0
        for _ in range(_ZSTD_BLOCKS):
            if self._last or len(packed) < self._next + 3:
                break
            header = int.from_bytes(packed[self._next : self._next + 3], "little")
            size = header >> 3
            if size > _ZSTD_BLOCK_BYTES:
                raise ValueError(f"a zstd block of {size} bytes")
            end = self._next + 3 + (1 if header & 6 == 2 else size) + (self._trailer_bytes if header & 1 else 0)
            if len(packed) < end:
                break
            self._last, self._next, ready = bool(header & 1), end, end
        return ready

    def _begin(self) -> bool:
        """Read the frame's header, if it is here: where blocks begin, and whether a checksum follows them."""
        if len(self._packed) < 5:
            return False
        self._begun = True
        flags = self._packed[4]
        single = bool(flags & 0x20)
        self._trailer_bytes = 4 if flags & 0x04 else 0
        self._next = 5 + (not single) + (0, 1, 2, 4)[flags & 3] + (int(single), 2, 4, 8)[flags >> 6]
        return True


class Skippable:
    """A frame of zstd or lz4 that holds no content, such as a dictionary or a table of places."""

    unused_data = b""
    needs_input = True

    def __init__(self) -> None:
        self._head = b""
        self._left = 8
        self.eof = False

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        if len(self._head) < 8:
            taken = 8 - len(self._head)
            self._head, data = self._head + data[:taken], data[taken:]
            self._left = int.from_bytes(self._head[4:8], "little")
        passed = min(self._left, len(data))
        self._left -= passed
        if len(self._head) == 8 and self._left == 0:
            self.eof, self.unused_data = True, data[passed:]
        return b""


class Lz4:
    """One lz4 frame: its blocks are counted to find its end, then fastwarc decompresses it (at most 256 MiB packed)."""

    def __init__(self) -> None:
        self._packed = bytearray()
        self._next = 0
        self._checksums = (False, False)
        self._reader: Lz4Reader | None = None
        self.eof = False
        self.unused_data = b""

    @property
    def needs_input(self) -> bool:
        return self._reader is None

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        if self._reader is None:
            self._packed += data
            end = self._find_end()
            if end is None:
                return b""
            self.unused_data = bytes(self._packed[end:])
            self._reader = Lz4Reader(io.BytesIO(bytes(self._packed[:end])))
        piece: bytes = self._reader.read(max_length)
        self.eof = not piece
        return piece

    def _find_end(self) -> int | None:
        """Where the frame ends, or None before that is here; each block header is looked at once."""
        packed = self._packed
        if len(packed) > _LZ4_FRAME_BYTES:
            raise ValueError("an lz4 frame of more than 256 MiB")
        if self._next == 0:
            if len(packed) < 16:
                return None
            flags = packed[4]
            self._checksums = (bool(flags & 0x10), bool(flags & 0x04))
            self._next = 7 + (8 if flags & 0x08 else 0) + (4 if flags & 0x01 else 0)
        while len(packed) >= self._next + 4:
            size = int.from_bytes(packed[self._next : self._next + 4], "little") & 0x7FFFFFFF
            self._next += 4
            if size == 0:
                self._next += 4 if self._checksums[1] else 0
                return self._next if len(packed) >= self._next else None
            self._next += size + (4 if self._checksums[0] else 0)
        return None
