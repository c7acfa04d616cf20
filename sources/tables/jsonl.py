"""JSON lines to documents: one a line, with the line's place in the decompressed file.

Lines are cut by bytes and parsed one by one, so a bad line costs itself, in any compression and with any bytes in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

import orjson

from sources.compression import Gap, stream
from sources.cutting import LostPiece, Piece, cut, peek
from sources.files import open_raw
from sources.reading import Place, RawInput, ReadConfig, Reading
from sources.sandbox import ExtractionFailed
from sources.tables.enterprise import EnterpriseArticles
from sources.tables.json_array import cut_array
from sources.tables.rows import RowReader
from sources.tables.tar import untar
from sources.watch import begins

_HEAD_BYTES = 4096
_ARRAY = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[\s*\{")
_JSON_OVERHEAD = 7
"""JSON may write a byte of text as six (\\u0041), and a line holds more than its text."""


def read_jsonl(raw: RawInput, config: ReadConfig) -> Iterator[Reading]:
    """Documents of the objects in a JSONL file or in one JSON array, in any compression, or in a tar archive of files.

    Blank lines are no records.
    """
    reader = RowReader(raw, config)
    with EnterpriseArticles(config) as articles, open_raw(raw) as file:
        for line in _cut(untar(stream(file)), config.max_page_bytes * _JSON_OVERHEAD):
            if isinstance(line, LostPiece):
                yield Place(raw.source, raw.name, line.offset).failure(line.reason, line.detail)
            elif line.content.strip():
                yield _read_line(line, raw, reader, articles)


def _cut(chunks: Iterable[bytes | Gap], limit: int) -> Iterator[Piece | LostPiece]:
    beginning, chunks = peek(chunks, _HEAD_BYTES)
    return cut_array(chunks, limit) if _ARRAY.match(beginning) else cut(chunks, b"\n", limit)


def _read_line(line: Piece, raw: RawInput, reader: RowReader, articles: EnterpriseArticles) -> Reading:
    place = Place(raw.source, raw.name, line.offset, len(line.content))
    if late := begins(place):
        return late
    try:
        row = _parse(line.content)
    except (ValueError, RecursionError) as error:
        return place.failure("bad_json", f"line {line.number}: {error}")
    if not isinstance(row, dict):
        return place.failure(
            "not_an_object", f"line {line.number} is a {type(row).__name__}, not an object with columns"
        )
    try:
        return reader.read(articles.row(row), place, line.offset)
    except ExtractionFailed as error:
        return place.failure(error.reason, error.detail, item=str(row.get("name"))[:200])


def _parse(line: bytes) -> object:
    """orjson, and for what it refuses but others write (NaN, half surrogate pairs, bytes that are no UTF-8), json."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return json.loads(line.decode("utf-8-sig", "replace"))
