"""Inputs as badly broken as they come from the network, each with what must come out of it.

A file's `pages` are the numbers of the documents that must come through; `failures` are (reason, item) of the rows
that must stand in the ledger, in order.
"""

from __future__ import annotations

import bz2
import gzip
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.corpus import dump_text, english, page, url_of, warc_record

HUGE_PAGE_BYTES = 50_000_000
INVALID = b"\xff\xfe\xe9"


@dataclass(frozen=True, kw_only=True)
class Damaged:
    """One input file. `items` and documents are URLs of a crawl, titles of a dump."""

    name: str
    data: bytes
    documents: tuple[str, ...]
    failures: tuple[tuple[str, str | None], ...] = ()


def damaged_inputs() -> list[Damaged]:
    """A whole crawl among broken ones: the documents of the whole one must not suffer."""
    return [_whole(), _cut_gzip(), _wrong_lengths(), _bad_pages(), _nothing(), _hollow(), _cut_dump(), _cut_bzip2()]


def write_damaged(folder: Path, inputs: Sequence[Damaged]) -> None:
    for one in inputs:
        (folder / one.name).write_bytes(one.data)


def record(number: int) -> bytes:
    return warc_record(url_of(number), page(f"Page {number}", english(number)), number)


def _urls(*numbers: int) -> tuple[str, ...]:
    return tuple(url_of(number) for number in numbers)


def _whole() -> Damaged:
    numbers = range(1, 41)
    return Damaged(name="whole.warc.gz", data=b"".join(map(record, numbers)), documents=_urls(*numbers))


def _cut_gzip() -> Damaged:
    *whole, last = [record(number) for number in range(101, 111)]
    return Damaged(
        name="cut.warc.gz",
        data=b"".join(whole) + last[: len(last) // 2],
        documents=_urls(*range(101, 110)),
        failures=(("truncated_compression", None),),
    )


def _wrong_lengths() -> Damaged:
    """Too long, too short, far beyond the file, and no number at all, each between two records that are right."""
    records = [gzip.decompress(record(number)) for number in range(201, 210)]
    for index, length in ((1, b"9999"), (3, b"700"), (5, b"1000000000000"), (7, b"12x")):
        records[index] = re.sub(rb"(msgtype=response\r\nContent-Length: )\d+", rb"\g<1>" + length, records[index])
    reasons = ("wrong_length", "wrong_length", "wrong_length", "no_content_length")
    return Damaged(
        name="lengths.warc",
        data=b"".join(records),
        documents=_urls(201, 203, 205, 207, 209),
        failures=tuple(zip(reasons, _urls(202, 204, 206, 208), strict=True)),
    )


def _bad_pages() -> Damaged:
    """Three spots of invalid UTF-8 become U+FFFD; a page of 50 MB is refused; the page behind both is read.

    With no character beyond ASCII but those of the spots, they would be taken for Latin letters.
    """
    whole = page("Page 301", english(301)).replace(b"e ", "é ".encode(), 60)
    broken = whole.replace(b" a ", b" a" + INVALID + b" ", 3)
    huge = page("Page 302", ["word " * (HUGE_PAGE_BYTES // 5)])
    return Damaged(
        name="pages.warc.gz",
        data=warc_record(url_of(301), broken, 301) + warc_record(url_of(302), huge, 302) + record(303),
        documents=_urls(301, 303),
        failures=(("page_too_large", url_of(302)),),
    )


def _nothing() -> Damaged:
    return Damaged(name="empty.warc.gz", data=b"", documents=(), failures=(("empty_input", None),))


def _hollow() -> Damaged:
    return Damaged(name="hollow.warc.gz", data=gzip.compress(b""), documents=(), failures=(("empty_input", None),))


def _cut_dump() -> Damaged:
    """Plain XML that ends within its last article."""
    whole = dump_text(range(1001, 1031))
    return Damaged(
        name="cut.xml",
        data=whole[: whole.rindex(b"<page>") + 500],
        documents=tuple(f"Article {number}" for number in range(1001, 1030)),
        failures=(("truncated", "Article 1030"),),
    )


def _cut_bzip2() -> Damaged:
    """bzip2 streams, of which the last breaks off behind its magic; the article that reaches into it is lost."""
    whole = dump_text(range(2001, 2031))
    at = whole.index(b"<title>Article 2021") + 300
    return Damaged(
        name="cut.xml.bz2",
        data=bz2.compress(whole[:at]) + bz2.compress(whole[at:])[:200],
        documents=tuple(f"Article {number}" for number in range(2001, 2021)),
        failures=(("truncated_compression", "Article 2021"),),
    )
