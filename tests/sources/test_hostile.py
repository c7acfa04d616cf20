"""What is made to hurt, through the real readers: each costs its record, within written limits of time and memory."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import lzma
import resource
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import brotli
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from sources.ingest import read
from sources.reading import Extraction, Kind, RawInput, ReadConfig, Reading
from sources.web.html import extract_page
from tests.sources.captures import (
    article,
    documents,
    dump,
    failures,
    members,
    page,
    reasons,
    record,
    response,
    texts,
    write,
)

GOOD = response(1, article("Mills"))
LAST = response(2, article("Weirs"))
GB = 10**9


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The kernels of every reader here, compiled before any limit counts."""
    folder = tmp_path_factory.mktemp("warm")
    for mode in ("best", "fast"):
        list(read(write(folder, "x", GOOD, "warc"), ReadConfig(extraction=mode)))  # type: ignore[arg-type]
    list(read(write(folder, "x", bz2.compress(dump([page(1, "A mill.")])), "mediawiki"), ReadConfig()))


@contextmanager
def within(*, seconds: float, megabytes: float) -> Iterator[None]:
    """CPU time of this process and those it waited for, and resident memory beyond what it had, stay below."""
    Path("/proc/self/clear_refs").write_text("5")
    held, begun = _memory("VmRSS"), _cpu_seconds()
    yield
    taken, used = _memory("VmHWM") - held, _cpu_seconds() - begun
    assert used <= seconds and taken <= megabytes * 1e6, (
        f"{used:.1f} s of {seconds}, {taken / 1e6:.0f} MB of {megabytes}"
    )


def _memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def readings(folder: Path, data: bytes, kind: Kind = "warc", **config: int) -> list[Reading]:
    return list(read(write(folder, "x", data, kind), ReadConfig(extraction="fast", **config)))  # type: ignore[arg-type]


def titles(found: list[Reading]) -> list[str | None]:
    return [one.title for one in documents(found)]


# --- bombs -------------------------------------------------------------------------------------


def zstd_zeros(size: int) -> bytes:
    """A zstd frame of zeros whose blocks are 4 bytes each: 100 GB in 3 MB."""
    blocks = -(-size // (128 << 10))
    block = ((128 << 10) << 3 | 2).to_bytes(3, "little") + b"\x00"
    last = ((128 << 10) << 3 | 3).to_bytes(3, "little") + b"\x00"
    return b"\x28\xb5\x2f\xfd\x00\x58" + block * (blocks - 1) + last


def gzip_zeros(size: int) -> bytes:
    """A gzip member of zeros: one compressed stretch again and again, so that it is made at once. Its checksum lies."""
    begun = zlib.compressobj(9, zlib.DEFLATED, -15)
    stretch = begun.compress(bytes(1 << 20)) + begun.flush(zlib.Z_FULL_FLUSH)
    head = gzip.compress(b"", mtime=0)[:10]
    return head + stretch * (size >> 20) + begun.flush() + bytes(8)


def test_the_zeros_are_what_they_seem() -> None:
    assert zstandard.ZstdDecompressor().decompressobj().decompress(zstd_zeros(300_000)) == bytes(3 * (128 << 10))
    assert zlib.decompressobj(-15).decompress(gzip_zeros(2 << 20)[10:]) == bytes(2 << 20)


BOMBS: dict[str, Callable[[], bytes]] = {
    "gzip, 10 MB to 10 GB": lambda: gzip_zeros(10 * GB),
    "zstd, 3 MB to 100 GB": lambda: zstd_zeros(100 * GB),
    "bzip2, 700 KB to 900 MB a copy": lambda: bz2.compress(bytes(300_000_000)) * 3,
    "xz, 45 KB to 300 MB": lambda: lzma.compress(bytes(300_000_000), preset=0),
}


@pytest.mark.slow
@pytest.mark.parametrize("make", BOMBS.values(), ids=BOMBS)
def test_a_bomb_between_records_costs_itself(tmp_path: Path, make: Callable[[], bytes]) -> None:
    data = members([GOOD]) + make() + members([LAST])
    with within(seconds=60, megabytes=150):
        found = readings(tmp_path, data)
    assert titles(found) == ["On Mills", "On Weirs"] and failures(found)


PAYLOADS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "gzip": ("gzip", lambda: gzip_zeros(2 * GB)),
    "zstd": ("zstd", lambda: zstd_zeros(100 * GB)),
    "brotli": ("br", lambda: brotli.compress(bytes(50_000_000), quality=1)),
    "gzip in gzip": ("gzip, gzip", lambda: gzip.compress(gzip_zeros(2 * GB), 1)),
}


@pytest.mark.parametrize(("coding", "make"), PAYLOADS.values(), ids=PAYLOADS)
def test_a_bomb_as_a_payload_costs_its_record(tmp_path: Path, coding: str, make: Callable[[], bytes]) -> None:
    bomb = response(3, make(), http=f"Content-Type: text/html\r\nContent-Encoding: {coding}")
    data = GOOD + bomb + LAST
    with within(seconds=15, megabytes=150):
        found = readings(tmp_path, data)
    assert reasons(found) == ["page_too_large"] and titles(found) == ["On Mills", "On Weirs"]


# --- archives that lie -------------------------------------------------------------------------


@pytest.mark.parametrize("length", ["-1", "99999999999999999999", str(1 << 62), "1e9", "0x10", " "])
def test_lengths_that_cannot_be(tmp_path: Path, length: str) -> None:
    with within(seconds=10, megabytes=100):
        found = readings(tmp_path, GOOD + record(3, b"block", kind="response", length=length) + LAST)
    assert len(failures(found)) == 1 and titles(found) == ["On Mills", "On Weirs"]


@pytest.mark.parametrize("where", ["WARC", "HTTP", "no end"])
def test_headers_of_100_megabytes(tmp_path: Path, where: str) -> None:
    line = b"X-Padding: " + b"y" * 1_000_000 + b"\r\n"
    if where == "HTTP":
        bad = response(3, b"x", http="A: b\r\n" + (line * 100).decode() + "C: d")
    else:
        bad = b"WARC/1.0\r\n" + line * 100 + (b"\r\n" if where == "WARC" else b"")
    raw = write(tmp_path, "x", GOOD + bad + LAST, "warc")
    del bad
    with within(seconds=10, megabytes=100):
        found = list(read(raw, ReadConfig(extraction="fast")))
    assert len(failures(found)) == 1 and titles(found) == ["On Mills", "On Weirs"]


def test_a_million_headers_of_one_message(tmp_path: Path) -> None:
    bad = response(3, b"x", http="\r\n".join(f"h{n}: v" for n in range(1_000_000)))
    with within(seconds=10, megabytes=150):
        assert titles(readings(tmp_path, GOOD + bad + LAST)) == ["On Mills", "On Weirs"]


# --- pages -------------------------------------------------------------------------------------

DEEP = b"<div>" * 100_000 + b"<p>The mill at the bottom of the well grinds on.</p>"
WIDE = (
    b"<html><body><p " + b" ".join(b"a%d=1" % n for n in range(1_000_000)) + b">The mill grinds on.</p></body></html>"
)


FEARED = {
    "nested 100,000 deep": DEEP,
    "a million attributes": WIDE,
    "open brackets": b"<" * 5_000_000,
    "comments": b"<!--" * 1_000_000,
    "entities": b"&" * 5_000_000,
    "paragraphs": b"<p>" * 1_000_000,
}


@pytest.mark.parametrize("mode", ["best", "fast"])
@pytest.mark.parametrize("html", FEARED.values(), ids=FEARED)
def test_pages_that_parsers_fear(tmp_path: Path, html: bytes, mode: str) -> None:
    raw = write(tmp_path, "x", GOOD + response(3, html) + LAST, "warc")
    with within(seconds=30, megabytes=200):
        found = list(read(raw, ReadConfig(extraction=mode)))  # type: ignore[arg-type]
    assert len(found) == 3 and titles(found)[0] == "On Mills" and titles(found)[-1] == "On Weirs"


@pytest.mark.parametrize("mode", ["best", "fast"])
def test_a_large_page_takes_little_beyond_itself(mode: Extraction) -> None:
    """Of 40,000 blocks with a character that a string of Python has four bytes for."""
    html = b"<p>The mill grinds on \xf0\x9f\x8c\xbe" * 40_000 + b"<!--" + b"x" * 20_000_000
    with within(seconds=10, megabytes=70):
        assert len(extract_page(html, mode=mode).text) > 800_000


@pytest.mark.slow
def test_a_picture_of_100_megabytes_inside_a_page(tmp_path: Path) -> None:
    picture = base64.b64encode(bytes(75_000_000))
    html = article("Mills").replace(b"<article>", b'<article><img src="data:image/png;base64,' + picture + b'">')
    data = response(3, html) + LAST
    with within(seconds=60, megabytes=600):
        assert titles(readings(tmp_path, data, max_page_bytes=200 << 20)) == ["On Mills", "On Weirs"]
    assert reasons(readings(tmp_path, data)) == ["page_too_large"]


@pytest.mark.parametrize("mark", [b"", None], ids=["unmarked", "marked"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_wide_characters(tmp_path: Path, encoding: str, mark: bytes | None) -> None:
    html = article("Mühlen и мельницы 水車").decode()
    body = "\ufeff".encode(encoding) + html.encode(encoding) if mark is None else html.encode(encoding)
    found = readings(tmp_path, response(3, body, http="Content-Type: text/html"))
    assert titles(found) == ["On Mühlen и мельницы 水車"] and texts(found)[0].startswith("Mühlen и мельницы 水車 0.")


def test_null_bytes(tmp_path: Path) -> None:
    body = article("Mills").replace(b" ", b" \x00").replace(b"<p>", b"<\x00p>")
    [text] = texts(readings(tmp_path, response(3, body)))
    assert "\x00" not in text and text.startswith("Mills 0.")


# --- dumps and tables ------------------------------------------------------------------

MARKUP = (
    "{{", "}}", "{{{", "[[", "{|\n", "{|\n|-\n|", "-{", "<ref>", "<nowiki>", "<!--", "'''", "[http://x ",
    "{{lang|fr|", "\n*", "<div><table>",
)  # fmt: skip


@pytest.mark.parametrize("token", MARKUP)
def test_a_million_openings_of_markup(tmp_path: Path, token: str) -> None:
    hostile = token * (1_000_000 if len(token) < 5 else 300_000)
    pages = [page(1, "A mill."), page(2, hostile), page(3, "A weir.")]
    with within(seconds=20, megabytes=400):
        found = readings(tmp_path, dump(pages), "mediawiki")
    kept = texts(found)
    assert len(found) == 3 and kept[0] == "A mill." and kept[-1] == "A weir."


NESTS = {
    "links": ("[[a ", "]]"),
    "labels": ("[[a|b", "]]"),
    "titles with colons": ("[[aaaa:b", "]]"),
    "links in templates": ("[[a {{lang|fr|b", "}} ]]"),
    "templates in links": ("{{lang|fr|[[a ", "]]}}"),
    "language variants": ("-{zh-hans:a;zh-hant:", "}-"),
}


@pytest.mark.parametrize(("opens", "closes"), NESTS.values(), ids=NESTS)
def test_markup_nested_100_000_deep(tmp_path: Path, opens: str, closes: str) -> None:
    """Links read what they hold when they close: 14 s for 400 KB, and squared, without a limit to their depth."""
    pages = [page(1, "A mill."), page(2, opens * 100_000 + "x" + closes * 100_000), page(3, "A weir.")]
    with within(seconds=5, megabytes=200):
        kept = texts(readings(tmp_path, dump(pages), "mediawiki"))
    assert kept[0] == "A mill." and kept[-1] == "A weir."


ENTITIES = b"".join(b"<!ENTITY e%d '%s'>" % (n, b"&e%d;" % (n - 1) * 10 if n else b"bomb" * 10) for n in range(10))


@pytest.mark.parametrize("head", [b"<!DOCTYPE m [" + ENTITIES + b"]>", b"<!DOCTYPE m [<!ENTITY e9 SYSTEM 'file:///etc/passwd'>]>"],
                         ids=["a billion laughs", "an external entity"])  # fmt: skip
def test_entities_are_not_expanded(tmp_path: Path, head: bytes) -> None:
    body = dump([page(1, "A mill."), page(2, "ENTITY"), page(3, "A weir.")]).replace(b"ENTITY", b"&e9;")
    with within(seconds=5, megabytes=50):
        found = readings(tmp_path, head + body, "mediawiki")
    assert texts(found) == ["A mill.", "A weir."] and reasons(found) == ["bad_xml"]


def test_a_line_of_a_gigabyte(tmp_path: Path) -> None:
    """A sparse file: the line is there, but not on the disk."""
    path = tmp_path / "x.jsonl"
    with path.open("wb") as file:
        file.write(b'{"text": "A mill."}\n{"text": "')
        file.seek(GB, io.SEEK_CUR)
        file.write(b'"}\n{"text": "A weir."}\n')
    raw = RawInput(source="s", kind="jsonl", path=str(path), name="x", size=path.stat().st_size)
    with within(seconds=20, megabytes=300):
        found = list(read(raw, ReadConfig()))
    assert texts(found) == ["A mill.", "A weir."] and reasons(found) == ["page_too_large"]


LINES = {
    "lists in lists": b"[" * 1_000_000,
    "objects in objects": b'{"a":' * 500_000,
    "a long number": b'{"text": ' + b"9" * 1_000_000 + b"}",
    "half an escape": b'{"text": "\\u"}',
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_json_that_parsers_fear(tmp_path: Path, line: bytes) -> None:
    with within(seconds=10, megabytes=200):
        found = readings(tmp_path, line + b'\n{"text": "A weir."}\n', "jsonl")
    assert texts(found) == ["A weir."] and len(failures(found)) == 1


@pytest.mark.parametrize("length", [0, 7, 1 << 31, (1 << 32) - 1])
def test_a_footer_that_lies(tmp_path: Path, length: int) -> None:
    out = io.BytesIO()
    pq.write_table(pa.table({"text": ["A mill."] * 10}), out)
    data = out.getvalue()[:-8] + length.to_bytes(4, "little") + b"PAR1"
    with within(seconds=5, megabytes=200):
        assert reasons(readings(tmp_path, data, "parquet")) == ["unreadable_parquet"]


def test_time_is_taken_by_the_processor() -> None:
    """The limits above would notice."""
    with pytest.raises(AssertionError), within(seconds=0.05, megabytes=100):
        end = time.process_time() + 0.1
        while time.process_time() < end:
            pass
