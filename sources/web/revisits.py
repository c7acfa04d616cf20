"""Revisit records, which say only that a page was as before: resolved to the page where the same file holds it.

Invariant: what a revisit becomes was read again from the file, and is the record of the id, of the payload digest, or
of the address and time that the revisit names. Only places are held, those of the last 100,000 originals (30 MB): a
revisit of what lies in another file, or further back, stays one.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import BinaryIO

from sources.compression import dictionary_frame_bytes
from sources.web.warc_records import DamagedRecord, WarcRecord, read_records

MOST_ORIGINALS = 100_000
_ORIGINAL = ("warc-record-id", "warc-payload-digest", "warc-target-uri", "warc-date")
_REFERENCE = ("warc-refers-to", "warc-payload-digest", "warc-refers-to-target-uri", "warc-refers-to-date")
_OF_THE_VISIT = ("warc-record-id", "warc-target-uri", "warc-date")


class Originals:
    """The places of a file's records by what revisits name them by; `file` is left where it was."""

    def __init__(self, file: BinaryIO, *, max_block_bytes: int) -> None:
        self._file = file
        self._limit = max_block_bytes
        self._places: dict[int, tuple[int, int]] = {}
        frame_bytes = dictionary_frame_bytes(file.read(8))
        file.seek(0)
        self._dictionary = _read_all(file, frame_bytes)
        file.seek(0)

    def resolve(self, record: WarcRecord) -> WarcRecord:
        """A revisit with its original's block, under its own id, address, date and place; other records as they are."""
        if record.kind in ("response", "resource"):
            self._note(record)
        original = self._find(record) if record.kind == "revisit" else None
        if original is None:
            return record
        own = {name: record.headers.get(name, "") for name in _OF_THE_VISIT}
        return replace(record, headers=original.headers | own, block=original.block, block_bytes=original.block_bytes)

    def _note(self, record: WarcRecord) -> None:
        if record.length is None:
            return
        for key in _keys(record.headers, _ORIGINAL):
            self._places[key] = (record.offset, record.length)
        while len(self._places) > 3 * MOST_ORIGINALS:
            del self._places[next(iter(self._places))]

    def _find(self, record: WarcRecord) -> WarcRecord | None:
        places = [self._places[key] for key in _keys(record.headers, _REFERENCE) if key in self._places]
        return self._read(*places[0]) if places else None

    def _read(self, offset: int, length: int) -> WarcRecord | None:
        here = self._file.tell()
        self._file.seek(offset)
        data = self._dictionary + _read_all(self._file, length)
        self._file.seek(here)
        found = next(read_records(io.BytesIO(data), max_block_bytes=self._limit), None)
        return None if isinstance(found, DamagedRecord) else found


def _keys(headers: Mapping[str, str], names: tuple[str, str, str, str]) -> Iterator[int]:
    """64 bits each of a record's id, its payload digest, its address and time: of those that the headers have."""
    record_id, digest, address, time = (headers.get(name) for name in names)
    if record_id:
        yield hash(("id", record_id))
    if digest:
        yield hash(("digest", digest))
    if address and time:
        yield hash((address, time))


def _read_all(file: BinaryIO, size: int) -> bytes:
    pieces = []
    while size > 0 and (piece := file.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
