"""WARC and WET to documents: responses and resources through HTML extraction, conversions as the text that they are.

Filters on record type, HTTP status and media type come before any parsing of a page. A document's `record` is the
record's offset and length in the file as stored, so one range request brings back its bytes. Its doc_id is made of the
WARC-Record-ID, else of file and offset.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from fastwarc.warc import WarcRecord as HttpRecord

from sources.files import open_raw
from sources.reading import Place, RawInput, ReadConfig, Reading, Skipped, parse_time
from sources.sandbox import ExtractionFailed, PageExtractor
from sources.web.charset import decode_html
from sources.web.page import Page
from sources.web.warc_records import MAX_HEADER_BYTES, DamagedRecord, WarcRecord, read_records
from storage.identity import offset_doc_id, record_doc_id

PACKAGES = ("fastwarc",)
"""Distributions whose version can change what is read."""

_HTML_START = re.compile(rb"\s{0,256}(?:\xef\xbb\xbf)?\s{0,256}<(?:!doctype\s+html|html|head|body|title|!--)", re.I)
_HTTP_HEAD = b"WARC/1.0\r\nWARC-Type: response\r\nContent-Type: application/http; msgtype=response\r\nContent-Length: "
_NO_MEDIA_TYPE = ("", "unknown/unknown", "application/octet-stream", "no-type")


class _Unreadable(Exception):
    """A record that is whole but whose message cannot be read."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class _Message:
    """What a record holds, its transfer and content encodings undone."""

    status: int | None
    media_type: str
    charset: str | None
    payload: bytes


def read_warc(raw: RawInput, config: ReadConfig) -> Iterator[Reading]:
    """Documents of the responses, resources and conversions in a WARC file."""
    with PageExtractor.as_configured(config) as extractor:
        for record in _records(raw, config):
            yield read_record(record, raw, config, extractor)


def read_wet(raw: RawInput, config: ReadConfig) -> Iterator[Reading]:
    """Documents of the conversion records in a WET file: text that Common Crawl extracted."""
    for record in _records(raw, config):
        if isinstance(record, WarcRecord) and record.kind != "conversion":
            yield Skipped(_kind_name(record))
        else:
            yield read_record(record, raw, config, None)


def _records(raw: RawInput, config: ReadConfig) -> Iterator[WarcRecord | DamagedRecord]:
    with open_raw(raw) as file:
        yield from read_records(file, max_block_bytes=config.max_page_bytes + MAX_HEADER_BYTES)


def _kind_name(record: WarcRecord) -> str:
    known = ("warcinfo", "request", "metadata", "revisit", "conversion", "continuation", "response", "resource")
    return record.kind if record.kind in known else "unknown_record_type"


def read_record(
    record: WarcRecord | DamagedRecord, raw: RawInput, config: ReadConfig, extractor: PageExtractor | None
) -> Reading:
    """What becomes of one record of the file `raw.name`; without an extractor pages are taken as text."""
    if isinstance(record, DamagedRecord):
        place = Place(raw.source, raw.name, record.offset)
        return place.failure(record.reason, record.detail, item=record.url)
    place = Place(raw.source, raw.name, record.offset, record.length)
    url = record.headers.get("warc-target-uri")
    if record.kind not in ("response", "resource", "conversion"):
        return Skipped(_kind_name(record))
    try:
        message = _open_message(record, config)
        unwanted = _why_unwanted(message, record, config)
        if unwanted:
            return Skipped(unwanted)
        if record.oversize or len(message.payload) > config.max_page_bytes:
            size = f"{record.block_bytes} bytes stored" if record.oversize else "more once decoded"
            raise _Unreadable("page_too_large", f"{size}, the limit is {config.max_page_bytes} bytes")
        page = _extract(message, record, url, extractor)
    except (_Unreadable, ExtractionFailed) as error:
        return place.failure(error.reason, error.detail, item=url)
    return place.document(
        _doc_id(raw, record),
        page.text,
        title=page.title,
        url=url,
        collected_at=parse_time(record.headers.get("warc-date")),
        licence=raw.licence,
        author=page.author,
        published_at=parse_time(page.date),
        site_language=page.language,
        canonical_url=page.canonical_url,
        licence_mark=page.licence_mark,
    )


def _doc_id(raw: RawInput, record: WarcRecord) -> bytes:
    if record_id := record.headers.get("warc-record-id"):
        return record_doc_id(raw.source, record_id=record_id)
    file = raw.name if record.ordinal == 0 or record.length is not None else f"{raw.name}!{record.ordinal}"
    return offset_doc_id(raw.source, file=file, offset=record.offset)


def _why_unwanted(message: _Message, record: WarcRecord, config: ReadConfig) -> str | None:
    if record.kind == "conversion":
        return None if message.media_type in ("text/plain", "") else "not_text"
    if message.status is not None and message.status not in config.http_statuses:
        return "http_status"
    return None if message.media_type in config.mime_types else "not_html"


def _open_message(record: WarcRecord, config: ReadConfig) -> _Message:
    stated = record.headers.get("content-type", "")
    is_http = stated.lower().startswith("application/http") or (not stated and record.block.startswith(b"HTTP/"))
    if record.kind == "response" and is_http:
        return _open_http(record, config.max_page_bytes)
    media_type, charset = _parse_media_type(stated)
    return _Message(None, _identify(media_type, record, record.block), charset, record.block)


def _open_http(record: WarcRecord, limit: int) -> _Message:
    """The HTTP message in a response. Encodings that the payload does not have (crawlers undo them) are ignored."""
    try:
        opened, payload = _decode_http(record.block, "all", limit)
    except OSError:
        try:
            opened, payload = _decode_http(record.block, "none", limit)
        except OSError as error:
            raise _Unreadable("bad_http_message", f"the HTTP message cannot be read: {error}") from error
        if not _HTML_START.match(payload) and not record.oversize:
            raise _Unreadable("bad_content_encoding", "the page is not encoded as its HTTP headers say") from None
    status = opened.http_headers.status_code if opened.http_headers else None
    if status is None:
        raise _Unreadable("no_http_status", f"no HTTP status line, but {record.block[:40]!r}")
    media_type, charset = _parse_media_type(opened.http_headers.get("content-type") or "")
    return _Message(status, _identify(media_type, record, payload), charset, payload)


def _decode_http(block: bytes, decode: Literal["all", "none"], limit: int) -> tuple[HttpRecord, bytes]:
    """The parsed record and up to `limit` + 1 bytes of its decoded payload. Raises OSError."""
    opened = HttpRecord.from_bytes(b"%s%d\r\n\r\n%s\r\n\r\n" % (_HTTP_HEAD, len(block), block))
    opened.parse_http(auto_decode=decode, quirks_mode=True, max_header_len=MAX_HEADER_BYTES)
    pieces, size = [], 0
    while size <= limit and (piece := opened.reader.read(limit + 1 - size)):
        pieces.append(piece)
        size += len(piece)
    return opened, b"".join(pieces)


def _parse_media_type(value: str) -> tuple[str, str | None]:
    """`text/html; charset=GBK` → ("text/html", "GBK")."""
    media_type, _, parameters = value.partition(";")
    charset = re.search(r"charset\s*=\s*[\"']?\s*([\w.:-]{2,40})", parameters, re.I)
    return media_type.strip().lower(), charset[1] if charset else None


def _identify(stated: str, record: WarcRecord, payload: bytes) -> str:
    """The media type: as stated, else as the crawler identified it, else HTML if the page begins like it."""
    if stated not in _NO_MEDIA_TYPE:
        return stated
    if identified := record.headers.get("warc-identified-payload-type"):
        return identified.lower()
    return "text/html" if _HTML_START.match(payload) else stated


def _extract(message: _Message, record: WarcRecord, url: str | None, extractor: PageExtractor | None) -> Page:
    if extractor is None or record.kind == "conversion":
        return Page(text=message.payload.decode("utf-8", "replace"))
    if message.media_type == "text/plain":
        return Page(text=decode_html(message.payload, message.charset))
    return extractor.extract(message.payload, announced_charset=message.charset, url=url)
