"""WARC and WET to documents: what is read, what is passed over, and what HTTP and character sets do to it."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from pathlib import Path

import brotli
import pytest

from sources.reading import RawInput, ReadConfig, Reading, Skipped
from sources.web.warc import read_warc, read_wet
from storage.identity import offset_doc_id, record_doc_id
from tests.sources.captures import article, documents, failures, members, reasons, record, response, texts, write

PAGE = article("Mills")


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory) -> list[Reading]:
    """One archive with every kind of record, read once."""
    html = "Content-Type: text/html"
    records = [
        record(0, b"software: test", kind="warcinfo", content_type="application/warc-fields"),
        record(1, b"GET / HTTP/1.1\r\n\r\n", kind="request", content_type="application/http; msgtype=request"),
        response(2, PAGE),
        response(3, article("Missing"), status="404 Not Found"),
        response(4, b"\x89PNG\r\n", http="Content-Type: image/png"),
        response(5, gzip.compress(article("Gzip")), http=f"{html}\r\nContent-Encoding: gzip"),
        response(6, chunked(article("Chunks")), http=f"{html}\r\nTransfer-Encoding: chunked"),
        response(7, brotli.compress(article("Brotli")), http=f"{html}\r\nContent-Encoding: br"),
        response(8, article("Undone"), http=f"{html}\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked"),
        response(9, b"\xff\xfe\x00 not gzip", http=f"{html}\r\nContent-Encoding: gzip"),
        response(10, "这是一个关于磨坊的中文网页，内容足够长。".encode("gb18030") * 8, http=html),
        response(11, b"<html><body></body></html>"),
        response(12, article("Sniffed"), http="Server: old"),
        record(13, b"no http at all", kind="response", content_type="application/http; msgtype=response"),
        record(14, article("Resource"), kind="resource", content_type="text/html"),
        record(15, b"dns:example.org", kind="response", content_type="text/dns"),
        record(16, b"", kind="revisit", content_type="application/http"),
        response(17, b"<html>" + b"<p>word</p>" * 20_000),
        response(18, gzip.compress(bytes(50_000_000)), http=f"{html}\r\nContent-Encoding: gzip"),
        response(19, b"x" * 400_000, http="Content-Type: video/mp4"),
        record(20, "plain — text".encode(), kind="conversion"),
        response(21, PAGE, http="Content-Type: text/html; charset=no-such-thing"),
    ]
    raw = write(tmp_path_factory.mktemp("crawl"), "a.warc.gz", members(records), "warc", licence="CC-BY")
    return list(read_warc(raw, ReadConfig(max_page_bytes=100_000)))


def test_each_record_gives_one_reading(crawl: list[Reading]) -> None:
    assert len(crawl) == 22


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (2, "Mills"),
        (5, "Gzip"),
        (6, "Chunks"),
        (7, "Brotli"),
        (8, "Undone"),
        (12, "Sniffed"),
        (14, "Resource"),
        (21, "Mills"),
    ],
)
def test_pages_become_documents(crawl: list[Reading], number: int, word: str) -> None:
    [document] = documents([crawl[number]])
    assert document.title == f"On {word}"
    assert document.text.startswith(f"{word} 0. More of the same") and "<" not in document.text
    assert document.url == f"https://example.org/{number}"
    assert document.collected_at == datetime(2024, 5, 1, 12, tzinfo=UTC)
    assert document.licence == "CC-BY"
    assert document.doc_id == record_doc_id("s", record_id=f"urn:uuid:{number}")


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (0, "warcinfo"), (1, "request"), (3, "http_status"), (4, "not_html"), (11, "empty_text"), (15, "not_html"),
        (16, "revisit"), (19, "not_html"),
    ],
)  # fmt: skip
def test_what_is_not_wanted_is_counted(crawl: list[Reading], number: int, reason: str) -> None:
    assert crawl[number] == Skipped(reason)


@pytest.mark.parametrize(
    ("number", "reason"),
    [(9, "bad_content_encoding"), (13, "no_http_status"), (17, "page_too_large"), (18, "page_too_large")],
)
def test_what_cannot_be_read_fails_with_its_place(crawl: list[Reading], number: int, reason: str) -> None:
    [failure] = failures([crawl[number]])
    assert failure.reason == reason
    assert failure.item == f"https://example.org/{number}" and failure.offset is not None


def test_chinese_without_a_declaration(crawl: list[Reading]) -> None:
    assert texts([crawl[10]])[0].startswith("这是一个关于磨坊的中文网页")


def test_conversions_are_text(crawl: list[Reading]) -> None:
    assert texts([crawl[20]]) == ["plain — text"]


def test_wet_takes_conversions_only(tmp_path: Path) -> None:
    records = [
        record(0, b"info", kind="warcinfo"),
        record(1, b"some text\xff"),
        record(2, b" \r\n "),
        response(3, PAGE),
    ]
    readings = list(read_wet(write(tmp_path, "a.wet.gz", members(records), "wet"), ReadConfig()))
    assert texts(readings) == ["some text\ufffd"]
    assert (
        readings[0] == Skipped("warcinfo")
        and readings[2] == Skipped("empty_text")
        and readings[3] == Skipped("response")
    )


def test_records_without_an_id_are_known_by_place(tmp_path: Path) -> None:
    records = [record(n, f"text {n}".encode()).replace(b"WARC-Record-ID", b"X-Other") for n in range(3)]
    raw = write(tmp_path, "a.wet", b"".join(records), "wet")
    found = documents(read_wet(raw, ReadConfig()))
    assert [one.doc_id for one in found] == [offset_doc_id("s", file="a.wet", offset=one.offset or 0) for one in found]
    shared = documents(read_wet(write(tmp_path, "b.wet.gz", gzip.compress(b"".join(records)), "wet"), ReadConfig()))
    assert len({one.doc_id for one in shared}) == 3


def test_a_moved_file_keeps_its_ids(tmp_path: Path) -> None:
    data = record(1, b"text").replace(b"WARC-Record-ID", b"X-Other")
    (tmp_path / "elsewhere").mkdir()
    one, two = write(tmp_path, "a.wet", data, "wet"), write(tmp_path / "elsewhere", "a.wet", data, "wet")
    assert documents(read_wet(one, ReadConfig())) == documents(read_wet(two, ReadConfig()))


def test_remote_files_are_read(tmp_path: Path) -> None:
    import fsspec

    with fsspec.open("memory://crawl/a.wet.gz", "wb") as file:
        file.write(members([record(1, b"from afar")]))
    raw = RawInput(source="s", kind="wet", path="memory://crawl/a.wet.gz", name="a.wet.gz", size=0)
    assert texts(read_wet(raw, ReadConfig())) == ["from afar"]
    assert reasons(read_wet(raw, ReadConfig())) == []
