"""JSON lines to documents: one a line, with the line's place in the decompressed file.

Lines are cut by bytes and parsed one by one, so a bad line costs itself, in any compression and with any bytes in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import orjson

from sources.compression import Gap, stream
from sources.files import open_raw
from sources.reading import Place, RawInput, ReadConfig, Reading
from sources.tables.enterprise import EnterpriseArticles
from sources.tables.rows import RowReader

_JSON_OVERHEAD = 7
"""JSON may write a byte of text as six (\\u0041), and a line holds more than its text."""


@dataclass(frozen=True, slots=True)
class _Line:
    """A line without its end; `offset` counts decompressed bytes."""

    number: int
    offset: int
    content: bytes


@dataclass(frozen=True, slots=True)
class _LostLine:
    """What stands where a line, or a stretch of them, cannot be had."""

    offset: int
    reason: str
    detail: str


def read_jsonl(raw: RawInput, config: ReadConfig) -> Iterator[Reading]:
    """Documents of the objects in a JSONL file (plain, gzip, bzip2, zstd, xz). Blank lines are no records."""
    reader, articles = RowReader(raw, config), EnterpriseArticles(config)
    with open_raw(raw) as file:
        for line in _lines(file, config.max_page_bytes * _JSON_OVERHEAD):
            if isinstance(line, _LostLine):
                yield Place(raw.source, raw.name, line.offset).failure(line.reason, line.detail)
            elif line.content.strip():
                yield _read_line(line, raw, reader, articles)


def _read_line(line: _Line, raw: RawInput, reader: RowReader, articles: EnterpriseArticles) -> Reading:
    place = Place(raw.source, raw.name, line.offset, len(line.content))
    try:
        row = _parse(line.content)
    except (ValueError, RecursionError) as error:
        return place.failure("bad_json", f"line {line.number}: {error}")
    if not isinstance(row, dict):
        return place.failure(
            "not_an_object", f"line {line.number} is a {type(row).__name__}, not an object with columns"
        )
    return reader.read(articles.row(row), place, line.offset)


def _parse(line: bytes) -> object:
    """orjson, and for what it refuses but others write (NaN, half surrogate pairs, bytes that are no UTF-8), json."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return json.loads(line.decode("utf-8-sig", "replace"))


def _lines(file: BinaryIO, limit: int) -> Iterator[_Line | _LostLine]:
    """Every line, counted from 1; those of more than `limit` bytes are passed over, not held."""
    held = bytearray()
    number, offset, passed = 1, 0, 0
    for piece in stream(file):
        if isinstance(piece, Gap):
            yield _LostLine(piece.offset, f"{piece.reason}_compression", piece.detail)
            offset += passed + len(held)
            held.clear()
            passed = 0
            continue
        begun, searched = 0, len(held)
        held += piece
        while (end := held.find(b"\n", searched)) >= 0:
            yield _line(number, offset, passed + end - begun, bytes(held[begun:end]), limit)
            offset += passed + end + 1 - begun
            number, begun, searched, passed = number + 1, end + 1, end + 1, 0
        del held[:begun]
        if len(held) > limit:
            passed += len(held)
            held.clear()
    if held or passed:
        yield _line(number, offset, passed + len(held), bytes(held), limit)


def _line(number: int, offset: int, length: int, content: bytes, limit: int) -> _Line | _LostLine:
    if length > limit:
        return _LostLine(offset, "page_too_large", f"line {number} has {length} bytes, the limit is {limit}")
    return _Line(number, offset, content)
