"""Records of WARC files: places, damage and recovery, against fastwarc's own iterator on what is whole."""

from __future__ import annotations

import gzip
import io
import random
import time

import pytest
import zstandard
from fastwarc.warc import ArchiveIterator, WarcRecordType

from benchmarks.packing import pack_lz4
from sources.compression import dictionary_frame_bytes
from sources.web.warc_records import DamagedRecord, WarcRecord, read_records
from tests.sources.captures import members, record

RECORDS = [record(n, f"text {n} ".encode() * (n + 3)) for n in range(5)]
LIMIT = 10_000


ENCODERS = {
    "plain": bytes,
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "zstd": zstandard.ZstdCompressor().compress,
    "lz4": pack_lz4,
}


def read(data: bytes, limit: int = LIMIT) -> list[WarcRecord | DamagedRecord]:
    return list(read_records(io.BytesIO(data), max_block_bytes=limit))


def ids(found: list[WarcRecord | DamagedRecord]) -> list[str]:
    return [
        one.headers["warc-record-id"][-1] if isinstance(one, WarcRecord) else one.reason.split("_compression")[0]
        for one in found
    ]


@pytest.mark.parametrize("encode", ENCODERS.values(), ids=ENCODERS)
def test_offset_and_length_bring_back_the_record(encode) -> None:  # type: ignore[no-untyped-def]
    data = b"".join(encode(one) for one in RECORDS)
    found = read(data)
    assert ids(found) == list("01234")
    for one in found:
        assert isinstance(one, WarcRecord) and one.length is not None
        [again] = read(data[one.offset : one.offset + one.length])
        assert isinstance(again, WarcRecord) and again.block == one.block


@pytest.mark.parametrize("encode", ENCODERS.values(), ids=ENCODERS)
def test_agrees_with_fastwarc(encode) -> None:  # type: ignore[no-untyped-def]
    data = b"".join(encode(one) for one in RECORDS)
    theirs = [
        (one.stream_pos, one.record_id, one.reader.read())
        for one in ArchiveIterator(io.BytesIO(data), record_types=WarcRecordType.any_type, parse_http=False)
    ]
    assert len(theirs) == len(RECORDS)
    ours = [(one.offset, one.headers["warc-record-id"], one.block) for one in read(data) if isinstance(one, WarcRecord)]
    assert [(at, f"<{name}>", block) for at, name, block in ours] == theirs


@pytest.mark.parametrize("packed", [False, True], ids=["plain dictionary", "packed dictionary"])
def test_a_dictionary_in_the_first_frame_is_used(packed: bool) -> None:
    """Archive Team's `.warc.zst`: each record is found by its range behind the dictionary's frame."""
    trained = zstandard.train_dictionary(1000, [record(n, b"common words " * 20) for n in range(200)])
    held = zstandard.ZstdCompressor().compress(trained.as_bytes()) if packed else trained.as_bytes()
    first = b"\x5d\x2a\x4d\x18" + len(held).to_bytes(4, "little") + held
    encode = zstandard.ZstdCompressor(dict_data=trained).compress
    data = first + b"".join(encode(one) for one in RECORDS)
    found = read(data)
    assert ids(found) == list("01234")
    assert dictionary_frame_bytes(data[:8]) == len(first)
    for one in found:
        assert isinstance(one, WarcRecord) and one.length is not None
        assert read(first + data[one.offset : one.offset + one.length])[0].block == one.block  # type: ignore[union-attr]
    assert set(ids(read(data[len(first) :]))) == {"damaged"}


def test_frames_without_content_are_passed_over() -> None:
    skippable = b"\x50\x2a\x4d\x18" + (7).to_bytes(4, "little") + b"1234567"
    data = skippable + b"".join(skippable + ENCODERS["zstd"](one) for one in RECORDS) + skippable
    assert ids(read(data)) == list("01234")


@pytest.mark.parametrize("encode", ENCODERS.values(), ids=ENCODERS)
def test_records_of_many_blocks(encode) -> None:  # type: ignore[no-untyped-def]
    """Larger than what is read at once, packed and unpacked, and than the blocks of zstd and pack_lz4."""
    draw = random.Random(1)
    blocks = [
        draw.randbytes(size) + b"words " * size for size in (50_000, 70_001, 131_072, 200_003, 300_000, 5, 65_536)
    ]
    found = read(b"".join(encode(record(n, block)) for n, block in enumerate(blocks)), 1 << 22)
    assert [one.block for one in found if isinstance(one, WarcRecord)] == blocks


def test_records_that_share_a_member() -> None:
    found = read(gzip.compress(b"".join(RECORDS)))
    assert ids(found) == list("01234")
    assert [one.ordinal for one in found if isinstance(one, WarcRecord)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("encode", ENCODERS.values(), ids=ENCODERS)
@pytest.mark.parametrize("length", [3, 5000, 10**6, 10**17], ids=["short", "long", "over the limit", "absurd"])
def test_a_wrong_length_costs_its_record(encode, length: int) -> None:  # type: ignore[no-untyped-def]
    bad = record(9, b"block " * 50, length=length)
    found = read(b"".join(encode(one) for one in [RECORDS[0], bad, *RECORDS[1:]]))
    assert ids(found) == ["0", "wrong_length", "1", "2", "3", "4"]
    assert found[1].offset == len(encode(RECORDS[0]))
    assert isinstance(found[1], DamagedRecord) and found[1].url == "https://example.org/9"


@pytest.mark.parametrize("length", ["-5", "many", "", "²"])
def test_a_length_that_is_no_number(length: str) -> None:
    found = read(RECORDS[0] + record(9, b"block", length=length) + RECORDS[1])
    assert ids(found) == ["0", "no_content_length", "1"]


def test_garbage_between_records_is_one_failure() -> None:
    assert ids(read(RECORDS[0] + b"garbage\n" * 100 + RECORDS[1])) == ["0", "no_warc_header", "1"]
    packed = members(RECORDS[:1]) + b"garbage" * 100 + members(RECORDS[1:])
    assert ids(read(packed)) == ["0", "damaged", "1", "2", "3", "4"]


def test_endless_headers_are_bounded() -> None:
    found = read(RECORDS[0] + b"WARC/1.0\r\n" + b"X: y\r\n" * 50_000 + b"\r\n" + RECORDS[1])
    assert ids(found) == ["0", "no_header_end", "1"]


def test_line_feeds_alone_end_headers() -> None:
    head, _, body = RECORDS[1].partition(b"\r\n\r\n")
    assert ids(read(head.replace(b"\r\n", b"\n") + b"\n\n" + body + RECORDS[2])) == ["1", "2"]


def test_a_cut_member_is_reported_and_the_others_kept() -> None:
    packed = [gzip.compress(one, mtime=0) for one in RECORDS]
    assert ids(read(b"".join(packed)[:-10])) == ["0", "1", "2", "3", "truncated"]
    assert ids(read(packed[0] + packed[1][:40] + b"".join(packed[2:]))) == ["0", "damaged", "2", "3", "4"]


def test_a_checksum_that_does_not_fit_costs_its_record() -> None:
    packed = [gzip.compress(one, mtime=0) for one in RECORDS]
    bad = packed[1][:-8] + b"\x00\x00\x00\x00" + packed[1][-4:]
    assert ids(read(packed[0] + bad + packed[2])) == ["0", "damaged", "2"]


def test_zero_padding_is_nothing() -> None:
    assert ids(read(members(RECORDS) + bytes(5000))) == list("01234")


def test_a_record_right_behind_damaged_headers_is_found() -> None:
    assert ids(read(b"WARC/1.0\r\nWARC-Type: response\r\n\r\n" + RECORDS[1])) == ["no_content_length", "1"]
    assert ids(read(b"WARC/1.0\r\nContent-Length: 8\r\n" + RECORDS[1])) == ["no_header_end", "1"]


@pytest.mark.parametrize("start", [b"WARC/", b"WARC/1.0\r\n", b"WARC/1\n\n", b"WARC/1.0\nA: b\n\n"])
def test_a_million_beginnings_take_linear_time(start: bytes) -> None:
    """64 KB were searched behind each of them, 23 s a megabyte."""
    begun = time.process_time()
    found = read(start * (1_000_000 // len(start)) + b"\r\n" + RECORDS[1])
    assert ids(found[-1:]) == ["1"] and time.process_time() - begun < 8


@pytest.mark.parametrize("encode", ENCODERS.values(), ids=ENCODERS)
def test_large_records_are_passed_over(encode) -> None:  # type: ignore[no-untyped-def]
    large = record(7, b"x" * 500_000)
    found = read(b"".join(encode(one) for one in [RECORDS[0], large, RECORDS[1]]))
    assert ids(found) == ["0", "7", "1"]
    one = found[1]
    assert isinstance(one, WarcRecord) and one.oversize and one.block_bytes == 500_000 and len(one.block) == 65536


def test_a_page_about_warc_is_no_second_record() -> None:
    inner = record(8, b"an example in a tutorial")
    found = read(RECORDS[0] + record(7, b"see: \r\n\r\n" + inner) + RECORDS[1])
    assert ids(found) == ["0", "7", "1"]
