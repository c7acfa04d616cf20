"""URL duplicates: the normal form of addresses, held to a plain implementation, and the groups that it makes."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.dedup.exact import HASHES, group_copies
from pipelines.dedup.shuffle import gather_range
from pipelines.dedup.urls import TRACKING, normalise_urls, scatter_urls
from storage.schema import IDENTIFIER
from tests.pipelines.dedup.dedup_corpora import doc_id, names_of
from tests.pipelines.dedup.plain_urls import SPACES, plain_form


def form(url: str | None) -> str | None:
    found: list[str | None] = normalise_urls(pa.array([url], pa.string())).to_pylist()
    return found[0]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://www.Example.com:443/a/?utm_source=x&b=2&a=1#top", "example.com/a?a=1&b=2"),
        ("http://example.com", "example.com"),
        ("http://example.com:8080/", "example.com:8080"),
        ("https://example.com:80/", "example.com:80"),
        ("HTTP://EXAMPLE.com./A/b", "example.com/A/b"),
        ("http://www.com/", "www.com"),
        ("http://m.example.com/", "m.example.com"),
        ("http://user:Pw@Example.com/x", "user:Pw@example.com/x"),
        ("http://[::1]:80/x", "[::1]/x"),
        ("http://a.b/%7euser/caf%c3%a9", "a.b/~user/caf%C3%A9"),
        ("http://a.b/café x", "a.b/caf%C3%A9%20x"),
        ("http://a.b/100%", "a.b/100%25"),
        ("http://a.b/x%2Fy", "a.b/x%2Fy"),
        ("http://a.b//x/../y/", "a.b//x/../y"),
        ("http://a.b/shop;JSESSIONID=0A1/cart;v=1", "a.b/shop/cart;v=1"),
        ("http://a.b/?q=a+b&&p=%20", "a.b?p=%20&q=a%20b"),
        ("http://a.b/?x=2&x=1&a", "a.b?a&x=2&x=1"),
        ("http://a.b/?GCLID=1&utm_id=2&utm=3&fbclid", "a.b?utm=3"),
        ("http://a.b/?ref=front&id=7", "a.b?id=7&ref=front"),
        ("http://a.b/app#!/page/2", "a.b/app#!/page/2"),
        ("  http://a.b/x\n", "a.b/x"),
        ("ftp://A.b/X/", "ftp://a.b/X"),
        ("http://münchen.de/", "münchen.de"),
        ("a.b/x", None),
        ("12345", None),
        ("", None),
        (None, None),
        ("http://", None),
        ("http:///x", None),
        ("http://:80/", None),
        ("mailto:a@b.c", None),
        ("http://a b/", None),
        ("http://[::1]::/", None),
        ("http://[::1/", None),
    ],
)
def test_the_normal_form(url: str | None, expected: str | None) -> None:
    assert form(url) == expected
    assert url is None or plain_form(url) == expected


PIECES = [
    "http", "https", "FTP", "://", ":", "/", "//", "?", "&", "=", "#", "#!", "%", "%41", "%2f", "%C3", "%zz", "+", " ",
    ".", "..", "www.", "www", "@", ";", ";jsessionid=1", ";JSessionID", ":80", ":443", ":", "[::1]", "a", "B", "é",
    "\n", "z.com", "~", "-", "_", "utm_", "utm_x=1", "gclid=", "spm", "id=1", "\x7f", "漢", "\ud7ff",
]  # fmt: skip


@settings(max_examples=1500, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=18), st.booleans())
@example(["www.", "www."], True)
def test_the_kernel_agrees_with_a_plain_implementation(pieces: list[str], has_scheme: bool) -> None:
    url = ("https://" if has_scheme else "") + "".join(pieces)
    found = form(url)
    assert found == plain_form(url)
    if found is not None and url.lower().strip(SPACES).startswith(("http://", "https://")):
        assert form("https://" + found) == found


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40))
def test_any_text_can_be_read(text: str) -> None:
    assert form(text) == plain_form(text)
    assert form("http://" + text) == plain_form("http://" + text)


def test_every_tracking_parameter_is_dropped_and_longer_names_stay() -> None:
    for name in TRACKING:
        assert form(f"http://a.b/?{name}=1&{name.upper()}=2") == "a.b"
        longer = "http://a.b/?x" + name
        assert form(longer) == longer[len("http://") :].replace("/?", "?")


def test_long_queries_are_linear_and_keep_their_order() -> None:
    many = "http://a.b/?" + "&".join(f"p{i}={i}" for i in range(200_000, 0, -1))
    assert form(many) == plain_form(many) == many[len("http://") :].replace("/?", "?")


def test_documents_of_one_url_are_one_group_over_parts_and_ranges() -> None:
    urls = {"a": "http://x.org/1", "b": "https://www.x.org/1/", "c": "http://x.org/1#top", "d": "http://x.org/2"}
    urls |= {"e": None, "f": None, "g": "7", "h": "7"}
    chance = random.Random(3)
    names = chance.sample(sorted(urls), len(urls))
    for num_ranges in (1, 4):
        parts = [
            pa.table({"doc_id": pa.array([doc_id(n) for n in part], IDENTIFIER), "url": [urls[n] for n in part]})
            for part in (names[:3], names[3:])
        ]
        hashes = [scatter_urls(part, number, num_ranges) for number, part in enumerate(parts)]
        groups = pa.concat_tables([group_copies(gather_range(hashes, i, HASHES)) for i in range(num_ranges)])
        least = min("abc", key=doc_id)
        assert sorted(names_of(groups["doc_id"], urls)) == sorted(set("abc") - {least})  # type: ignore[type-var]
        assert set(names_of(groups["representative"], urls)) == {least}
