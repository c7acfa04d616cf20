"""Tiny captures made by hand: WARC records, archives and wiki dumps whose every byte a test knows."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from sources.reading import Kind, RawInput, Reading
from storage.schema import Document, Failure

SITE = "<siteinfo><base>https://en.wikipedia.org/wiki/Main_Page</base></siteinfo>"


def record(
    number: int,
    block: bytes,
    *,
    kind: str = "conversion",
    content_type: str = "text/plain",
    length: int | str | None = None,
    headers: str = "",
) -> bytes:
    """A WARC record with id and URL of that number; `length` overrides its Content-Length."""
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:{number}>\r\n"
        f"WARC-Target-URI: https://example.org/{number}\r\nWARC-Date: 2024-05-01T12:00:00Z\r\n{headers}"
        f"Content-Type: {content_type}\r\nContent-Length: {len(block) if length is None else length}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def response(
    number: int, body: bytes, *, http: str = "Content-Type: text/html; charset=utf-8", status: str = "200 OK"
) -> bytes:
    """A WARC response record around an HTTP message."""
    block = f"HTTP/1.1 {status}\r\n{http}\r\n\r\n".encode() + body
    return record(number, block, kind="response", content_type="application/http; msgtype=response")


def members(records: Iterable[bytes]) -> bytes:
    """A .warc.gz: each record a gzip member of its own."""
    return b"".join(gzip.compress(one, mtime=0) for one in records)


def article(words: str) -> bytes:
    """An HTML page whose main text is four paragraphs of `words`."""
    paragraphs = "".join(f"<p>{words} {n}. {'More of the same sentence follows here. ' * 4}</p>" for n in range(4))
    return f"<html><head><title>On {words}</title></head><body><article>{paragraphs}</article></body></html>".encode()


def page(number: int, text: str, *, title: str | None = None, namespace: int = 0, extra: str = "") -> str:
    """A <page> with one revision, whose id is ten times the page's."""
    return (
        f"<page><title>{escape(title or f'Page {number}')}</title><ns>{namespace}</ns><id>{number}</id>{extra}"
        f"<revision><id>{number * 10}</id><timestamp>2020-01-02T03:04:05Z</timestamp><model>wikitext</model>"
        f'<text xml:space="preserve">{escape(text)}</text></revision></page>'
    )


def dump(pages: Iterable[str], *, site: str = SITE) -> bytes:
    return f"<mediawiki>{site}\n{chr(10).join(pages)}\n</mediawiki>\n".encode()


def write(folder: Path, name: str, data: bytes, kind: Kind, **more: Any) -> RawInput:
    (folder / name).write_bytes(data)
    return RawInput(source="s", kind=kind, path=str(folder / name), name=name, size=len(data), **more)


def documents(readings: Iterable[Reading]) -> list[Document]:
    return [reading for reading in readings if isinstance(reading, Document)]


def failures(readings: Iterable[Reading]) -> list[Failure]:
    return [reading for reading in readings if isinstance(reading, Failure)]


def texts(readings: Iterable[Reading]) -> list[str]:
    return [document.text for document in documents(readings)]


def reasons(readings: Iterable[Reading]) -> list[str]:
    return [failure.reason for failure in failures(readings)]
