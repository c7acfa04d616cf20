"""What pages say of themselves, and whom we believe first."""

from __future__ import annotations

import pytest

from sources.pages.facts import Facts, read_facts
from sources.pages.scan import scan_page


def facts(html: str, heading: str = "") -> Facts:
    return read_facts(scan_page(html.encode()), heading)


@pytest.mark.parametrize(
    ("html", "name", "value"),
    [
        ('<meta name="author" content="Ada  Byron">', "author", "Ada Byron"),
        ('<meta content="Ada" property=article:author>', "author", "Ada"),
        ('<meta property="article:author" content="https://f.example/ada">', "author", None),
        ('<script type="application/ld+json">{"@graph":[{"author":[{"name":"Ada"}]}]}</script>', "author", "Ada"),
        ('<script type="application/ld+json">{"author": </script>', "author", None),
        ('<meta property="article:published_time" content="2020-01-02">', "date", "2020-01-02"),
        ('<script type="application/ld+json">[{"datePublished":"2020-01-02"}]</script>', "date", "2020-01-02"),
        ('<p>on <time datetime="2020-01-02T03:04Z">Tuesday</time>', "date", "2020-01-02T03:04Z"),
        ('<html lang="en_GB">', "language", "en-GB"),
        ('<html lang="??"><meta property="og:locale" content="zh_CN">', "language", "zh-CN"),
        ('<link rel="canonical" href="https://a.example/b?c=1&amp;d=2">', "canonical_url", "https://a.example/b?c=1&d=2"),
        ('<link rel=canonical href="/b"><meta property=og:url content="https://a.example/">', "canonical_url",
         "https://a.example/"),
        ('<a rel="license" href="https://creativecommons.org/licenses/by/4.0/">CC</a>', "licence_mark",
         "https://creativecommons.org/licenses/by/4.0/"),
        ('<a href="https://example.org/licenses">CC</a>', "licence_mark", None),
        ("<title>Fl&amp;ur</title>", "title", "Fl&ur"),
        ('<meta property="og:title" content="Flour">', "title", "Flour"),
        ("<svg><title>icon</title></svg>", "title", None),
    ],
)  # fmt: skip
def test_facts(html: str, name: str, value: str | None) -> None:
    assert getattr(facts(html), name) == value


def test_the_heading_is_the_title_less_the_name_of_the_site() -> None:
    assert facts("<title>Flour – The Mill</title>", "Flour").title == "Flour"
    assert facts("<title>The Mill</title>", "Flour").title == "The Mill"


def test_texts_about_the_page() -> None:
    found = facts(
        '<meta name=description content="Grain &amp;amp; stone"><script type="application/ld+json">'
        '{"@type":"NewsArticle","articleBody":"One <b>two</b>"}</script>'
    )
    assert found.described == ("Grain & stone",) and found.kinds == {"newsarticle"}
    assert [" ".join(text.split()) for text in found.articles] == ["One two"]


def test_many_and_deep_data_cost_little() -> None:
    deep = '{"a":' * 100_000 + "1" + "}" * 100_000
    assert facts(f'<script type="application/ld+json">{deep}</script><title>x</title>').title == "x"
    assert facts("<meta name=a content=b>" * 100_000 + "<title>x</title>").title in (None, "x")
