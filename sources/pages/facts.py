"""What a page says about itself outside its text: title, author, date, language, address, licence, kind.

Invariant: every value stands in the page; nothing is guessed. `<meta>`, then JSON-LD, then `<link>`, `<time>` and
`<html lang>` are asked, and the first that says something is believed. A damaged JSON-LD says nothing.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from sources.pages.scan import (
    NOTE_HTML,
    NOTE_JSON,
    NOTE_LICENCE,
    NOTE_LINK,
    NOTE_META,
    NOTE_TIME,
    NOTE_TITLE,
    Scan,
)

_ATTRIBUTE = re.compile(
    r"""([^\s"'<>/=]{1,60})\s{0,9}=\s{0,9}(?:"([^"]{0,20000})"|'([^']{0,20000})'|([^\s"'>]{1,2000}))"""
)
_TAGS = re.compile(r"<[^<>]{0,1000}>")
_LICENCE = re.compile(r"creativecommons\.org/(?:licenses|publicdomain)/", re.I)
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8}){0,3}\Z")
_MAX_JSON_BYTES = 400_000
_MAX_NODES = 2000

_AUTHOR_NAMES = ("author", "article:author", "dc.creator", "dcterms.creator", "citation_author", "parsely-author")
_DATE_NAMES = ("article:published_time", "datepublished", "date", "dc.date", "dcterms.date", "dcterms.created",
               "pubdate", "publishdate", "publish-date", "citation_publication_date", "parsely-pub-date",
               "og:published_time", "sailthru.date")  # fmt: skip
_DESCRIPTION_NAMES = ("description", "og:description", "twitter:description")
_ADDRESS = re.compile(r"https?://[^\s\"'<>]{1,2000}\Z")


@dataclass(frozen=True, slots=True)
class Facts:
    """`described` are texts about the page that need not stand in it; `kinds` lower-case schema.org and og types."""

    title: str | None = None
    author: str | None = None
    date: str | None = None
    language: str | None = None
    canonical_url: str | None = None
    licence_mark: str | None = None
    described: tuple[str, ...] = ()
    articles: tuple[str, ...] = ()
    kinds: frozenset[str] = field(default_factory=frozenset)


def read_facts(scan: Scan, heading: str = "") -> Facts:
    """The facts of a page; `heading` is the text of its first <h1>."""
    notes = _Notes(scan)
    metas, data = notes.metas(), list(notes.linked_data())
    links = list(notes.tags(NOTE_LINK))
    return Facts(
        title=_title(notes.title(), heading, metas),
        author=_first(_name(metas.get(name)) for name in _AUTHOR_NAMES) or _first(map(_author_of, data)),
        date=_first(metas.get(name) for name in _DATE_NAMES)
        or _first(_text_of(node, "datePublished", "uploadDate", "dateCreated") for node in data)
        or _first(tag.get("datetime") for tag in notes.tags(NOTE_TIME)),
        language=_language(notes, metas),
        canonical_url=_canonical(links, metas),
        licence_mark=_licence(notes, links, data),
        described=tuple(dict.fromkeys(filter(None, _descriptions(metas, data)))),
        articles=tuple(dict.fromkeys(filter(None, (_plain(_text_of(node, "articleBody")) for node in data)))),
        kinds=frozenset(_kinds(metas, data)),
    )


class _Notes:
    """The notes of a scan as text."""

    def __init__(self, scan: Scan) -> None:
        self._source = scan.source
        self._notes = scan.notes.tolist()

    def texts(self, kind: int) -> Iterator[str]:
        for found, start, end in self._notes:
            if found == kind:
                yield self._source[start : min(end, start + _MAX_JSON_BYTES)].decode("utf-8", "replace")

    def tags(self, kind: int) -> Iterator[dict[str, str]]:
        """The attributes of start tags; names in lower case, values with entities resolved."""
        for text in self.texts(kind):
            pairs = _ATTRIBUTE.findall(text)
            yield {name.lower(): html.unescape(a or b or c) for name, a, b, c in reversed(pairs)}

    def title(self) -> str:
        return _line(html.unescape(next(self.texts(NOTE_TITLE), "")[:2000]))

    def metas(self) -> dict[str, str]:
        """Contents by name, property, itemprop or http-equiv; the first of each counts."""
        found: dict[str, str] = {}
        for tag in self.tags(NOTE_META):
            content = tag.get("content", "").strip()
            for key in ("name", "property", "itemprop", "http-equiv"):
                if content and tag.get(key):
                    found.setdefault(tag[key].strip().lower(), content)
        return found

    def linked_data(self) -> Iterator[Mapping[str, Any]]:
        """The objects of JSON-LD, outer ones first."""
        waiting: list[Any] = []
        for text in self.texts(NOTE_JSON):
            try:
                waiting.append(orjson.loads(text.strip()))
            except orjson.JSONDecodeError:
                continue
        for number in range(_MAX_NODES):
            if number >= len(waiting):
                return
            node = waiting[number]
            if isinstance(node, dict):
                yield node
                waiting.extend(value for value in node.values() if isinstance(value, dict | list))
            elif isinstance(node, list):
                waiting.extend(node[:200])


def _line(text: str) -> str:
    return " ".join(text.split())


def _plain(text: str | None) -> str | None:
    """A description as text: markup and doubled entities go."""
    return html.unescape(_TAGS.sub(" ", html.unescape(text))).strip() if text else None


def _first(values: Any) -> str | None:
    return next((value for value in values if value), None)


def _title(title: str, heading: str, metas: Mapping[str, str]) -> str | None:
    """The page's <h1>, if the <title> is that and more (the site's name behind it); else the <title>."""
    heading = _line(heading)
    if len(heading) > 3 and title.startswith(heading):
        return heading
    return title or heading or _line(metas.get("og:title", "")) or None


def _name(value: str | None) -> str | None:
    value = _line(value or "")
    return value if value and len(value) <= 200 and not value.startswith(("http://", "https://")) else None


def _author_of(node: Mapping[str, Any]) -> str | None:
    author = node.get("author")
    for one in author if isinstance(author, list) else [author]:
        name = one.get("name") if isinstance(one, dict) else one
        if isinstance(name, str) and _name(name):
            return _name(name)
    return None


def _text_of(node: Mapping[str, Any], *keys: str) -> str | None:
    return _first(value.strip() for value in map(node.get, keys) if isinstance(value, str))


def _language(notes: _Notes, metas: Mapping[str, str]) -> str | None:
    tag = next(notes.tags(NOTE_HTML), {})
    for said in (tag.get("lang"), tag.get("xml:lang"), metas.get("content-language"), metas.get("og:locale")):
        language = (said or "").split(",")[0].strip()
        if _LANGUAGE.match(language):
            return language.replace("_", "-")
    return None


def _canonical(links: list[dict[str, str]], metas: Mapping[str, str]) -> str | None:
    said = [link.get("href", "").strip() for link in links if "canonical" in link.get("rel", "").lower().split()]
    return _first(url for url in (*said, metas.get("og:url", "").strip()) if _ADDRESS.match(url))


def _licence(notes: _Notes, links: list[dict[str, str]], data: list[Mapping[str, Any]]) -> str | None:
    """The address of a Creative Commons licence that the page links to or names."""
    named = (link.get("href", "") for link in links if "license" in link.get("rel", "").lower().split())
    given = (_text_of(node, "license") or "" for node in data)
    said = (*named, *given, *map(html.unescape, notes.texts(NOTE_LICENCE)))
    return _first(url.strip()[:300] for url in said if _LICENCE.search(url))


def _descriptions(metas: Mapping[str, str], data: list[Mapping[str, Any]]) -> Iterator[str | None]:
    for name in _DESCRIPTION_NAMES:
        yield _plain(metas.get(name))
    for node in data:
        yield _plain(_text_of(node, "description"))


def _kinds(metas: Mapping[str, str], data: list[Mapping[str, Any]]) -> Iterator[str]:
    if kind := metas.get("og:type"):
        yield f"og:{kind.lower()[:40]}"
    for node in data:
        stated = node.get("@type")
        for kind in stated if isinstance(stated, list) else [stated]:
            if isinstance(kind, str):
                yield kind.lower()[:40]
