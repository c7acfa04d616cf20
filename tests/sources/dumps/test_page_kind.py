"""What wikis mark their pages as, in the markup that they do it with."""

from __future__ import annotations

import bz2
from collections import Counter
from pathlib import Path

import pytest

from sources.dumps.mediawiki import read_mediawiki
from sources.reading import RawInput, ReadConfig
from sources.wikitext.page_kind import page_kind
from tests.sources.captures import documents

LONG = "A mill grinds corn. " * 2_000
KINDS = {
    "{{Disambiguation}}": "disambiguation",
    "'''Ely''' is:\n* a city\n{{disambig|geo}}": "disambiguation",
    "{{Human_name disambiguation}}": "disambiguation",
    "Ely: {{Begriffsklärung}}": "disambiguation",
    "{{ Homonymie }}": "disambiguation",
    "{{aimai}}": "disambiguation",
    "{{消歧义}}": "disambiguation",
    "__DISAMBIG__": "disambiguation",
    "[[Category:Disambiguation pages]]": "disambiguation",
    "{{disambig}} {{stub}}": "disambiguation",
    LONG + "{{disambig}}": "disambiguation",
    "{{stub}}": "stub",
    "x {{UK-mill-stub}}": "stub",
    "{{Ébauche|moulin}} x": "stub",
    "{{토막글|물}}": "stub",
    "{{بذرة طاحونة}}": "stub",
    "[[Category:Mill stubs]]": "stub",
    LONG + "{{mill-stub}}\n[[fr:Moulin]]": "stub",
    "A mill.": "article",
    "{{Begriffsklärungshinweis}} {{about|x}} {{disambiguation needed}}": "article",
    "<!-- {{stub}} --> {{section stub}}": "article",
    "A stub and a [[disambig]]. {{Infobox|stub=yes}}": "article",
}


@pytest.mark.parametrize(("wikitext", "kind"), KINDS.items(), ids=[text[-40:] for text in KINDS])
def test_kind(wikitext: str, kind: str) -> None:
    assert page_kind(wikitext.encode()) == kind


def test_any_bytes_are_a_page() -> None:
    assert page_kind(b"\xff{{stub}}\x80") == "stub"


@pytest.mark.parametrize(("name", "wanted"), [("ltgwiki-pages-articles", {"stub": 14}),
                                              ("enwiki-mini-wiki", {"stub": 3, "disambiguation": 1})])  # fmt: skip
def test_real_pages_are_marked(shared_data: Path, name: str, wanted: dict[str, int]) -> None:
    path = shared_data / "encyclopedia" / f"{name}.xml.bz2"
    assert b"{{" in bz2.decompress(path.read_bytes())
    raw = RawInput(source="s", kind="mediawiki", path=str(path), name=path.name, size=1)
    found = Counter(document.page_kind for document in documents(read_mediawiki(raw, ReadConfig())))
    assert {kind: found[kind] for kind in wanted} == wanted
