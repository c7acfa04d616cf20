"""Pages as MediaWiki writes them, read by patterns, against expat, which reads the same pages written otherwise."""

from __future__ import annotations

import bz2
import io
from pathlib import Path

import pytest

from sources.dumps.xml_pages import PageCutter, XmlPage


def pages_of(data: bytes) -> list[XmlPage]:
    found = list(PageCutter(io.BytesIO(data), max_page_bytes=10 << 20))
    assert all(isinstance(page, XmlPage) for page in found)
    return [page._replace(offset=0, length=0) for page in found if isinstance(page, XmlPage)]


@pytest.mark.parametrize("name", ["ltgwiki-pages-articles.xml.bz2", "enwiki-mini-wiki.xml.bz2"])
def test_patterns_and_expat_agree_on_real_dumps(shared_data: Path, name: str) -> None:
    data = bz2.decompress((shared_data / "encyclopedia" / name).read_bytes())
    by_patterns, by_expat = pages_of(data), pages_of(data.replace(b"<ns>", b"<ns >"))
    assert by_patterns == by_expat
    assert any(page.is_redirect for page in by_patterns) or name.startswith("enwiki")
    assert len({page.page_id for page in by_patterns}) == len(by_patterns) == data.count(b"<page>")
