"""WARC and ARC files to records: where each lies, its headers and its block; damage costs the record that has it.

Invariant: a record that is yielded was whole: its Content-Length led to the end of its frame or to the next record.
After damage the search goes on at the next frame (compressed) or at the next blank line and `WARC/` (plain).

ARC (the Internet Archive's format before 2009, versions 1 and 2) has one line before each block; it is told as the WARC
headers that say the same, so that nobody else needs to know.

Records longer than `max_block_bytes` are passed over, not held. In a compressed frame of several records (rare: the
standard wants one each) a wrong length beyond that limit costs the rest of the frame, because there is no way back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from sources.compression import CHUNK_BYTES, DamagedFrame, Frame, frames

MAX_HEADER_BYTES = 1 << 16
_SHORT_HEADER_BYTES = 1 << 12
_OVERSIZE_SAMPLE_BYTES = 1 << 16
_START = b"WARC/"
_NEXT_RECORD = b"\n" + _START
_ARC_LINE = re.compile(
    rb"(?P<url>[a-z][a-z0-9+.-]{1,20}:[^ \r\n]{1,8000}) (?P<ip>[0-9a-fA-F.:]{3,45}) (?P<date>\d{14}|\d{12}|\d{8}) "
    rb"(?P<type>[^ \r\n]{1,200})(?: [^\r\n]{1,8000})? (?P<size>\d{1,18})\r?\n"
)
_ARC_START = re.compile(rb"\n(?=" + _ARC_LINE.pattern + rb")")
_ARC_LINE_BYTES = 1 << 14


@dataclass(frozen=True, slots=True)
class WarcRecord:
    """A whole record. `offset` and `length` are bytes of the file, as CDX indices count them.

    `ordinal` counts records inside one compressed frame, where offset and length are those of the frame; `length` is
    None if the frame holds more. Header names are lower case. `block` is cut to 64 KiB if the record is `oversize`.
    """

    offset: int
    length: int | None
    ordinal: int
    headers: dict[str, str]
    block: bytes
    block_bytes: int

    @property
    def oversize(self) -> bool:
        return self.block_bytes > len(self.block)

    @property
    def kind(self) -> str:
        return self.headers.get("warc-type", "").lower()


@dataclass(frozen=True, slots=True)
class DamagedRecord:
    """A record that is not whole; `url` where its headers still say so."""

    offset: int
    reason: str
    detail: str
    url: str | None = None


class _Broken(Exception):
    """The record at hand is damaged."""

    def __init__(self, reason: str, detail: str, url: str | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.url = url


class _Window:
    """The bytes of a frame that are in memory, ahead of where we are."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._bytes = bytearray()
        self._start = 0
        self._dropped = 0

    @property
    def position(self) -> int:
        """Decompressed bytes of the frame that lie behind."""
        return self._dropped + self._start

    @property
    def available(self) -> int:
        return len(self._bytes) - self._start

    def fill(self, size: int) -> bool:
        """Have `size` bytes ahead in memory; False if the frame ends before."""
        while self.available < size:
            piece = self._frame.read(CHUNK_BYTES)
            if not piece:
                return False
            self._bytes += piece
        return True

    def peek(self, size: int, *, at: int = 0) -> bytes:
        with memoryview(self._bytes) as held:
            return bytes(held[self._start + at : self._start + at + size])

    def find(self, needle: bytes, limit: int) -> int:
        """Bytes ahead to `needle`, looking no further than `limit`; -1 if it is not there."""
        searched = 0
        while True:
            at = self._bytes.find(needle, self._start + max(0, searched - len(needle)), self._start + limit)
            if at >= 0:
                return at - self._start
            searched = self.available
            if searched >= limit or not self.fill(searched + 1):
                return -1

    def skip(self, size: int) -> None:
        """Move on by `size` bytes or to the frame's end, without holding what is passed over."""
        if size > self.available and self._frame.plain:
            self._go_to(self.position + size - 1)
            size = 1 if self.fill(1) else 0
        while size > self.available:
            size -= self.available
            self._forget(self.available)
            if not self.fill(1):
                return
        self._forget(size)

    def go_back_to(self, position: int) -> None:
        """Back to an earlier byte, if the file is plain; a compressed frame is read forward only."""
        if self._frame.plain:
            self._go_to(position)

    def _go_to(self, position: int) -> None:
        self._frame.seek(position)
        self._bytes.clear()
        self._start, self._dropped = 0, position

    def skip_blank_lines(self) -> None:
        while self.fill(1) and self._bytes[self._start] in b"\r\n":
            self._forget(1)

    def _forget(self, size: int) -> None:
        self._start += size
        if self._start > CHUNK_BYTES and self._start * 2 > len(self._bytes):
            del self._bytes[: self._start]
            self._dropped += self._start
            self._start = 0


EndsAt = Callable[[_Window, int], bool]
"""Whether a record ends so many bytes ahead."""


def read_records(raw: BinaryIO, *, max_block_bytes: int) -> Iterator[WarcRecord | DamagedRecord]:
    """Every record of a WARC file of any compression, in order, damaged ones included."""
    for frame in frames(raw):
        if isinstance(frame, DamagedFrame):
            yield DamagedRecord(frame.offset, f"{frame.reason}_compression", frame.detail)
            continue
        try:
            yield from _records_of(frame, max_block_bytes)
        except DamagedFrame as damage:
            yield DamagedRecord(frame.offset, f"{damage.reason}_compression", damage.detail)


def _records_of(frame: Frame, max_block_bytes: int) -> Iterator[WarcRecord | DamagedRecord]:
    window = _Window(frame)
    ordinal = 0
    window.skip_blank_lines()
    while window.fill(1):
        start = window.position
        try:
            record = _next_record(window, max_block_bytes)
        except _Broken as broken:
            yield DamagedRecord(_offset(frame, start), broken.reason, broken.detail, broken.url)
            _find_next_record(window)
        else:
            length = window.position - start if frame.plain else None
            window.skip_blank_lines()
            if not frame.plain and ordinal == 0 and not window.fill(1) and frame.end is not None:
                length = frame.end - frame.offset
            yield WarcRecord(_offset(frame, start), length, ordinal, *record)
        ordinal += 1


def _offset(frame: Frame, start: int) -> int:
    return start if frame.plain else frame.offset


def _next_record(window: _Window, max_block_bytes: int) -> tuple[dict[str, str], bytes, int]:
    """Headers, block and size of the record ahead; moves behind it. Raises _Broken, having moved past its headers."""
    window.fill(len(_START))
    if arc := _peek_arc_line(window):
        return _next_arc_record(window, arc, max_block_bytes)
    if window.peek(len(_START)) != _START:
        raise _Broken("no_warc_header", f"a record should begin with `WARC/`, found {window.peek(40)!r}")
    headers = _take_headers(window)
    url = headers.get("warc-target-uri")
    size = headers.get("content-length", "")
    if not size.isascii() or not size.isdigit() or len(size) > 18:
        raise _Broken("no_content_length", f"the record's Content-Length is {size!r}, not a number of bytes", url)
    if int(size) <= max_block_bytes:
        return headers, _take_block(window, int(size), url, _ends_record), int(size)
    return headers, _pass_over_block(window, int(size), url, _ends_record), int(size)


def _peek_arc_line(window: _Window) -> re.Match[bytes] | None:
    """The line ahead, if it is one that begins an ARC record."""
    if not window.peek(1).islower():
        return None
    end = window.find(b"\n", _ARC_LINE_BYTES)
    return _ARC_LINE.match(window.peek(end + 1)) if end >= 0 else None


def _next_arc_record(window: _Window, line: re.Match[bytes], max_block_bytes: int) -> tuple[dict[str, str], bytes, int]:
    """What `_next_record` gives, of an ARC record."""
    window.skip(line.end())
    size, url = int(line["size"]), line["url"].decode("utf-8", "replace")
    held = size <= max_block_bytes
    take = _take_block if held else _pass_over_block
    block = take(window, size, url, _ends_arc_record)
    is_head, is_http = url.startswith("filedesc:"), block.startswith(b"HTTP/")
    kind = "warcinfo" if is_head else "response" if is_http else "resource"
    media_type = "application/http; msgtype=response" if is_http else line["type"].decode("utf-8", "replace")
    headers = {
        "warc-type": kind,
        "warc-target-uri": url,
        "warc-date": _arc_date(line["date"].decode()),
        "content-type": media_type,
    }
    return headers, block, size


def _arc_date(stamp: str) -> str:
    """Stamps of 8 and 12 digits leave out hours and seconds."""
    full = stamp.ljust(14, "0")
    return f"{full[:4]}-{full[4:6]}-{full[6:8]}T{full[8:10]}:{full[10:12]}:{full[12:]}Z"


def _take_headers(window: _Window) -> dict[str, str]:
    """Ends at the first empty line, whether lines end in CRLF or LF."""
    at, width = _find_empty_line(window, _SHORT_HEADER_BYTES)
    if at < 0:
        at, width = _find_empty_line(window, MAX_HEADER_BYTES)
    if at < 0:
        # Each of the records that begin before the last one has that one within its headers.
        window.skip(max(len(_NEXT_RECORD), window.peek(MAX_HEADER_BYTES).rfind(_NEXT_RECORD)))
        raise _Broken("no_header_end", f"no empty line ends the record's headers within {MAX_HEADER_BYTES} bytes")
    if window.find(_NEXT_RECORD, at) >= 0:
        window.skip(len(_NEXT_RECORD))
        raise _Broken("no_header_end", "another record begins within the record's headers")
    headers = parse_headers(window.peek(at))
    window.skip(at + width)
    return headers


def _find_empty_line(window: _Window, limit: int) -> tuple[int, int]:
    """Bytes ahead to the end of the line before it, -1 if it is not there, and how long both line ends are."""
    crlf = window.find(b"\r\n\r\n", limit)
    lf = window.find(b"\n\n", limit if crlf < 0 else crlf)
    return (lf, 2) if lf >= 0 else (crlf, 4)


def parse_headers(head: bytes) -> dict[str, str]:
    """The headers behind a first line, names in lower case, values without blanks and `<>` around them.

    Of those that come twice the first counts.
    """
    headers: dict[str, str] = {}
    for line in head.decode("utf-8", "replace").split("\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers.setdefault(name.strip().lower(), value.strip().strip("<>"))
    return headers


def _take_block(window: _Window, size: int, url: str | None, ends_at: EndsAt) -> bytes:
    """The block, if what follows it is the end of the frame or another record; else stays before it."""
    if not window.fill(size):
        raise _Broken("wrong_length", f"the record says {size} bytes, but only {window.available} are there", url)
    if not ends_at(window, size):
        raise _Broken("wrong_length", f"the record says {size} bytes, but no record ends there", url)
    block = window.peek(size)
    window.skip(size)
    return block


def _ends_record(window: _Window, size: int) -> bool:
    """Whether the two line ends that close a record, the frame's end or another record are `size` bytes ahead."""
    window.fill(size + 16)
    rest = window.peek(16, at=size)
    following = rest.lstrip(b"\r\n")
    return rest.startswith(b"\r\n\r\n") or not following or following.startswith(_START[: len(following)])


def _ends_arc_record(window: _Window, size: int) -> bool:
    """Whether a line end and another record, or the frame's end, are `size` bytes ahead.

    Where the next record's line is damaged, this one is believed unless another begins within it.
    """
    window.fill(size + _ARC_LINE_BYTES)
    rest = window.peek(_ARC_LINE_BYTES, at=size)
    if not rest.strip(b"\r\n") or _ARC_LINE.match(rest, 1):
        return rest[:1] in b"\r\n"
    return rest.startswith(b"\n") and not _ARC_START.search(window.peek(size))


def _pass_over_block(window: _Window, size: int, url: str | None, ends_at: EndsAt) -> bytes:
    """The first bytes of a block that is too large to hold; moves behind it."""
    window.fill(_OVERSIZE_SAMPLE_BYTES)
    sample, start = window.peek(_OVERSIZE_SAMPLE_BYTES), window.position
    window.skip(size)
    if window.position < start + size or not ends_at(window, 0):
        window.go_back_to(start)
        raise _Broken("wrong_length", f"the record says {size} bytes, but no record ends there", url)
    return sample


def _find_next_record(window: _Window) -> None:
    """Move to the next line that begins a record, which may be this one, or to the frame's end."""
    window.fill(len(_START))
    if window.peek(len(_START)) == _START or _peek_arc_line(window):
        return
    while (at := _next_start(window)) < 0:
        if window.available <= CHUNK_BYTES:
            window.skip(window.available)
            return
        window.skip(CHUNK_BYTES - len(_NEXT_RECORD))
    window.skip(at + 1)


def _next_start(window: _Window) -> int:
    """Bytes ahead to the line end before a record that begins within CHUNK_BYTES; -1 without one."""
    window.fill(CHUNK_BYTES + _ARC_LINE_BYTES)
    warc = window.find(_NEXT_RECORD, CHUNK_BYTES)
    arc = _ARC_START.search(window.peek(warc + 1 if warc >= 0 else CHUNK_BYTES + _ARC_LINE_BYTES))
    starts = [warc, arc.start() if arc else -1]
    return min((at for at in starts if 0 <= at < CHUNK_BYTES), default=-1)
