"""The document: what every source yields and every stage reads, as Arrow schemas and two small records.

A document is immutable and traceable: `record` points back at the bytes that it was read from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from storage.identity import content_hash

IDENTIFIER = pa.binary(16)
RECORD = pa.struct([("file", pa.string()), ("offset", pa.int64()), ("length", pa.int64()), ("page", pa.string())])

DOCUMENTS = pa.schema(
    [
        pa.field("doc_id", IDENTIFIER, nullable=False),
        pa.field("content_hash", IDENTIFIER, nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("title", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("record", RECORD, nullable=False),
        pa.field("collected_at", pa.timestamp("us", tz="UTC")),
        pa.field("licence", pa.string()),
        pa.field("author", pa.string()),
        pa.field("published_at", pa.timestamp("us", tz="UTC")),
        pa.field("site_language", pa.string()),
        pa.field("canonical_url", pa.string()),
        pa.field("licence_mark", pa.string()),
        pa.field("page_kind", pa.string()),
        pa.field("metadata_only", pa.bool_()),
    ]
)

FAILURES = pa.schema(
    [
        pa.field("stage", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("file", pa.string(), nullable=False),
        pa.field("offset", pa.int64()),
        pa.field("item", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
    ]
)

OF_PAGES = ("author", "published_at", "site_language", "canonical_url", "licence_mark", "page_kind")
"""The columns of DOCUMENTS that hold what a page says of itself."""

FIELDS = ("text", "title", "url", "date", "id", "licence", *OF_PAGES)
"""What a column of a table may be: the text, what a document has besides, and what its page says of itself."""

DETAIL_LIMIT = 500


@dataclass(slots=True)
class Document:
    """One document in memory. `offset` and `length` are bytes in `file`; `page` is the page id of a dump.

    What stands from `author` to `licence_mark` is what a web page says of itself: `site_language` as BCP 47,
    `licence_mark` the address of a Creative Commons licence that it links to, which need not cover its text: `licence`
    is its source's. `page_kind` is what an encyclopedia marks it as: `article`, `disambiguation` or `stub`. The text of
    a `metadata_only` document is measured, and never written to shards or exports.
    """

    doc_id: bytes
    text: str
    title: str | None
    source: str
    url: str | None
    file: str
    offset: int | None
    length: int | None
    page: str | None
    collected_at: datetime | None
    licence: str | None
    author: str | None = None
    published_at: datetime | None = None
    site_language: str | None = None
    canonical_url: str | None = None
    licence_mark: str | None = None
    page_kind: str | None = None
    metadata_only: bool = False


@dataclass(slots=True)
class Failure:
    """One thing that could not be processed, with a short snake_case `reason`."""

    stage: str
    source: str
    file: str
    offset: int | None
    item: str | None
    reason: str
    detail: str


def documents_table(documents: Sequence[Document]) -> pa.Table:
    """DOCUMENTS rows, in order; lone surrogates become U+FFFD, so that every string is valid UTF-8."""
    texts = [encode(document.text) for document in documents]
    columns: dict[str, pa.Array] = {
        "doc_id": pa.array([document.doc_id for document in documents], IDENTIFIER),
        "content_hash": pa.array([content_hash(text) for text in texts], IDENTIFIER),
        "text": _strings(texts),
        "title": _strings([_encode_optional(document.title) for document in documents]),
        "source": pa.array([document.source for document in documents], pa.string()),
        "url": _strings([_encode_optional(document.url) for document in documents]),
        "record": pa.array([_record(document) for document in documents], RECORD),
        "collected_at": pa.array([document.collected_at for document in documents], pa.timestamp("us", tz="UTC")),
        "licence": pa.array([document.licence for document in documents], pa.string()),
        "author": _strings([_encode_optional(document.author) for document in documents]),
        "published_at": pa.array([document.published_at for document in documents], pa.timestamp("us", tz="UTC")),
        "site_language": _strings([_encode_optional(document.site_language) for document in documents]),
        "canonical_url": _strings([_encode_optional(document.canonical_url) for document in documents]),
        "licence_mark": _strings([_encode_optional(document.licence_mark) for document in documents]),
        "page_kind": _strings([_encode_optional(document.page_kind) for document in documents]),
        "metadata_only": pa.array([document.metadata_only for document in documents], pa.bool_()),
    }
    return pa.table([columns[name] for name in DOCUMENTS.names], schema=DOCUMENTS)


def failures_table(failures: Sequence[Failure]) -> pa.Table:
    """FAILURES rows, in order, with `detail` cut to 500 characters."""
    rows = [
        {
            "stage": failure.stage,
            "source": failure.source,
            "file": _clean(failure.file),
            "offset": failure.offset,
            "item": _clean(failure.item) if failure.item is not None else None,
            "reason": failure.reason,
            "detail": _clean(failure.detail)[:DETAIL_LIMIT],
        }
        for failure in failures
    ]
    return pa.Table.from_pylist(rows, schema=FAILURES)


def encode(text: str) -> bytes:
    """UTF-8 bytes of any Python string; lone surrogates, which UTF-8 cannot hold, become U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def _clean(text: str) -> str:
    return encode(text).decode()


def _encode_optional(text: str | None) -> bytes | None:
    return None if text is None else encode(text)


def _strings(values: Sequence[bytes | None]) -> pa.Array:
    return pa.array(values, pa.binary()).cast(pa.string())


def _record(document: Document) -> dict[str, object]:
    return {
        "file": _clean(document.file),
        "offset": document.offset,
        "length": document.length,
        "page": document.page,
    }
