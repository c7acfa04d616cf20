"""The languages that a crawl says its pages are in: found without parsing a page, and cheap enough to filter by.

Invariant: a page that nothing is said of is wanted. What a detector found (WARC-Identified-Content-Language, Common
Crawl's CLD2 in metadata records and index lines) counts more than what a server says (Content-Language), which is its
site's default for one page in many. Codes are compared in the form that CLDR prefers: `eng`, `en-GB` and `en` are one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache

from babel.core import get_global

from sources.web.warc_records import DamagedRecord, WarcRecord

IDENTIFIED = "warc-identified-content-language"
_DECLARED = "content-language"
_CODE = re.compile(r"[A-Za-z]{2,3}(?![A-Za-z])")
_CLD2 = re.compile(rb'"code":\s{0,4}"([a-z]{2,3})')
_MOST_LANGUAGES = 8
_METADATA_BYTES = 1 << 16


@lru_cache(4096)
def language_code(word: str) -> str | None:
    """`de` of `de`, `deu`, `ger` or `de-AT`; None for what is no code of a language."""
    found = _CODE.match(word.strip())
    return str(get_global("language_aliases").get(found[0].lower(), found[0].lower())) if found else None


def language_codes(words: str) -> frozenset[str]:
    """Those of a list with commas."""
    return frozenset(code for word in words.split(",")[:_MOST_LANGUAGES] if (code := language_code(word)))


def is_wanted(wanted: tuple[str, ...], *said: str | None) -> bool:
    """Whether one of the wanted languages is said by the first of these lists that says anything."""
    if not wanted:
        return True
    found = next((codes for words in said if words and (codes := language_codes(words))), None)
    return found is None or any(language_code(code) in found for code in wanted)


def says(record: Mapping[str, str], message: Mapping[str, str]) -> tuple[str | None, str | None]:
    """What a record's and a message's headers say, in the order in which they count."""
    return record.get(IDENTIFIED), message.get(_DECLARED) or record.get(_DECLARED)


def with_metadata(records: Iterable[WarcRecord | DamagedRecord]) -> Iterator[WarcRecord | DamagedRecord]:
    """The same records; a response is told the languages in the metadata record right behind it, as Common Crawl's are.

    One record is held back.
    """
    held: WarcRecord | DamagedRecord | None = None
    for record in records:
        if held is not None:
            yield _told(held, record)
        held = record
    if held is not None:
        yield held


def _told(held: WarcRecord | DamagedRecord, following: WarcRecord | DamagedRecord) -> WarcRecord | DamagedRecord:
    if isinstance(held, DamagedRecord) or isinstance(following, DamagedRecord) or following.kind != "metadata":
        return held
    if following.headers.get("warc-concurrent-to") != held.headers.get("warc-record-id", ""):
        return held
    found = [code.decode() for code in _CLD2.findall(following.block[:_METADATA_BYTES])]
    return replace(held, headers={IDENTIFIED: ",".join(found), **held.headers}) if found else held
