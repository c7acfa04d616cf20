"""A small whole file of every format that is read, in pieces whose documents are known.

Invariant: each piece holds one document whose text is its own, so that what damage to one piece costs can be told. In a
format whose pieces stand apart (`apart`), damage to one must cost no other; where all are one compressed stream, what
lies around the damage may be lost with it.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

import brotli
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from benchmarks.packing import pack_7z, pack_lz4
from sources.reading import Kind
from storage.schema import DOCUMENTS, Document, documents_table

Pack = Callable[[bytes], bytes]
PIECES = 6


@dataclass(frozen=True, kw_only=True)
class Format:
    """`pieces` are packed one by one if they stand `apart`, else with head and tail as one. `kind` is who reads it."""

    name: str
    kind: Kind | str
    pieces: tuple[bytes, ...]
    texts: tuple[str, ...] = ()
    pack: Pack = bytes
    head: bytes = b""
    tail: bytes = b""
    apart: bool = True
    separator: str | None = None

    def build(self, pieces: Sequence[bytes]) -> bytes:
        """The whole file."""
        if self.apart:
            return self.head + b"".join(map(self.pack, pieces)) + self.tail
        return self.pack(self.head + b"".join(pieces) + self.tail)


def all_formats() -> list[Format]:
    """Every format, in one order."""
    return [*_web(), *_dumps(), *_tables(), *_others()]


def sentence(number: int) -> str:
    """A text that no other number has."""
    return f"Mill {number} grinds the corn of village {number}, as it did in {1800 + number}. " * 5


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def _utf16(data: bytes) -> bytes:
    return data.decode("utf-8", "replace").encode("utf-16")


_zstd = zstandard.ZstdCompressor(write_checksum=True).compress


def _warc(number: int, block: bytes, kind: str = "conversion", content_type: str = "text/plain") -> bytes:
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:{number}>\r\n"
        f"WARC-Target-URI: https://example.org/{number}\r\nWARC-Date: 2024-05-01T12:00:00Z\r\n"
        f"WARC-Payload-Digest: sha1:{number}\r\nContent-Type: {content_type}\r\nContent-Length: {len(block)}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def _response(number: int, body: bytes, headers: str) -> bytes:
    block = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n{headers}\r\n".encode() + body
    return _warc(number, block, "response", "application/http; msgtype=response")


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n%x;a=b\r\n%s\r\n0\r\nX: y\r\n\r\n" % (50, data[:50], len(data) - 50, data[50:])


def _responses() -> tuple[bytes, ...]:
    """Each in another encoding."""
    texts = [sentence(number).encode() for number in range(PIECES)]
    return (
        _response(0, _gzip(texts[0]), "Content-Encoding: gzip\r\n"),
        _response(1, brotli.compress(texts[1]), "Content-Encoding: br\r\n"),
        _response(2, _chunked(_zstd(texts[2])), "Content-Encoding: zstd\r\nTransfer-Encoding: chunked\r\n"),
        _response(3, zlib.compress(texts[3]), "Content-Encoding: deflate\r\n"),
        _response(4, _chunked(texts[4]), "Transfer-Encoding: chunked\r\n"),
        _response(5, brotli.compress(_gzip(texts[5])), "Content-Encoding: gzip, br\r\n"),
    )


def _arc(number: int) -> bytes:
    body = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n{sentence(number)}".encode()
    return f"http://example.org/{number} 1.2.3.4 20080102030405 text/plain {len(body)}\n".encode() + body + b"\n"


_ARC_BODY = b"1 0 example\nURL IP-address Archive-date Content-type Archive-length\n"
_ARC_HEAD = b"filedesc://a.arc 0.0.0.0 20080102030405 text/plain %d\n%s\n" % (len(_ARC_BODY), _ARC_BODY)


def _dictionary() -> tuple[bytes, Pack]:
    """The first frame of Archive Team's files, and how their records are packed."""
    trained = zstandard.train_dictionary(1000, [_warc(n, sentence(n).encode()) for n in range(60)])
    head = b"\x5d\x2a\x4d\x18" + len(trained.as_bytes()).to_bytes(4, "little") + trained.as_bytes()
    return head, zstandard.ZstdCompressor(dict_data=trained).compress


def _web() -> Iterator[Format]:
    texts = tuple(sentence(n).strip() for n in range(PIECES))
    packs: dict[str, Pack] = {"warc": bytes, "warc.gz": _gzip, "warc.zst": _zstd, "warc.lz4": pack_lz4}
    for name, pack in packs.items():
        yield Format(name=name, kind="warc", pieces=_responses(), texts=texts, pack=pack)
    head, with_dictionary = _dictionary()
    conversions = tuple(_warc(n, sentence(n).encode()) for n in range(PIECES))
    yield Format(
        name="warc.zst with a dictionary", kind="warc", pieces=conversions, texts=texts, pack=with_dictionary, head=head
    )
    yield Format(name="wet.gz", kind="wet", pieces=conversions, texts=texts, pack=_gzip)
    arcs = tuple(_arc(n) for n in range(PIECES))
    yield Format(name="arc", kind="warc", pieces=arcs, texts=texts, head=_ARC_HEAD)
    yield Format(name="arc.gz", kind="warc", pieces=arcs, texts=texts, pack=_gzip, head=_gzip(_ARC_HEAD))


def _page(number: int) -> bytes:
    text = (
        f"'''{sentence(number)}'''\n== History ==\n* [[mill|mills]] {{{{lang|fr|moulin}}}}<ref>x</ref>\n"
        f"{{| class=wikitable\n! a !! b\n|-\n| 1 || 2\n|}}\n-{{zh-hans:软件;zh-hant:軟體}}- <math>a^2</math>\n"
    )
    return (
        f"<page><title>Page {number}</title><ns>0</ns><id>{number + 1}</id><revision><id>{number + 10}</id>"
        f"<timestamp>2020-01-02T03:04:05Z</timestamp><model>wikitext</model>"
        f'<text xml:space="preserve">{escape(text)}</text></revision></page>\n'
    ).encode()


def _dumps() -> Iterator[Format]:
    pages = tuple(_page(n) for n in range(PIECES))
    head, tail = b"<mediawiki><siteinfo><base>https://en.wikipedia.org/wiki/A</base></siteinfo>\n", b"</mediawiki>\n"
    packs: dict[str, Pack] = {"xml.bz2": bz2.compress, "xml.gz": _gzip, "xml.zst": _zstd, "xml.7z": pack_7z}
    yield Format(name="xml", kind="mediawiki", pieces=pages, texts=_firsts(), head=head, tail=tail)
    for name, pack in packs.items():
        yield Format(name=name, kind="mediawiki", pieces=pages, pack=pack, head=head, tail=tail, apart=False)
    yield Format(
        name="multistream xml.bz2", kind="mediawiki", pieces=pages, texts=_firsts(), pack=bz2.compress,
        head=bz2.compress(head), tail=bz2.compress(tail),
    )  # fmt: skip


def _firsts() -> tuple[str, ...]:
    return tuple(sentence(n).strip() for n in range(PIECES))


def _tables() -> Iterator[Format]:
    rows = [
        {"text": sentence(n), "id": str(n), "url": f"https://e.org/{n}", "date": "2024-01-02"} for n in range(PIECES)
    ]
    lines = tuple(json.dumps(row).encode() + b"\n" for row in rows)
    yield Format(name="jsonl", kind="jsonl", pieces=lines, texts=_firsts())
    yield Format(name="jsonl.zst", kind="jsonl", pieces=lines, pack=_zstd, apart=False)
    yield Format(name="JSON array", kind="jsonl", pieces=(json.dumps(rows).encode(),), apart=False)
    yield Format(name="enterprise", kind="jsonl", pieces=tuple(map(_enterprise, range(PIECES))), texts=_firsts())
    yield Format(name="parquet", kind="parquet", pieces=(_parquet(pa.Table.from_pylist(rows)),), apart=False)
    documents = [_document(n) for n in range(PIECES)]
    yield Format(name="documents", kind="documents", pieces=(_parquet(documents_table(documents)),), apart=False)


def _enterprise(number: int) -> bytes:
    found = {"name": f"Page {number}", "identifier": number, "article_body": {"wikitext": sentence(number)}}
    return json.dumps(found).encode() + b"\n"


def _document(number: int) -> Document:
    return Document(
        doc_id=bytes([number]) * 16, text=sentence(number), title=None, source="s", url=None, file="f", offset=number,
        length=1, page=None, collected_at=None, licence=None,
    )  # fmt: skip


def _parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    if table.schema.names == DOCUMENTS.names:
        table = table.cast(DOCUMENTS)
    pq.write_table(table, out, compression="zstd", row_group_size=2)
    return out.getvalue()


def _html(number: int) -> bytes:
    paragraphs = "".join(f"<p class='a b' id={n}>{sentence(number)}</p>" for n in range(3))
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>On {number}</title><script>a='<p>';</script>"
        f'<link rel=canonical href=/{number}><meta name="author" content="A &amp; B"><script type=application/ld+json>'
        f'{{"@type":"Article","datePublished":"2020-01-02"}}</script></head><body><nav><a href=/>x</a></nav><article>'
        f"<h1>T</h1>{paragraphs}<table><tr><td>1<td>2</table><ul><li>a<li>b</ul><pre>x &lt; y</pre></article>"
    ).encode()


def _others() -> Iterator[Format]:
    yield Format(name="HTML", kind="html", pieces=tuple(map(_html, range(PIECES))), apart=False)
    yield Format(name="HTML in Shift JIS", kind="html", pieces=(_japanese(),), apart=False)
    pages = tuple(_page(n).partition(b">")[2] for n in range(PIECES))
    yield Format(name="wikitext", kind="wikitext", pieces=pages, apart=False)
    lines = tuple(_index_lines())
    yield Format(name="index of captures", kind="captures", pieces=lines, texts=_firsts())
    yield Format(name="index of captures in gzip", kind="captures", pieces=lines, pack=_gzip, apart=False)
    paragraphs = tuple(f"{sentence(n)}\n\n".encode() for n in range(PIECES))
    yield Format(name="text", kind="text", pieces=paragraphs, apart=False, separator="blank_line")
    yield Format(name="text in UTF-16", kind="text", pieces=paragraphs, pack=_utf16, apart=False, separator="line")


def _japanese() -> bytes:
    return ("<html><body>" + "<p>水車は村の麦をひく。</p>" * 30).encode("shift_jis")


def _index_lines() -> Iterator[bytes]:
    """Lines that name the records of `captures_archive`."""
    offset = 0
    for number, record in enumerate(map(_gzip, _responses())):
        facts = {
            "url": f"https://example.org/{number}", "mime": "text/plain", "status": "200", "languages": "eng",
            "length": str(len(record)), "offset": str(offset), "filename": "a.warc.gz",
        }  # fmt: skip
        yield f"org,example)/{number} 20240501120000 {json.dumps(facts)}\n".encode()
        offset += len(record)


def captures_archive() -> bytes:
    """The archive that the index of captures names."""
    return b"".join(map(_gzip, _responses()))
