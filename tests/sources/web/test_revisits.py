"""Revisits: resolved to what lies in the same file, by each way of naming it, and counted where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from sources.reading import ReadConfig, Reading, Skipped
from sources.web import revisits
from sources.web.warc import read_warc
from tests.sources.captures import article, documents, members, record, response, write

ORIGINAL = response(1, article("Mills")).replace(
    b"WARC-Date", b"WARC-Payload-Digest: sha1:ABC\r\nWARC-Date", 1
)  # its id is urn:uuid:1, its address https://example.org/1, its date 2024-05-01T12:00:00Z
HTTP = b"HTTP/1.1 304 Not Modified\r\nServer: x\r\n\r\n"


def revisit(number: int, headers: str) -> bytes:
    return record(number, HTTP, kind="revisit", content_type="application/http; msgtype=response", headers=headers)


def read(folder: Path, records: list[bytes]) -> list[Reading]:
    return list(read_warc(write(folder, "a.warc.gz", members(records), "warc"), ReadConfig(extraction="fast")))


NAMED = {
    "id": "WARC-Refers-To: <urn:uuid:1>\r\n",
    "digest": "WARC-Payload-Digest: sha1:ABC\r\n",
    "address and date": "WARC-Refers-To-Target-URI: https://example.org/1\r\n"
    "WARC-Refers-To-Date: 2024-05-01T12:00:00Z\r\n",
}


@pytest.mark.parametrize("headers", NAMED.values(), ids=NAMED)
def test_a_revisit_is_its_original_under_its_own_name(tmp_path: Path, headers: str) -> None:
    packed = [ORIGINAL, response(2, article("Other")), revisit(3, headers), response(4, article("Last"))]
    found = documents(read(tmp_path, packed))
    assert [one.url and one.url[-1] for one in found] == list("1234")
    assert found[2].text == found[0].text and found[2].doc_id != found[0].doc_id
    assert found[2].offset == len(members(packed[:2])) and found[2].length == len(members(packed[2:3]))


@pytest.mark.parametrize("headers", ["WARC-Refers-To: <urn:uuid:9>\r\n", "WARC-Payload-Digest: sha1:X\r\n", ""])
def test_a_revisit_of_what_is_not_here_is_counted(tmp_path: Path, headers: str) -> None:
    assert read(tmp_path, [ORIGINAL, revisit(3, headers)])[1] == Skipped("revisit")


def test_a_revisit_of_an_unwanted_record_is_unwanted_too(tmp_path: Path) -> None:
    records = [response(1, b"GIF89a", http="Content-Type: image/gif"), revisit(2, NAMED["id"])]
    assert read(tmp_path, records) == [Skipped("not_html"), Skipped("not_html")]


def test_originals_far_back_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revisits, "MOST_ORIGINALS", 2)
    fillers = [response(n, article(f"Filler {n}")) for n in range(10, 16)]
    assert read(tmp_path, [ORIGINAL, *fillers, revisit(3, NAMED["id"])])[-1] == Skipped("revisit")
