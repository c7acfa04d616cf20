"""MediaWiki XML dumps to documents: one a page, its newest revision as plain text.

Redirects and pages outside the wanted namespaces are counted and passed over. A document's `record` has the page and
revision ids (`page`: "12/3456") and the page's place in the decompressed XML; its doc_id is made of the two ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from urllib.parse import quote

from sources.dumps.xml_pages import DamagedPage, DumpIndex, PageCutter, XmlPage
from sources.files import open_raw
from sources.reading import Place, RawInput, ReadConfig, Reading, Skipped, parse_time
from sources.watch import begins
from sources.wikitext import PlainText, Site
from sources.wikitext.page_kind import page_kind
from storage.identity import page_doc_id

_REDIRECT = re.compile(r"\s{0,99}#\s{0,9}[^\s\[\]]{1,30}\s{0,9}:?\s{0,9}\[\[")
_REDIRECT_BYTES = 2000
"""Old dumps do not mark redirects; an article that begins with a numbered link is longer."""
_REDIRECT_MARK_BYTES = 400
_BASE = re.compile(rb"<base>([^<>]{1,500})</base>")
_NAMESPACE = re.compile(rb'<namespace key="(6|14)"[^<>]{0,200}>([^<>]{1,100})</namespace>')
_TITLE = re.compile(rb"<title>([^<>]{1,500})</title>")


def read_mediawiki(raw: RawInput, config: ReadConfig) -> Iterator[Reading]:
    """Documents of the pages in a dump (plain, gzip, bzip2, zstd, xz)."""
    with open_raw(raw) as file:
        cutter = PageCutter(file, max_page_bytes=config.max_page_bytes)
        reader: _PageReader | None = None
        for page in cutter:
            if isinstance(page, DumpIndex):
                yield Skipped("index_of_a_dump")
            elif isinstance(page, DamagedPage):
                title = _TITLE.search(page.start)
                place = Place(raw.source, raw.name, page.offset)
                yield place.failure(page.reason, page.detail, item=_decode(title[1]) if title else None)
            else:
                reader = reader or _PageReader(raw, config, cutter.head)
                yield reader.read(page)


class _PageReader:
    """Reads pages by what the dump's head says of the wiki."""

    def __init__(self, raw: RawInput, config: ReadConfig, head: bytes) -> None:
        self._raw = raw
        self._namespaces = frozenset(map(str, config.namespaces))
        self._licence = raw.licence
        base = _BASE.search(head)
        self._url_base = _decode(base[1]).rpartition("/")[0] + "/" if base else None
        named = [(found[1], _decode(found[2]).lower().replace(" ", "_")) for found in _NAMESPACE.finditer(head)]
        site = Site(
            hidden_namespaces=frozenset(name for _, name in named),
            category_namespaces=frozenset(name for key, name in named if key == b"14"),
            parts=frozenset(config.wiki_parts),
            chinese_variants=config.chinese_variants,
        )
        self._plain_text = PlainText(site)

    def read(self, page: XmlPage) -> Reading:
        place = Place(
            self._raw.source, self._raw.name, page.offset, page.length, page=f"{page.page_id}/{page.revision_id}"
        )
        if late := begins(place):
            return late
        if not page.page_id:
            return place.failure("bad_page", "the page has no id or no revision", item=page.title or None)
        if unwanted := self._why_unwanted(page):
            return Skipped(unwanted)
        try:
            text = page.read_text()
        except ValueError as error:
            return place.failure("bad_xml", str(error), item=page.title or None)
        if len(text) < _REDIRECT_BYTES and b"#" in text[:_REDIRECT_MARK_BYTES] and _REDIRECT.match(text.decode()):
            return Skipped("redirect")
        return place.document(
            page_doc_id(self._raw.source, page=page.page_id, revision=page.revision_id),
            self._plain_text.read(text),
            title=page.title,
            url=self._url_base and self._url_base + quote(page.title.replace(" ", "_"), safe="/:@!$'()*,;~&="),
            collected_at=parse_time(page.timestamp),
            licence=self._licence,
            page_kind=page_kind(text),
        )

    def _why_unwanted(self, page: XmlPage) -> str | None:
        if (page.namespace or "0") not in self._namespaces:
            return "namespace"
        if page.is_redirect:
            return "redirect"
        return None if page.model in ("", "wikitext") else "not_wikitext"


def _decode(data: bytes) -> str:
    return unescape(data.decode("utf-8", "replace"))
