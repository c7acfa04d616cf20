"""Articles as Wikimedia Enterprise ships them, one JSON object a line: their wikitext, read as that of a dump.

https://enterprise.wikimedia.com/docs/data-dictionary/. An object is known by `article_body` with `wikitext` in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sources.reading import ReadConfig
from sources.wikitext import PlainText, Site
from sources.wikitext.page_kind import page_kind


class EnterpriseArticles:
    """Turns such objects into rows with our own names; the reader of wikitext is made for the first one."""

    def __init__(self, config: ReadConfig) -> None:
        self._site = Site(keep_tables=config.keep_tables, chinese_variants=config.chinese_variants)
        self._plain_text: PlainText | None = None

    def row(self, found: Mapping[str, Any]) -> Mapping[str, Any]:
        """The article's text, title, address, date, id and licence; any other object as it is."""
        body = found.get("article_body")
        wikitext = body.get("wikitext") if isinstance(body, Mapping) and "text" not in found else None
        if not isinstance(wikitext, str):
            return found
        markup = wikitext.encode("utf-8", "replace")
        self._plain_text = self._plain_text or PlainText(self._site)
        licences = found.get("license")
        first = licences[0] if isinstance(licences, list) and licences else None
        return {
            "text": self._plain_text.read(markup),
            "title": found.get("name"),
            "url": found.get("url"),
            "date": found.get("date_modified"),
            "id": found.get("identifier"),
            "page_kind": page_kind(markup),
            "licence": first.get("identifier") if isinstance(first, Mapping) else None,
        }
