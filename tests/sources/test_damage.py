"""Mutated and truncated files of every format: nothing is raised, and what lies before the damage is unchanged."""

from __future__ import annotations

import bz2
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.packing import pack_lz4
from sources.ingest import read
from sources.reading import Kind, ReadConfig, Reading
from sources.web.warc_records import DamagedRecord, read_records
from tests.sources.captures import dump, members, page, record, texts, write

SETTINGS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
RECORDS = [record(n, f"text of record {n}, ".encode() * 9) for n in range(6)]
PAGES = [page(n, f"text of page {n} [[link]] {{{{t}}}} " * 9) for n in range(1, 7)]
LINES = [json.dumps({"text": f"text of line {n} " * 9}).encode() + b"\n" for n in range(6)]
zstd = zstandard.ZstdCompressor().compress

FILES: dict[str, tuple[Kind, bytes]] = {
    "wet": ("wet", b"".join(RECORDS)),
    "wet.gz": ("wet", members(RECORDS)),
    "wet in one member": ("wet", gzip.compress(b"".join(RECORDS), mtime=0)),
    "wet.zst": ("wet", b"".join(map(zstd, RECORDS))),
    "wet.lz4": ("wet", b"".join(map(pack_lz4, RECORDS))),
    "xml": ("mediawiki", dump(PAGES)),
    "xml.bz2 of many streams": ("mediawiki", b"".join(bz2.compress(one.encode()) for one in ["<mediawiki>", *PAGES])),
    "xml.gz": ("mediawiki", gzip.compress(dump(PAGES), mtime=0)),
    "jsonl": ("jsonl", b"".join(LINES)),
    "jsonl.gz": ("jsonl", gzip.compress(b"".join(LINES), mtime=0)),
    "jsonl.zst": ("jsonl", zstd(b"".join(LINES))),
}
CONFIG = ReadConfig(max_page_bytes=2000)


@pytest.fixture(params=FILES.values(), ids=FILES)
def capture(request: pytest.FixtureRequest) -> tuple[Kind, bytes]:
    found: tuple[Kind, bytes] = request.param
    return found


def readings(folder: Path, kind: Kind, data: bytes) -> list[Reading]:
    return list(read(write(folder, "x", data, kind), CONFIG))


@given(data=st.data())
@SETTINGS
def test_truncation_keeps_a_prefix(data: st.DataObject, capture: tuple[Kind, bytes], tmp_path: Path) -> None:
    kind, whole = capture
    cut = data.draw(st.integers(0, len(whole) - 1))
    kept = texts(readings(tmp_path, kind, whole[:cut]))
    assert kept == texts(readings(tmp_path, kind, whole))[: len(kept)]


@given(data=st.data())
@SETTINGS
def test_mutation_never_raises(data: st.DataObject, capture: tuple[Kind, bytes], tmp_path: Path) -> None:
    kind, whole = capture
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        length = data.draw(st.integers(0, 40))
        damaged[at : at + length] = data.draw(st.binary(max_size=40))
    readings(tmp_path, kind, bytes(damaged))


@given(data=st.data())
@SETTINGS
def test_damage_costs_the_records_it_touches(data: st.DataObject) -> None:
    """A byte changed inside a gzip member costs that record at most; all others are as before, in order."""
    packed = [gzip.compress(one, mtime=0) for one in RECORDS]
    hit = data.draw(st.integers(0, len(packed) - 1))
    at = data.draw(st.integers(0, len(packed[hit]) - 1))
    value = data.draw(st.integers(0, 255))
    changed = packed[hit][:at] + bytes([value]) + packed[hit][at + 1 :]
    archive = b"".join([*packed[:hit], changed, *packed[hit + 1 :]])
    found = list(read_records(io.BytesIO(archive), max_block_bytes=2000))
    whole = [
        one.block for one in read_records(io.BytesIO(b"".join(packed)), max_block_bytes=2000) if hasattr(one, "block")
    ]
    kept = [one.block for one in found if not isinstance(one, DamagedRecord)]
    assert kept in (whole, whole[:hit] + whole[hit + 1 :])
    assert any(isinstance(one, DamagedRecord) for one in found) or kept == whole


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, zstd], ids=["gzip", "bz2", "zstd"])
@pytest.mark.parametrize("kind", ["wet", "mediawiki", "jsonl"])
def test_bombs_are_not_held(tmp_path: Path, kind: Kind, compress: Callable[[bytes], bytes]) -> None:
    """64 MB of zeros out of a few KB: passed over in pieces, however packed; bzip2's blocks have 65 MB of their own."""
    import tracemalloc

    data = compress(b"<page>" + bytes(64_000_000))
    tracemalloc.start()
    try:
        assert not texts(readings(tmp_path, kind, data))
        assert tracemalloc.get_traced_memory()[1] < 70_000_000
    finally:
        tracemalloc.stop()
