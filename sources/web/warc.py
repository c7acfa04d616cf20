"""WARC and WET to documents: responses and resources through HTML extraction, conversions as the text that they are.

Filters on record type, HTTP status, media type and declared language come before a payload is decoded or a page parsed.
A document's `record` is the record's offset and length in the file as stored, so one range request brings back its
bytes. Its doc_id is made of the WARC-Record-ID, else of file and offset.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from sources.files import open_raw
from sources.reading import Place, RawInput, ReadConfig, Reading, Skipped, parse_time
from sources.sandbox import ExtractionFailed, PageExtractor
from sources.watch import begins
from sources.web.charset import decode_html
from sources.web.http import BadMessage, decode_payload, parse_message
from sources.web.languages import is_wanted, says, with_metadata
from sources.web.page import Page
from sources.web.revisits import Originals
from sources.web.warc_records import MAX_HEADER_BYTES, DamagedRecord, WarcRecord, read_records
from storage.identity import offset_doc_id, record_doc_id

_HTML_START = re.compile(rb"\s{0,256}(?:\xef\xbb\xbf)?\s{0,256}<(?:!doctype\s+html|html|head|body|title|!--)", re.I)
_NO_MEDIA_TYPE = ("", "unknown/unknown", "application/octet-stream", "no-type")


class _Unwanted(Exception):
    """A record that is passed over; its word is the reason that is counted."""


@dataclass(frozen=True, slots=True)
class _Content:
    """What a record holds, its transfer and content encodings undone."""

    media_type: str
    charset: str | None
    payload: bytes


def read_warc(raw: RawInput, config: ReadConfig) -> Iterator[Reading]:
    """Documents of the responses, resources, conversions and resolved revisits in a WARC file."""
    with PageExtractor.as_configured(config) as extractor, open_raw(raw) as file:
        originals = Originals(file, max_block_bytes=_largest_block(config))
        records = read_records(file, max_block_bytes=_largest_block(config))
        for record in with_metadata(records) if config.languages else records:
            whole = originals.resolve(record) if isinstance(record, WarcRecord) else record
            yield read_record(whole, raw, config, extractor)


def read_wet(raw: RawInput, config: ReadConfig) -> Iterator[Reading]:
    """Documents of the conversion records in a WET file: text that Common Crawl extracted."""
    with open_raw(raw) as file:
        for record in read_records(file, max_block_bytes=_largest_block(config)):
            if isinstance(record, WarcRecord) and record.kind != "conversion":
                yield Skipped(_kind_name(record))
            else:
                yield read_record(record, raw, config, None)


def _largest_block(config: ReadConfig) -> int:
    return config.max_page_bytes + MAX_HEADER_BYTES


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
    if late := begins(place):
        return late
    url = record.headers.get("warc-target-uri")
    if record.kind not in ("response", "resource", "conversion"):
        return Skipped(_kind_name(record))
    try:
        content = _open(record, config)
        page = _extract(content, record, url, extractor)
    except _Unwanted as unwanted:
        return Skipped(str(unwanted))
    except (BadMessage, ExtractionFailed) as error:
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


def _open(record: WarcRecord, config: ReadConfig) -> _Content:
    """What a wanted record holds. Raises _Unwanted, and BadMessage."""
    stated = record.headers.get("content-type", "")
    is_http = stated.lower().startswith("application/http") or (not stated and record.block.startswith(b"HTTP/"))
    content = _open_http(record, config) if record.kind == "response" and is_http else _open_bare(record, config)
    if content.media_type not in (config.mime_types if record.kind != "conversion" else ("text/plain", "")):
        raise _Unwanted("not_html" if record.kind != "conversion" else "not_text")
    if record.oversize or len(content.payload) > config.max_page_bytes:
        size = f"{record.block_bytes} bytes stored"
        raise BadMessage("page_too_large", f"{size}, the limit is {config.max_page_bytes} bytes")
    return content


def _open_bare(record: WarcRecord, config: ReadConfig) -> _Content:
    """A record without HTTP around what it holds."""
    if not is_wanted(config.languages, *says(record.headers, {})):
        raise _Unwanted("language")
    media_type, charset = _parse_media_type(record.headers.get("content-type", ""))
    return _Content(_identify(media_type, record, record.block), charset, record.block)


def _open_http(record: WarcRecord, config: ReadConfig) -> _Content:
    """The payload of an HTTP response, decoded if its headers leave it wanted."""
    message = parse_message(record.block)
    if message.status not in config.http_statuses:
        raise _Unwanted("http_status")
    media_type, charset = _parse_media_type(message.headers.get("content-type", ""))
    media_type = _identify(media_type, record, b"")
    if media_type not in (*config.mime_types, *_NO_MEDIA_TYPE):
        raise _Unwanted("not_html")
    if not is_wanted(config.languages, *says(record.headers, message.headers)):
        raise _Unwanted("language")
    payload = message.body if record.oversize else decode_payload(message, config.max_page_bytes)
    return _Content(_identify(media_type, record, payload), charset, payload)


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


def _extract(content: _Content, record: WarcRecord, url: str | None, extractor: PageExtractor | None) -> Page:
    if extractor is None or record.kind == "conversion":
        return Page(text=content.payload.decode("utf-8", "replace"))
    if content.media_type == "text/plain":
        return Page(text=decode_html(content.payload, content.charset))
    return extractor.extract(content.payload, announced_charset=content.charset, url=url)
