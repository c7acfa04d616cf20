"""ARC files of old crawls, versions 1 and 2: their records as those of a WARC, whole, damaged, compressed or not."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pytest

from sources.inputs import expand_inputs
from sources.reading import ReadConfig, Skipped
from sources.web.warc import read_warc
from sources.web.warc_records import DamagedRecord, WarcRecord, read_records
from storage.schema import Document

SENTENCE = "The miller grinds the rye of the whole village in the old mill by the river, as she has for years. " * 4
PAGES = [
    "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"
    f"<html><title>p{n}</title><body><p>{SENTENCE}{n}</p></body></html>"
    for n in range(3)
]


def line(version: int, url: str, kind: str, size: int) -> bytes:
    more = " 200 checksum - 0 old.arc.gz" if version == 2 else ""
    return f"{url} 192.0.2.7 20080512131415 {kind}{more} {size}\n".encode()


def arc(version: int) -> list[bytes]:
    """A head, three pages, a DNS record and an image, a record each."""
    head = f"{version} 0 Archive\nURL IP-address Archive-date Content-type Archive-length\n".encode()
    image = b"HTTP/1.0 200 OK\r\nContent-Type: image/gif\r\n\r\nGIF89a\n\nhttp://x 1 2"
    blocks = [
        ("filedesc://old.arc.gz", "text/plain", head),
        *((f"http://old.example/{n}", "text/html", page.encode()) for n, page in enumerate(PAGES)),
        ("dns:old.example", "text/dns", b"20080512131415\nold.example. 60 IN A 192.0.2.7\n"),
        ("http://old.example/i.gif", "image/gif", image),
    ]
    return [line(version, url, kind, len(block)) + block + b"\n" for url, kind, block in blocks]


def put(path: Path, records: list[bytes]) -> list[object]:
    path.write_bytes(b"".join(gzip.compress(one) for one in records) if path.suffix == ".gz" else b"".join(records))
    (raw,) = expand_inputs("web", [str(path)])
    return list(read_warc(raw, ReadConfig()))


@pytest.mark.parametrize("name", ["old.arc", "old.arc.gz"])
@pytest.mark.parametrize("version", [1, 2])
def test_pages_of_an_arc_file(tmp_path: Path, name: str, version: int) -> None:
    found = put(tmp_path / name, arc(version))
    pages = [one for one in found if isinstance(one, Document)]
    assert [page.url for page in pages] == [f"http://old.example/{n}" for n in range(3)]
    assert all(SENTENCE.strip()[:80] in page.text for page in pages) and pages[1].title == "p1"
    assert {page.collected_at.isoformat() for page in pages if page.collected_at} == {"2008-05-12T13:14:15+00:00"}
    assert [one.reason for one in found if isinstance(one, Skipped)] == ["warcinfo", "not_html", "not_html"]
    data = (tmp_path / name).read_bytes()
    for page in pages:
        assert page.offset is not None and page.length is not None
        (again,) = read_records(io.BytesIO(data[page.offset : page.offset + page.length]), max_block_bytes=1 << 20)
        assert isinstance(again, WarcRecord) and again.headers["warc-target-uri"] == page.url


@pytest.mark.parametrize("version", [1, 2])
def test_a_wrong_length_costs_its_record(version: int) -> None:
    records = arc(version)
    size = str(len(PAGES[1])).encode()
    for wrong in (b"7", b"999999"):
        broken = records[2].replace(b" %s\n" % size, b" %s\n" % wrong, 1)
        data = b"".join([*records[:2], broken, *records[3:]])
        found = list(read_records(io.BytesIO(data), max_block_bytes=1 << 20))
        urls = [one.headers["warc-target-uri"] for one in found if isinstance(one, WarcRecord)]
        assert "http://old.example/1" not in urls and {"http://old.example/0", "http://old.example/2"} <= set(urls)
        (damage,) = [one for one in found if isinstance(one, DamagedRecord)]
        assert damage.reason == "wrong_length" and damage.url == "http://old.example/1"


def test_a_large_page_is_passed_over() -> None:
    large = line(1, "http://old.example/large", "text/html", 3_000_000) + b"x" * 3_000_000 + b"\n"
    found = list(read_records(io.BytesIO(b"".join([large, *arc(1)])), max_block_bytes=1 << 20))
    assert isinstance(found[0], WarcRecord) and found[0].oversize and len(found) == 7
