"""Web captures chosen one by one: the lines of an index, or addresses that an index server is asked for.

Only the bytes of the wanted records are fetched, a few ranges ahead (WINDOW), and each is read as a WARC of one record.
Status, media type and languages are looked at before anything is fetched. A capture that is gone is a failure; a server
that no longer answers ends the input, which goes on from the start at the next run.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlencode

from sources.compression import dictionary_frame_bytes, stream
from sources.cutting import LostPiece, Piece, cut
from sources.files import open_raw
from sources.reading import Place, RawInput, ReadConfig, Reading, Skipped
from sources.remote.index_lines import Capture, newest, parse_capture
from sources.remote.places import is_remote
from sources.remote.ranges import Refused, read_answer, read_range
from sources.sandbox import PageExtractor
from sources.web.languages import is_wanted
from sources.web.warc import read_record
from sources.web.warc_records import MAX_HEADER_BYTES, read_records
from storage.schema import Failure

WINDOW = 4
"""Ranges asked for at once, the same number for every worker."""
LINE_BYTES = 1 << 20
ANSWER_BYTES = 16 << 20
MOST_BYTES = 1 << 30
"""Of a record, packed."""

Wanted = Capture | Failure | Skipped


def read_captures(raw: RawInput, config: ReadConfig) -> Iterator[Reading]:
    """Documents of the records that an index, or a list of addresses, names."""
    with (
        PageExtractor.as_configured(config) as extractor,
        ThreadPoolExecutor(WINDOW) as fetching,
    ):
        for wanted, data in _fetched(raw, _wanted(raw, config), fetching):
            if isinstance(wanted, Capture):
                yield from _read(raw, config, extractor, wanted, data)
            else:
                yield wanted


def _read(
    raw: RawInput, config: ReadConfig, extractor: PageExtractor, capture: Capture, data: bytes | Refused
) -> Iterator[Reading]:
    place = Place(raw.source, capture.filename, capture.offset, capture.length)
    if isinstance(data, Refused):
        yield place.failure("not_fetched", data.what, item=capture.url)
        return
    named, found = replace(raw, name=capture.filename), False
    dictionary = _dictionary_of(f"{raw.base}/{capture.filename}")
    archive = io.BytesIO(dictionary + data)
    for record in read_records(archive, max_block_bytes=config.max_page_bytes + MAX_HEADER_BYTES):
        found = True
        offset = record.offset - len(dictionary) + capture.offset
        yield read_record(replace(record, offset=offset), named, config, extractor)
    if not found:
        yield place.failure("no_record", "there is no record at this place", item=capture.url)


def _fetched(
    raw: RawInput, wanted: Iterator[Wanted], fetching: ThreadPoolExecutor
) -> Iterator[tuple[Wanted, bytes | Refused]]:
    """Each wanted capture with its bytes, in order."""
    ahead: deque[tuple[Wanted, Future[bytes | Refused] | None]] = deque()
    for one in wanted:
        ahead.append((one, fetching.submit(_fetch, raw, one) if isinstance(one, Capture) else None))
        if len(ahead) > WINDOW:
            yield _first(ahead)
    while ahead:
        yield _first(ahead)


def _first(ahead: deque[tuple[Wanted, Future[bytes | Refused] | None]]) -> tuple[Wanted, bytes | Refused]:
    one, data = ahead.popleft()
    return one, data.result() if data else b""


def _fetch(raw: RawInput, capture: Capture) -> bytes | Refused:
    return _range(f"{raw.base}/{capture.filename}", capture.offset, capture.length)


def _range(place: str, offset: int, length: int) -> bytes | Refused:
    if length > MOST_BYTES:
        return Refused(f"the index says {length} bytes, {MOST_BYTES} may be", at=place)
    try:
        if is_remote(place):
            return read_range(place, offset, offset + length)
        with open(place, "rb") as file:
            file.seek(offset)
            return file.read(length)
    except Refused as error:
        return error
    except (OSError, ValueError, OverflowError) as error:
        return Refused(f"cannot be read: {error}", at=place)


@lru_cache(2)
def _dictionary_of(place: str) -> bytes:
    """What a range of a `.warc.zst` needs in front of it: b"" for nearly all files."""
    head = _range(place, 0, 8) if place.endswith(".zst") else b""
    size = 0 if isinstance(head, Refused) else dictionary_frame_bytes(head)
    frame = _range(place, 0, size) if size else b""
    return b"" if isinstance(frame, Refused) else frame


def _wanted(raw: RawInput, config: ReadConfig) -> Iterator[Wanted]:
    for piece in _lines(raw):
        if isinstance(piece, LostPiece):
            yield Place(raw.source, raw.name, piece.offset).failure(piece.reason, piece.detail)
            continue
        number, line = piece.number, piece.content.decode("utf-8", "replace")
        place = Place(raw.source, raw.name, piece.offset, len(piece.content))
        try:
            found = _asked(raw, config, line) if raw.subset else [parse_capture(line)]
        except (ValueError, Refused) as error:
            yield place.failure("bad_index_line", f"line {number}: {error}", item=line[:500])
            continue
        if raw.subset and not found:
            yield place.failure("not_captured", f"line {number}: the crawl has no capture of it", item=line[:500])
        for capture in found:
            if capture is not None:
                yield Skipped(reason) if (reason := _why_unwanted(capture, config)) else capture


def _why_unwanted(capture: Capture, config: ReadConfig) -> str | None:
    if capture.status is not None and capture.status not in config.http_statuses:
        return "http_status"
    if capture.media_type is not None and capture.media_type.lower() not in config.mime_types:
        return "not_html"
    return None if is_wanted(config.languages, capture.languages) else "language"


def _asked(raw: RawInput, config: ReadConfig, address: str) -> list[Capture | None]:
    """What the index server knows of an address: its newest capture, or all of those that a `*` stands for."""
    address = address.strip()
    if not address or address.startswith("#"):
        return [None]
    query = urlencode({"url": address, "output": "json"})
    lines = read_answer(f"{raw.subset}?{query}", limit_bytes=ANSWER_BYTES).decode("utf-8", "replace").splitlines()
    captures = [capture for line in lines if (capture := parse_capture(line))]
    if "*" in address:
        return list(captures)
    latest = newest(captures, config.http_statuses)
    return [latest] if latest else []


def _lines(raw: RawInput) -> Iterator[Piece | LostPiece]:
    """The lines of the list, in any compression or none."""
    with open_raw(raw) as file:
        yield from cut(stream(file), b"\n", LINE_BYTES)


def base_beside(index: Path) -> str:
    """Where the files of an index lie if nothing is said: beside it."""
    return str(index.absolute().parent)
