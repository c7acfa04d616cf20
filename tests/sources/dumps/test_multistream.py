"""Dumps of many streams: the documents of the pieces are those of the whole, however it is cut."""

from __future__ import annotations

import bz2
import random
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from sources import inputs
from sources.dumps.mediawiki import read_mediawiki
from sources.dumps.multistream import cut_at_streams
from sources.files import read_bytes
from sources.inputs import expand_inputs, identify
from sources.reading import RawInput, ReadConfig
from storage.schema import Document
from tests.sources.captures import documents, dump, page, reasons, write

CHANCE = random.Random(1)
PAGES = [page(n, " ".join(f"word{CHANCE.randrange(10**6)}" for _ in range(200))) for n in range(1, 201)]
BEGIN, END = dump(["|"]).decode().split("|")


def streams_of(size: int) -> list[bytes]:
    texts = ["".join(PAGES[first : first + size]) for first in range(0, len(PAGES), size)]
    return [bz2.compress(text.encode()) for text in (BEGIN, *texts, END)]


def multistream_dump(folder: Path) -> RawInput:
    return write(folder, "d.xml.bz2", b"".join(streams_of(5)), "mediawiki")


def cut(raw: RawInput, piece_bytes: int) -> list[RawInput]:
    raw = replace(raw, size=Path(raw.path).stat().st_size)
    return cut_at_streams(raw, partial(read_bytes, raw), piece_bytes)


def read(raw: RawInput) -> list[Document]:
    readings = list(read_mediawiki(raw, ReadConfig()))
    assert not reasons(readings)
    return [replace(document, file="", offset=None) for document in documents(readings)]


@pytest.mark.parametrize("piece_bytes", [3_000, 20_000, 50_000])
def test_pieces_give_the_documents_of_the_whole(tmp_path: Path, piece_bytes: int) -> None:
    raw = multistream_dump(tmp_path)
    pieces = cut(raw, piece_bytes)
    assert 2 <= len(pieces) <= Path(raw.path).stat().st_size // piece_bytes + 1
    assert [document for piece in pieces for document in read(piece)] == read(raw)
    assert len({identify(piece) for piece in pieces}) == len({piece.name for piece in pieces}) == len(pieces)


def test_a_page_is_found_again_by_its_record(tmp_path: Path) -> None:
    raw = multistream_dump(tmp_path)
    piece = cut(raw, 20_000)[1]
    document = documents(read_mediawiki(piece, ReadConfig()))[3]
    data = Path(raw.path).read_bytes()
    xml = bz2.decompress(data[: piece.head] + data[piece.start : piece.stop])
    assert document.file == f"d.xml.bz2#bytes={piece.start}-{(piece.stop or 0) - 1}" == piece.name
    assert document.offset is not None and document.length is not None
    assert f"<title>{document.title}</title>".encode() in xml[document.offset :][: document.length]


def test_large_dumps_are_cut_when_they_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = multistream_dump(tmp_path)
    monkeypatch.setattr(inputs, "PIECE_BYTES", 20_000)
    pieces = expand_inputs("s", [raw.path], kind="mediawiki")
    assert len(pieces) > 3
    assert sum(len(read(piece)) for piece in pieces) == len(PAGES)


def test_what_is_not_cut_at_pages_is_read_whole(tmp_path: Path) -> None:
    text = dump(PAGES)
    one = write(tmp_path, "one.xml.bz2", bz2.compress(text), "mediawiki")
    blind = [bz2.compress(text[first : first + 9_000]) for first in range(0, len(text), 9_000)]
    several = write(tmp_path, "several.xml.bz2", b"".join(blind), "mediawiki")
    for raw in (one, several, write(tmp_path, "plain.xml", text, "mediawiki")):
        assert [piece.name for piece in cut(raw, 20_000)] == [raw.name]
        assert len(read(raw)) == len(PAGES)


def test_damage_costs_its_own_stream(tmp_path: Path) -> None:
    streams = streams_of(5)
    streams[9] = streams[9][:400] + bytes(40) + streams[9][440:]
    raw = write(tmp_path, "d.xml.bz2", b"".join(streams), "mediawiki")
    readings = [reading for piece in cut(raw, 20_000) for reading in read_mediawiki(piece, ReadConfig())]
    assert len(documents(readings)) == len(PAGES) - 5 and reasons(readings) == ["damaged_compression"]
