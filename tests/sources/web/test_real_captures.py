"""Archives as they were found in the wild: read whole, and as fastwarc reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType

from sources.web.warc_records import WarcRecord, read_records

LIMIT = 10 << 20


def test_the_same_records_as_fastwarc(shared_data: Path) -> None:
    compared = 0
    for path in sorted((shared_data / "web" / "archives").iterdir()):
        if path.name == "facebookresearch+cc_net__sample.warc.txt":  # its line ends were converted: lengths are wrong
            continue
        with open(path, "rb") as file:
            ours = [one for one in read_records(file, max_block_bytes=LIMIT) if isinstance(one, WarcRecord)]
        theirs = [
            (one.stream_pos, (one.record_id or "").strip("<>"), one.content_length, one.reader.read())
            for one in ArchiveIterator(str(path), record_types=WarcRecordType.any_type, parse_http=False)
        ]
        found = [(one.offset, one.headers.get("warc-record-id", ""), one.block_bytes, one.block) for one in ours]
        assert found == theirs, path.name
        compared += len(found)
    assert compared > 1300


def test_lengths_are_those_of_the_members(shared_data: Path) -> None:
    """One byte range of a crawl is one record, as an index of it would say."""
    path = shared_data / "web" / "archives" / "commoncrawl+whirlwind-python__whirlwind.warc.gz"
    with open(path, "rb") as file:
        found = [one for one in read_records(file, max_block_bytes=LIMIT) if isinstance(one, WarcRecord)]
    assert sum(one.length or 0 for one in found) == path.stat().st_size


@pytest.mark.parametrize("name", ["facebookresearch+cc_net__sample.warc.txt"])
def test_wrong_lengths_of_a_converted_file_are_reported(shared_data: Path, name: str) -> None:
    with open(shared_data / "web" / "archives" / name, "rb") as file:
        found = list(read_records(file, max_block_bytes=LIMIT))
    assert len(found) == 4 and {getattr(one, "reason", None) for one in found} == {"wrong_length"}
