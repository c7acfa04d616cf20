"""Dumps to documents: what is read, and what is kept of a dump that is broken."""

from __future__ import annotations

import bz2
import gzip
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sources.dumps.mediawiki import read_mediawiki
from sources.reading import ReadConfig, Reading, Skipped
from storage.identity import page_doc_id
from tests.sources.captures import documents, dump, failures, page, reasons, texts, write

PAGES = [page(n, f"'''Article''' {n} about [[mill]]s.") for n in range(1, 6)]
WHOLE = dump(PAGES)


def read(folder: Path, data: bytes, config: ReadConfig | None = None, **more: str) -> list[Reading]:
    return list(read_mediawiki(write(folder, "d.xml", data, "mediawiki", **more), config or ReadConfig()))


@pytest.mark.parametrize("compress", [bytes, bz2.compress, gzip.compress])
def test_articles_become_documents(tmp_path: Path, compress) -> None:  # type: ignore[no-untyped-def]
    data = dump([page(7, "'''Ely''' is a city.", title="Ely & Cambridge (UK)")])
    [document] = documents(read(tmp_path, compress(data), licence="CC-BY-SA"))
    assert document.text == "Ely is a city." and document.title == "Ely & Cambridge (UK)"
    assert document.url == "https://en.wikipedia.org/wiki/Ely_&_Cambridge_(UK)"
    assert document.collected_at == datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert document.page == "7/70" and document.licence == "CC-BY-SA"
    assert document.doc_id == page_doc_id("s", page="7", revision="70")
    assert data[document.offset :][: document.length].startswith(b"<page><title>Ely")  # type: ignore[misc]


def test_redirects_and_other_namespaces_are_counted(tmp_path: Path) -> None:
    pages = [
        page(1, "text"),
        page(2, "#REDIRECT [[Page 1]]", extra='<redirect title="Page 1" />'),
        page(3, "#重定向 [[Page 1]]"),
        page(4, "talk", namespace=1),
        page(5, "{{notice}}"),
        page(6, "return {}").replace("<model>wikitext", "<model>Scribunto"),
    ]
    readings = read(tmp_path, dump(pages))
    assert texts(readings) == ["text"]
    skipped = [reading.reason for reading in readings if isinstance(reading, Skipped)]
    assert skipped == ["redirect", "redirect", "namespace", "empty_text", "not_wikitext"]
    assert "talk" in texts(read(tmp_path, dump(pages), ReadConfig(namespaces=(0, 1))))


def test_the_dump_names_its_own_namespaces(tmp_path: Path) -> None:
    site = '<siteinfo><namespaces><namespace key="6" case="first-letter">Attāls</namespace></namespaces></siteinfo>'
    assert texts(read(tmp_path, dump([page(1, "[[Attāls:A.jpg|thumb|x]]text")], site=site))) == ["text"]


@pytest.mark.parametrize("text", ["<text>old</text>", "<text />", '<text deleted="deleted" bytes="7" />'])
def test_of_several_revisions_the_newest_is_read(tmp_path: Path, text: str) -> None:
    old = f"<revision><id>1</id>{text}</revision>"
    for several in (old, 3 * old):
        [document] = documents(read(tmp_path, dump([page(1, "new").replace("<revision>", several + "<revision>")])))
        assert document.text == "new" and document.page == "1/10"


def test_a_newest_revision_without_text_has_none_of_an_older_one(tmp_path: Path) -> None:
    hidden = page(1, "old").replace("</page>", "<revision><id>9</id><text deleted='x' /></revision></page>")
    assert not documents(read(tmp_path, dump([hidden])))


def test_the_index_beside_a_multistream_dump_is_left_out(tmp_path: Path) -> None:
    """`*multistream*` names both."""
    lines = b"654:10:AccessibleComputing\n654:12:Anarchism\n"
    assert read(tmp_path, bz2.compress(lines)) == [Skipped("index_of_a_dump")]
    assert reasons(read(tmp_path, b"12:30 is a time\n")) == ["not_mediawiki"]


def test_a_dump_that_is_cut_keeps_what_came_before(tmp_path: Path) -> None:
    whole = texts(read(tmp_path, WHOLE))
    cut = WHOLE.index(b"Article''' 4")
    readings = read(tmp_path, WHOLE[:cut])
    assert texts(readings) == whole[:3]
    [failure] = failures(readings)
    assert failure.reason == "truncated" and failure.item == "Page 4"
    assert failure.offset == WHOLE.index(b"<page><title>Page 4")


def test_a_dump_that_ends_between_pages_says_so(tmp_path: Path) -> None:
    readings = read(tmp_path, WHOLE[: WHOLE.index(b"<page><title>Page 4")])
    assert len(texts(readings)) == 3 and reasons(readings) == ["truncated"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (b"&unknown;", "bad_xml"),
        (b"<b>", "bad_xml"),
        (b"\x00", "bad_xml"),
        (b"\xff", "bad_xml"),
        (b"</text><page>", "unclosed_page"),
    ],
)
def test_a_broken_page_costs_itself(tmp_path: Path, damage: bytes, reason: str) -> None:
    readings = read(tmp_path, WHOLE.replace(b"Article''' 2", damage))
    assert len(texts(readings)) == 4
    assert reasons(readings)[0] == reason


def test_entities_are_not_expanded(tmp_path: Path) -> None:
    bomb = b'<!DOCTYPE m [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;"><!ENTITY c SYSTEM "/etc/passwd">]>'
    readings = read(tmp_path, bomb + WHOLE.replace(b"Article''' 2", b"&b; &c;"))
    assert len(texts(readings)) == 4 and reasons(readings) == ["bad_xml"]


def test_large_pages_are_passed_over(tmp_path: Path) -> None:
    data = dump([PAGES[0], page(9, "word " * 100_000, title="Long"), PAGES[1]])
    readings = read(tmp_path, data, ReadConfig(max_page_bytes=50_000))
    assert len(texts(readings)) == 2
    [failure] = failures(readings)
    assert (failure.reason, failure.item) == ("page_too_large", "Long")


def test_a_file_that_is_no_dump(tmp_path: Path) -> None:
    [failure] = failures(read(tmp_path, b"<html>hello</html>"))
    assert failure.reason == "not_mediawiki" and "<html>hello" in failure.detail


def test_a_cut_compressed_dump_has_one_failure(tmp_path: Path) -> None:
    readings = read(tmp_path, gzip.compress(WHOLE)[:-40])
    assert len(texts(readings)) >= 1 and reasons(readings) == ["truncated_compression"]


def test_streams_of_a_multistream_dump_stand_for_themselves(tmp_path: Path) -> None:
    """Damage to one bzip2 stream costs its pages."""
    streams = [bz2.compress(one.encode()) for one in PAGES]
    streams[2] = streams[2][:60] + b"\x00\x00\x00\x00" + streams[2][64:]
    data = bz2.compress(b"<mediawiki>") + b"".join(streams) + bz2.compress(b"</mediawiki>")
    readings = read(tmp_path, data)
    assert [text.split()[1] for text in texts(readings)] == ["1", "2", "4", "5"]
    assert reasons(readings) == ["damaged_compression"]


def test_a_whole_small_wiki(shared_data: Path) -> None:
    path = shared_data / "encyclopedia" / "ltgwiki-pages-articles.xml.bz2"
    data = bz2.decompress(path.read_bytes())
    from sources.reading import RawInput

    raw = RawInput(source="s", kind="mediawiki", path=str(path), name=path.name, size=1)
    readings = list(read_mediawiki(raw, ReadConfig()))
    assert len(readings) == data.count(b"<page>") and not failures(readings)
    assert len(documents(readings)) > 890
