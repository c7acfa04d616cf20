"""Remote inputs: ranges of a server that fails in every way, kept downloads, Common Crawl by name, captures."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from sources.ingest import IngestConfig, ingest, read
from sources.inputs import expand_inputs, identify
from sources.reading import RawInput, ReadConfig, Skipped
from sources.remote import captures, files, ranges
from sources.remote.common_crawl import CrawlName, draw_files, parse_crawl_name
from sources.remote.files import open_remote
from sources.remote.index_lines import parse_capture
from storage.errors import InputError
from storage.schema import Document, Failure
from tests.sources.bad_server import BadServer, bad_server
from tests.sources.captures import record

CRAWL = "CC-MAIN-2099-01"
DATA = random.Random(1).randbytes(300_000)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[BadServer]:
    patience = ranges.Patience(
        attempts=5, first_pause_seconds=0.01, longest_pause_seconds=0.05, silence_seconds=0.4, range_seconds=5
    )
    monkeypatch.setattr(ranges, "PATIENCE", patience)
    monkeypatch.setattr(files, "PIECE_BYTES", 1 << 16)
    monkeypatch.setenv(files.FOLDER, str(tmp_path / "downloads"))
    monkeypatch.setattr(files, "WAIT_SECONDS", 0.0)
    ranges._client.cache_clear()
    with bad_server() as running:
        yield running
    ranges._client.cache_clear()


@pytest.mark.parametrize("mood", ["503", "503 0", "429", "truncate", "stall", "reset", "no ranges", "other range"])
def test_whatever_passes_is_tried_again(server: BadServer, mood: str) -> None:
    server.files["/a.bin"] = DATA
    server.moods = ["ok", mood, "ok", mood, mood]
    with open_remote(f"{server.url}/a.bin", keep=False) as file:
        assert file.read() == DATA
    assert len(server.asked) == 1 + 5 + 3


def test_it_seeks_and_holds_two_pieces(server: BadServer) -> None:
    server.files["/a.bin"] = DATA
    with open_remote(f"{server.url}/a.bin", keep=False) as file:
        for place in (250_000, 0, 65_535, 299_999, 131_072):
            file.seek(place)
            assert file.read(10) == DATA[place : place + 10]
        assert file.seek(-5, 2) == len(DATA) - 5 and file.read() == DATA[-5:]
        assert len(file._pieces) <= 2  # type: ignore[attr-defined]


def test_a_server_without_ranges_is_read_whole_and_begun_anew(server: BadServer) -> None:
    server.files["/a.bin"], server.ranges = DATA, False
    server.moods = ["ok", "truncate", "reset"]
    with open_remote(f"{server.url}/a.bin", keep=False) as file:
        assert file.read() == DATA


def test_it_gives_up_in_words_and_refuses_at_once_what_cannot_be(server: BadServer) -> None:
    server.files["/a.bin"] = DATA
    server.moods = ["503"] * 5
    with pytest.raises(InputError, match="gave up after 5 attempts: status 503") as caught:
        open_remote(f"{server.url}/a.bin", keep=False)
    assert caught.value.hint and "run the same command again" in caught.value.hint
    server.moods, server.asked = ["403"], []
    with pytest.raises(InputError, match="status 403"):
        open_remote(f"{server.url}/a.bin", keep=False)
    with pytest.raises(InputError, match="status 404"):
        open_remote(f"{server.url}/missing", keep=False)
    assert len(server.asked) == 2


def test_a_kept_download_goes_on_where_it_stopped(server: BadServer, tmp_path: Path) -> None:
    server.files["/a.bin"] = DATA
    server.moods = ["ok", "ok", "ok", *["503"] * 5]
    with pytest.raises(InputError, match="gave up"):
        open_remote(f"{server.url}/a.bin", keep=True)
    server.asked = []
    with open_remote(f"{server.url}/a.bin", keep=True) as file:
        assert file.read() == DATA
    assert [asked for _, asked in server.asked][:2] == ["bytes=0-0", "bytes=131072-196607"]
    (note,) = (tmp_path / "downloads").rglob("a.bin.json")
    assert json.loads(note.read_bytes())["size"] == len(DATA) and not list(tmp_path.rglob("*.part"))


def test_a_kept_file_is_read_without_the_server_and_fetched_anew_when_it_changed(server: BadServer) -> None:
    server.files["/a.bin"] = DATA
    open_remote(f"{server.url}/a.bin", keep=True).close()
    server.moods = ["503"] * 5
    with open_remote(f"{server.url}/a.bin", keep=True) as file:
        assert file.read() == DATA
    server.moods, server.files["/a.bin"] = [], DATA[::-1]
    with open_remote(f"{server.url}/a.bin", keep=True) as file:
        assert file.read() == DATA[::-1]


def test_other_bytes_than_the_store_has_are_refused(server: BadServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["/a.bin"], server.headers = DATA, {"x-amz-request-id": "1"}
    honest = ranges.read_range
    monkeypatch.setattr(files, "read_range", lambda *asked: bytes(len(honest(*asked))))
    with pytest.raises(InputError, match="not what the server has"):
        open_remote(f"{server.url}/a.bin", keep=True)
    monkeypatch.setattr(files, "read_range", honest)
    with open_remote(f"{server.url}/a.bin", keep=True) as file:
        assert file.read() == DATA


def test_other_protocols_are_read_the_same_way() -> None:
    import fsspec

    with fsspec.open("memory://remote/a.bin", "wb") as file:
        file.write(DATA)
    with open_remote("memory://remote/a.bin", keep=False) as opened:
        assert opened.read() == DATA
    with pytest.raises(InputError, match="no such file"):
        open_remote("memory://remote/other.bin", keep=False)


def page(url: str, text: str, *, status: str = "200 OK", kind: str = "text/html") -> bytes:
    html = f"<html><head><title>{url}</title></head><body><article><p>{text}</p></article></body></html>".encode()
    http = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(html)}\r\n\r\n".encode() + html
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2099-01-01T00:00:00Z\r\n"
        f"WARC-Record-ID: <urn:x:{url}>\r\nContent-Type: application/http; msgtype=response\r\n"
        f"Content-Length: {len(http)}\r\n\r\n"
    )
    return gzip.compress(head.encode() + http + b"\r\n\r\n")


SENTENCE = "The miller grinds the rye of the whole village in the old mill by the river, as she has for years. " * 4


def put_crawl(server: BadServer, count: int = 3) -> list[str]:
    """A crawl of some files with two pages each, and its list."""
    paths = [f"crawl-data/{CRAWL}/segments/1/warc/part-{number:05d}.warc.gz" for number in range(count)]
    for number, path in enumerate(paths):
        server.files[f"/{path}"] = b"".join(page(f"https://h{number}.example/{i}", SENTENCE) for i in range(2))
    server.files[f"/crawl-data/{CRAWL}/warc.paths.gz"] = gzip.compress("\n".join(paths).encode())
    return paths


def documents(raws: list[RawInput]) -> list[Document]:
    return [found for raw in raws for found in read(raw, ReadConfig()) if isinstance(found, Document)]


def test_a_crawl_by_name_is_its_files(server: BadServer) -> None:
    paths = put_crawl(server)
    server.moods = ["503", "ok", "ok", "truncate", "ok", "stall"]
    raws = expand_inputs("web", [f"cc:{CRAWL}?mirror={server.url}"], kind="warc")
    assert [raw.name for raw in raws] == paths and {raw.kind for raw in raws} == {"warc"}
    found = documents(raws)
    assert [document.url for document in found] == [f"https://h{n}.example/{i}" for n in range(3) for i in range(2)]
    assert identify(raws[0]).startswith("etag:")
    server.files.clear()
    with pytest.raises(InputError, match="no list of WARC files"):
        expand_inputs("web", [f"cc:{CRAWL}?mirror={server.url}"], kind="warc")


def test_more_files_of_one_seed_hold_the_fewer() -> None:
    paths = [f"p{number}" for number in range(100)]
    few, many, other = (
        draw_files(paths, CrawlName(crawl=CRAWL, files=files, seed=seed)) for files, seed in ((5, 1), (9, 1), (5, 2))
    )
    assert len(few) == 5 and set(few) < set(many) and few != other and few == sorted(few, key=paths.index)


def test_a_mirror_may_be_a_folder(tmp_path: Path) -> None:
    server = BadServer()
    put_crawl(server)
    for path, data in server.files.items():
        place = tmp_path / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    assert len(documents(expand_inputs("web", [f"cc:{CRAWL}?files=2&mirror={tmp_path}"]))) == 4


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cc:CC-MIAN-2025-51", "no name of a crawl"),
        (f"cc:{CRAWL}?file=2", "`file` is no option"),
        (f"cc:{CRAWL}?files=0", "no whole number from 1 on"),
        (f"cc:{CRAWL}?files=2&files=3", "given twice"),
        (f"cc:{CRAWL}?files=2&urls=a", "one of them"),
        (f"cc:{CRAWL}?", "nothing follows"),
        (f"cc:{CRAWL}?seed=", "`seed` is empty"),
    ],
)
def test_an_unclear_name_is_refused(name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_crawl_name("web", name)


def index_lines(server: BadServer, path: str, form: str) -> list[str]:
    """Lines of an index of one file, in one of the three forms."""
    data, lines, offset = server.files[f"/{path}"], [], 0
    for number, member in enumerate(data.split(b"\x1f\x8b\x08\x00")[1:]):
        length = len(member) + 4
        facts = {
            "url": f"https://h0.example/{number}", "mime": "text/html", "status": "200", "digest": "X",
            "length": str(length), "offset": str(offset), "filename": path,
        }  # fmt: skip
        if form == "cdxj":
            lines.append(f"example,h0)/{number} 20990101000000 {json.dumps(facts)}")
        elif form == "json":
            lines.append(json.dumps({"urlkey": "k", "timestamp": "20990101000000", **facts}))
        else:
            lines.append(f"k 20990101000000 {facts['url']} text/html 200 X - - {length} {offset} {path}")
        offset += length
    return lines


@pytest.mark.parametrize("form", ["cdxj", "json", "cdx"])
def test_captures_of_an_index_are_the_documents_of_the_files(server: BadServer, tmp_path: Path, form: str) -> None:
    path = put_crawl(server)[0]
    lines = index_lines(server, path, form)
    (tmp_path / "chosen.cdx").write_text("\n".join([" CDX N b a m s k r M S V g", *lines]) + "\n")
    raws = expand_inputs("web", [f"cdx:{tmp_path / 'chosen.cdx'}?base={server.url}"], kind="warc")
    found = documents(raws)
    whole = documents(expand_inputs("web", [f"cc:{CRAWL}?mirror={server.url}"]))[:2]
    assert [(d.doc_id, d.text, d.offset, d.length, d.file) for d in found] == [
        (d.doc_id, d.text, d.offset, d.length, d.file) for d in whole
    ]


def test_only_wanted_captures_are_fetched_and_none_is_lost(server: BadServer, tmp_path: Path) -> None:
    path = put_crawl(server)[0]
    good = index_lines(server, path, "json")
    bad = [
        good[0].replace('"200"', '"301"'),
        good[0].replace("text/html", "image/png"),
        good[0].replace(path, "crawl-data/gone.warc.gz"),
        good[0].replace(path, "../../etc/passwd"),
        good[0].replace('"offset": "0"', '"offset": "7"'),
        "nonsense",
        "{broken",
    ]
    (tmp_path / "i.jsonl").write_text("\n".join([*bad, *good]) + "\n")
    server.asked.clear()
    (raw,) = expand_inputs("web", [f"cdx:{tmp_path / 'i.jsonl'}?base={server.url}"])
    (batch,) = ingest(raw, IngestConfig())
    reasons = sorted(batch.failures["reason"].to_pylist())
    assert batch.documents.num_rows == 2 and dict(batch.skipped) == {"http_status": 1, "not_html": 1}
    assert reasons.count("bad_index_line") == 3 and "not_fetched" in reasons and len(reasons) == 5
    assert batch.records_seen == 9 and len(server.asked) == 4


def test_addresses_are_looked_up_at_the_index_server(
    server: BadServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put_crawl(server)[0]
    first, second = index_lines(server, path, "json")
    older = second.replace("20990101000000", "20980101000000").replace(path, "crawl-data/older.warc.gz")
    base = f"/{CRAWL}-index?url="
    server.files[f"{base}https%3A%2F%2Fh0.example%2F1&output=json"] = f"{older}\n{second}\n".encode()
    server.files[f"{base}h0.example%2F%2A&output=json"] = f"{first}\n{second}\n".encode()
    (tmp_path / "urls.txt").write_text("https://h0.example/1\nh0.example/*\nhttps://not.example/\n\n# a note\n")
    server.moods = ["503"]
    name = f"cc:{CRAWL}?urls={tmp_path / 'urls.txt'}&mirror={server.url}&index={server.url}"
    (raw,) = expand_inputs("web", [name], kind="warc")
    found = list(read(raw, ReadConfig()))
    assert [d.url for d in found if isinstance(d, Document)] == [f"https://h0.example/{n}" for n in (1, 0, 1)]
    assert [f.reason for f in found if isinstance(f, Failure)] == ["not_captured"]
    assert not any(isinstance(f, Skipped) for f in found) and identify(raw).startswith("captures:")
    monkeypatch.setattr(captures, "ANSWER_BYTES", 10)
    assert {f.reason for f in read(raw, ReadConfig()) if isinstance(f, Failure)} >= {"bad_index_line"}


def test_an_index_line_must_name_a_place() -> None:
    assert parse_capture(" CDX N b a") is None and parse_capture("\n") is None
    for line in (
        "a b c",
        '{"filename": "x"}',
        '{"filename": "x", "offset": -1, "length": 3}',
        "k 1 {",
        '{"filename": "x", "offset": 1e999, "length": 3}',
    ):
        with pytest.raises(ValueError):
            parse_capture(line)


def test_a_damaged_part_of_a_compressed_index_costs_its_lines(tmp_path: Path) -> None:
    records = [gzip.compress(record(n, b"text %d" % n), mtime=0) for n in range(3)]
    (tmp_path / "a.warc.gz").write_bytes(b"".join(records))
    offsets = [0, len(records[0]), len(records[0]) + len(records[1])]
    places = [
        {"filename": "a.warc.gz", "offset": at, "length": len(one)} for at, one in zip(offsets, records, strict=True)
    ]
    parts = [bytearray(gzip.compress(b"k 1 %s\n" % json.dumps(place).encode(), mtime=0)) for place in places]
    parts[1][20] ^= 255
    (tmp_path / "i.cdxj.gz").write_bytes(b"".join(parts))
    (raw,) = expand_inputs("web", [f"cdx:{tmp_path / 'i.cdxj.gz'}?base={tmp_path}"])
    found = list(read(raw, ReadConfig(mime_types=("text/plain",))))
    assert [one.text for one in found if isinstance(one, Document)] == ["text 0", "text 2"]
    assert [(one.offset, one.reason) for one in found if isinstance(one, Failure)] == [
        (len(parts[0]), "damaged_compression")
    ]


def test_captures_of_a_file_with_a_dictionary_are_read_behind_it(tmp_path: Path) -> None:
    """A range of Archive Team's `.warc.zst` means nothing without the file's first frame."""
    trained = zstandard.train_dictionary(1000, [record(n, b"common words " * 20) for n in range(200)])
    packed = [zstandard.ZstdCompressor(dict_data=trained).compress(record(n, b"text %d" % n)) for n in range(3)]
    first = b"\x5d\x2a\x4d\x18" + len(trained.as_bytes()).to_bytes(4, "little") + trained.as_bytes()
    (tmp_path / "a.warc.zst").write_bytes(first + b"".join(packed))
    place = {"filename": "a.warc.zst", "offset": len(first) + len(packed[0]), "length": len(packed[1])}
    (tmp_path / "i.cdxj").write_text(f"org,example)/ 20240501120000 {json.dumps(place)}\n")
    (raw,) = expand_inputs("web", [f"cdx:{tmp_path / 'i.cdxj'}?base={tmp_path}"])
    [document] = read(raw, ReadConfig(mime_types=("text/plain",)))
    assert (
        isinstance(document, Document)
        and document.text == "text 1"
        and (document.offset, document.length) == (place["offset"], place["length"])
    )
