"""Articles as Wikimedia Enterprise ships them, one JSON object a line: their wikitext as that of a dump, or their HTML.

https://enterprise.wikimedia.com/docs/data-dictionary/. An object is known by `article_body` with `wikitext` or `html`
in it. What reads either is loaded with the first article: other JSON lines pay nothing for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from sources.reading import ReadConfig
from sources.sandbox import PageExtractor


class EnterpriseArticles:
    """A context that turns such objects into rows with our own names."""

    def __init__(self, config: ReadConfig) -> None:
        self._config = config
        self._extractor = PageExtractor.as_configured(config)
        self._read_wikitext: Callable[[str], dict[str, Any]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._extractor.__exit__(kind, error, trace)

    def row(self, found: Mapping[str, Any]) -> Mapping[str, Any]:
        """The article's text, title, address, date, id and licence; any other object as it is.

        Raises ExtractionFailed where its HTML cannot be read.
        """
        body = found.get("article_body")
        if not isinstance(body, Mapping) or "text" in found:
            return found
        if isinstance(wikitext := body.get("wikitext"), str):
            self._read_wikitext = self._read_wikitext or _wikitext_reader(self._config)
            return _facts(found) | self._read_wikitext(wikitext)
        if isinstance(html := body.get("html"), str):
            page = self._extractor.extract(
                html.encode("utf-8", "replace"), announced_charset="utf-8", url=_string(found.get("url"))
            )
            return _facts(found) | {"text": page.text}
        return found


def _wikitext_reader(config: ReadConfig) -> Callable[[str], dict[str, Any]]:
    from sources.wikitext import PlainText, Site
    from sources.wikitext.page_kind import page_kind

    plain_text = PlainText(Site(parts=frozenset(config.wiki_parts), chinese_variants=config.chinese_variants))

    def read(wikitext: str) -> dict[str, Any]:
        markup = wikitext.encode("utf-8", "replace")
        return {"text": plain_text.read(markup), "page_kind": page_kind(markup)}

    return read


def _facts(found: Mapping[str, Any]) -> dict[str, Any]:
    licences = found.get("license")
    first = licences[0] if isinstance(licences, list) and licences else None
    return {
        "title": found.get("name"),
        "url": found.get("url"),
        "date": found.get("date_modified"),
        "id": found.get("identifier"),
        "licence": first.get("identifier") if isinstance(first, Mapping) else None,
    }


def _string(value: object) -> str | None:
    return value if isinstance(value, str) else None
