"""A MediaWiki export cut into its pages, each parsed by itself, so that a broken page costs that page.

Text inside an export is escaped, so `<page>` and `</page>` in the bytes are the tags. Each page is given to expat
alone: it never sees a DOCTYPE, and an entity that is not one of XML's five is an error of that page: entity bombs have
nothing to expand. The newest revision's text, which is nearly all of a page, is cut out before and read by a kernel.
Cutting runs at memory speed; parsing whole dumps with lxml.iterparse would cost 159 MB/s and lose everything behind the
first error.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from sources.compression import Gap, stream
from sources.dumps.xml_text import unescape_text

_OPEN, _CLOSE, _END = b"<page>", b"</page>", b"</mediawiki>"
_HEAD_BYTES = 1 << 20
_KEPT = max(len(_OPEN), len(_CLOSE), len(_END)) - 1


@dataclass(frozen=True, slots=True)
class XmlPage:
    """The element `<page>` but for its newest text, which is `text`; `offset` and `length` are bytes of the XML."""

    offset: int
    length: int
    element: ElementTree.Element
    text: bytes


@dataclass(frozen=True, slots=True)
class DamagedPage:
    """A stretch that holds no page that can be read; `start` is its beginning, where one was seen."""

    offset: int
    reason: str
    detail: str
    start: bytes = b""


class PageCutter:
    """Iterates over the pages of a dump. `head` is what stands before the first one (siteinfo)."""

    def __init__(self, raw: BinaryIO, *, max_page_bytes: int) -> None:
        self._pieces = stream(raw)
        self._limit = max_page_bytes
        self._bytes = bytearray()
        self._offset = 0
        self._gap: Gap | None = None
        self._finished = False
        self._damaged = False
        self.head = b""

    def __iter__(self) -> Iterator[XmlPage | DamagedPage]:
        found = False
        while True:
            while self._seek(_OPEN, keep_head=not found):
                found = True
                yield self._take_page()
            if self._gap is None:
                break
            self._damaged = True
            yield self._report_gap()
        if self._damaged:
            return
        if not found:
            yield DamagedPage(0, "not_mediawiki", f"no <page> in it; it begins with {self.head[:40]!r}")
        elif not self._finished:
            yield DamagedPage(self._offset, "truncated", "the dump ends without </mediawiki>")

    def _take_page(self) -> XmlPage | DamagedPage:
        """The page that begins here, up to its end, the next page or the end of the dump."""
        start, searched = self._offset, len(_OPEN)
        while (end := self._find_end(searched)) is None:
            searched = max(len(_OPEN), len(self._bytes) - _KEPT)
            if len(self._bytes) > self._limit:
                return self._pass_over_page(start)
            if not self._fill():
                return self._cut_short(start)
        page = bytes(self._bytes[:end])
        self._forget(end)
        if not page.endswith(_CLOSE):
            return DamagedPage(start, "unclosed_page", "another <page> begins before its </page>", page[:1000])
        try:
            return XmlPage(start, end, *_parse_page(page))
        except (ElementTree.ParseError, ValueError, LookupError) as error:
            return DamagedPage(start, "bad_xml", str(error), page[:1000])

    def _find_end(self, searched: int) -> int | None:
        close = self._bytes.find(_CLOSE, searched)
        following = self._bytes.find(_OPEN, searched, close if close >= 0 else len(self._bytes))
        if following >= 0:
            return following
        return close + len(_CLOSE) if close >= 0 else None

    def _cut_short(self, start: int) -> DamagedPage:
        head = bytes(self._bytes[:1000])
        self._forget(len(self._bytes))
        if self._gap is not None:
            self._damaged = True
            return self._report_gap(head)
        self._finished = True
        return DamagedPage(start, "truncated", "the dump ends in the middle of a page", head)

    def _pass_over_page(self, start: int) -> DamagedPage:
        head = bytes(self._bytes[:1000])
        detail = f"larger than {self._limit} bytes of XML"
        self._forget(len(_OPEN))
        while (end := self._find_end(0)) is None:
            self._forget(max(0, len(self._bytes) - _KEPT))
            if not self._fill():
                self._forget(len(self._bytes))
                break
        else:
            self._forget(end)
        return DamagedPage(start, "page_too_large", detail, head)

    def _report_gap(self, head: bytes = b"") -> DamagedPage:
        gap, self._gap = self._gap, None
        assert gap is not None
        return DamagedPage(gap.offset, f"{gap.reason}_compression", gap.detail, head)

    def _seek(self, tag: bytes, *, keep_head: bool) -> bool:
        """Move to `tag`; False at the end of the dump or before damage."""
        while (at := self._bytes.find(tag)) < 0:
            passed = max(0, len(self._bytes) - _KEPT)
            self._pass(passed, keep_head)
            if not self._fill():
                self._pass(len(self._bytes), keep_head)
                return False
        self._pass(at, keep_head)
        return True

    def _pass(self, size: int, keep_head: bool) -> None:
        if keep_head and len(self.head) < _HEAD_BYTES:
            self.head += bytes(self._bytes[:size])
        self._finished = self._finished or self._bytes.find(_END, 0, size + len(_END)) >= 0
        self._forget(size)

    def _fill(self) -> bool:
        """More bytes; False at the end of the dump or at damage, which `_gap` then holds."""
        if self._gap is not None:
            return False
        piece = next(self._pieces, None)
        if isinstance(piece, Gap):
            self._gap = piece
            return False
        self._bytes += piece or b""
        return piece is not None

    def _forget(self, size: int) -> None:
        del self._bytes[:size]
        self._offset += size


def _parse_page(page: bytes) -> tuple[ElementTree.Element, bytes]:
    """The element with its last `<text>` emptied, and that text. Raises ParseError or ValueError."""
    begun = page.find(b">", max(0, page.rfind(b"<text"))) + 1
    end = page.find(b"</text>", begun)
    if begun <= len(_OPEN) or end < 0:
        return ElementTree.fromstring(page), b""
    return ElementTree.fromstring(page[:begun] + page[end:]), unescape_text(page[begun:end])
