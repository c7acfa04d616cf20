"""The extractors that pages are read by side by side: ours by mode, and each library that is installed.

Invariant: each gets a page's bytes and the charset of its HTTP header, and where it wants text, what one function
decodes; a library that raises over a page found nothing in it. Libraries are asked as their own documentation asks
them, with the language where they want to be told one.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

from benchmarks.web_pages import GoldPage
from sources.reading import EXTRACTIONS
from sources.web.charset import decode_html
from sources.web.html import extract_page

Extract = Callable[[GoldPage], str]
PEER = "trafilatura"
PEER_PACKAGES = (
    "trafilatura", "resiliparse", "jusText", "readability-lxml", "newspaper4k", "goose3", "gne",
)  # fmt: skip


def extractors() -> dict[str, Extract]:
    """Ours by mode, and each library that is installed."""
    ours: dict[str, Extract] = {f"ours, `{mode}`": _ours(mode) for mode in EXTRACTIONS}
    return ours | {name: _forgiving(load()) for name, (module, load) in _LIBRARIES.items() if _is_installed(module)}


def _is_installed(module: str) -> bool:
    try:
        with warnings.catch_warnings(action="ignore"):
            importlib.import_module(module)
    except ImportError:
        return False
    return True


def _forgiving(extract: Extract) -> Extract:
    """They raise classes of their own over pages that they find nothing in, and others over broken ones."""

    def found(page: GoldPage) -> str:
        try:
            return extract(page)
        except Exception:
            return ""

    return found


def _ours(mode: Any) -> Extract:
    return lambda page: extract_page(page.data, announced_charset=page.charset, url=page.url, mode=mode).text


def _html(page: GoldPage) -> str:
    return decode_html(page.data, page.charset)


def _trafilatura(*, fast: bool) -> Extract:
    import trafilatura

    return lambda page: trafilatura.extract(_html(page), fast=fast) or ""


def _resiliparse() -> Extract:
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    return lambda page: extract_plain_text(HTMLTree.parse(_html(page)), main_content=True, alt_texts=False)


def _justext() -> Extract:
    import justext

    words = {"English": justext.get_stoplist("English"), "Chinese": frozenset[str]()}

    def extract(page: GoldPage) -> str:
        chosen = words["Chinese" if page.is_chinese else "English"]
        low, high = (0.0, 0.0) if page.is_chinese else (0.3, 0.32)
        found = justext.justext(page.data, chosen, stopwords_low=low, stopwords_high=high)
        return "\n".join(one.text for one in found if not one.is_boilerplate)

    return extract


def _readability() -> Extract:
    import readability
    from lxml.html import fromstring

    return lambda page: str(fromstring(readability.Document(_html(page)).summary()).text_content())


def _newspaper() -> Extract:
    import newspaper

    def extract(page: GoldPage) -> str:
        language = "zh" if page.is_chinese else "en"
        return str(newspaper.article(page.url, language=language, input_html=_html(page)).text)

    return extract


def _goose() -> Extract:
    from goose3 import Goose
    from goose3.text import StopWordsChinese

    readers = (Goose({"enable_image_fetching": False}),
               Goose({"enable_image_fetching": False, "stopwords_class": StopWordsChinese}))  # fmt: skip
    return lambda page: str(readers[page.is_chinese].extract(raw_html=_html(page)).cleaned_text)


def _gne() -> Extract:
    from gne import GeneralNewsExtractor

    return lambda page: str(GeneralNewsExtractor().extract(_html(page))["content"])


_LIBRARIES: dict[str, tuple[str, Callable[[], Extract]]] = {
    PEER: ("trafilatura", lambda: _trafilatura(fast=False)),
    "trafilatura fast": ("trafilatura", lambda: _trafilatura(fast=True)),
    "resiliparse": ("resiliparse", _resiliparse),
    "jusText": ("justext", _justext),
    "readability-lxml": ("readability", _readability),
    "newspaper4k": ("newspaper", _newspaper),
    "goose3": ("goose3", _goose),
    "gne": ("gne", _gne),
}
