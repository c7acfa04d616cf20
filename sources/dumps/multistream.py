"""A bzip2 dump of many streams as pieces that several workers read at once.

Invariant: the cuts depend on the dump alone, and each is at a stream that begins with a page; so the pieces hold every
page once, and each is a whole dump to its reader: the dump's head, the piece's streams, the end of the document.

The index that is published beside a multistream dump is not needed: a stream begins with ten known bytes, so a cut
costs one read of 1 MiB, where enwiki's index has 1.1 GB of text. A dump whose streams do not begin with pages (one
stream, or what parallel compressors write) is read as one.
"""

from __future__ import annotations

import bz2
import io
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import BinaryIO, cast

from sources.reading import RawInput

PIECE_BYTES = 128 << 20
"""Compressed bytes of a piece: text for about one part of documents."""
_WINDOW_BYTES = 1 << 20
_WINDOWS = 4
_STREAM = re.compile(rb"BZh[1-9]1AY&SY")
_STREAM_BYTES = 10
_PAGE = re.compile(rb"\s*<page>")
_HEAD_BYTES = 1 << 20
_TAIL = bz2.compress(b"</mediawiki>\n")

Read = Callable[[int, int], bytes]
"""The bytes of a file from one place to another, fewer at its end."""


def cut_at_streams(raw: RawInput, read: Read, piece_bytes: int) -> list[RawInput]:
    """The dump's pieces in order, or the dump itself where it is small or cannot be cut."""
    if not raw.name.endswith(".bz2") or raw.size < 2 * piece_bytes:
        return [raw]
    head = _head_bytes(read(0, _HEAD_BYTES))
    if not head:
        return [raw]
    starts = [head, *_cuts(read, raw.size, piece_bytes)]
    stops = [*starts[1:], raw.size]
    if len(starts) == 1:
        return [raw]
    return [
        replace(raw, name=f"{raw.name}#bytes={start}-{stop - 1}", size=stop - start, head=head, start=start, stop=stop)
        for start, stop in zip(starts, stops, strict=True)
    ]


def _head_bytes(data: bytes) -> int:
    """The length of the first stream if it ends where the pages begin, else 0."""
    found = _STREAM.search(data, _STREAM_BYTES) if _STREAM.match(data) else None
    if found is None or not _begins_with_page(data[found.start() :]):
        return 0
    try:
        return 0 if b"<page>" in bz2.decompress(data[: found.start()]) else found.start()
    except (OSError, ValueError):
        return 0


def _cuts(read: Read, size: int, piece_bytes: int) -> Iterator[int]:
    """Where a stream begins with a page, soon after every `piece_bytes`; one that is not found is left out."""
    target = piece_bytes
    while target < size - piece_bytes // 2:
        cut = _find_stream(read, target)
        if cut is not None:
            yield cut
        target = (cut or target) + piece_bytes


def _find_stream(read: Read, target: int) -> int | None:
    data = b""
    for _ in range(_WINDOWS):
        more = read(target + len(data), target + len(data) + _WINDOW_BYTES)
        data += more
        for found in _STREAM.finditer(data):
            if _begins_with_page(data[found.start() :]):
                return target + found.start()
        if len(more) < _WINDOW_BYTES:
            return None
    return None


def _begins_with_page(packed: bytes) -> bool:
    """Whether the stream at the beginning of these bytes does, as far as its first block is here."""
    try:
        return _PAGE.match(bz2.BZ2Decompressor().decompress(packed, 64)) is not None
    except OSError:
        return False


def open_piece(file: BinaryIO, raw: RawInput) -> BinaryIO:
    """The piece of an opened dump, as a file of its own."""
    assert raw.stop is not None
    return cast(BinaryIO, _Piece(file, raw.head, raw.start, raw.stop, _TAIL))


class _Piece(io.RawIOBase):
    """The first `head` bytes of a file, those from `start` to `stop`, and `tail`."""

    def __init__(self, file: BinaryIO, head: int, start: int, stop: int, tail: bytes) -> None:
        self._file, self._tail = file, tail
        self._head, self._start, self._stop = head, start, stop
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        end = self._head + self._stop - self._start + len(self._tail)
        self._position = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: end}[whence])
        return self._position

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        data = self._next(len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()

    def _next(self, size: int) -> bytes:
        place, end = self._position, self._head + self._stop - self._start
        if place >= end:
            return self._tail[place - end : place - end + size]
        first, last = (place, self._head) if place < self._head else (place - self._head + self._start, self._stop)
        self._file.seek(first)
        return self._file.read(min(size, last - first))
