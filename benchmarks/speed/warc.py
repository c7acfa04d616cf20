"""Records of web archives to HTTP payloads, no page parsed: our reader beside fastwarc, warcio and datatrove's.

All read the same file from disk and decode every response's payload; where they count differently, it is told. The
pages stand `--copies` times in a file, each record a gzip member, a zstd or lz4 frame, or plain. CPU seconds of this
process, the least of interleaved turns. datatrove's reader is warcio's with a guess of every page's encoding; neither
reads zstd or lz4.
"""

from __future__ import annotations

import argparse
import gzip
import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import zstandard
from fastwarc.warc import ArchiveIterator, WarcRecordType

from benchmarks.packing import pack_lz4
from benchmarks.speed.web_stage import response_record
from benchmarks.table import Row, publish
from benchmarks.web_pages import add_page_options, read_gold_pages
from sources.web.http import decode_payload, parse_message
from sources.web.warc_records import WarcRecord, read_records

LIMIT = 64 << 20
Counts = tuple[int, int]
"""Responses, and bytes of their payloads."""


def read_ours(path: Path) -> Counts:
    """By our reader, which checks every checksum and knows each record's range."""
    number = size = 0
    with open(path, "rb", buffering=0) as file:
        for record in read_records(file, max_block_bytes=LIMIT):
            if isinstance(record, WarcRecord) and record.kind == "response":
                number += 1
                size += len(decode_payload(parse_message(record.block), LIMIT))
    return number, size


def read_fastwarc(path: Path) -> Counts:
    """By fastwarc, as its documentation shows."""
    number = size = 0
    with open(path, "rb") as file:
        for record in ArchiveIterator(file, record_types=WarcRecordType.response, parse_http=True, auto_decode="all"):
            number += 1
            size += len(record.reader.read())
    return number, size


def read_warcio(path: Path) -> Counts:
    """By warcio."""
    from warcio.archiveiterator import ArchiveIterator as WarcioIterator

    number = size = 0
    with open(path, "rb") as file:
        for record in WarcioIterator(file):
            if record.rec_type == "response":
                number += 1
                size += len(record.content_stream().read())
    return number, size


def read_datatrove(path: Path) -> Counts:
    """By datatrove's reader, which decodes pages to text; their size is not comparable."""
    from datatrove.pipeline.readers import WarcReader

    logging.disable(logging.CRITICAL)
    compression = "gzip" if path.suffix == ".gz" else None
    reader = WarcReader(str(path.parent), glob_pattern=path.name, compression=compression)
    return sum(1 for _ in reader()), 0


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, 6, mtime=0)


PACKS: dict[str, Callable[[bytes], bytes]] = {
    ".warc.gz": _gzip,
    ".warc.zst": zstandard.ZstdCompressor().compress,
    ".warc.lz4": pack_lz4,
    ".warc": bytes,
}
PEERS: dict[str, Callable[[Path], Counts]] = {
    "fastwarc": read_fastwarc, "warcio": read_warcio, "datatrove: WarcReader": read_datatrove,
}  # fmt: skip


def write(path: Path, pages: Iterable[tuple[bytes, str | None]], copies: int, pack: Callable[[bytes], bytes]) -> None:
    """The pages as response records, each packed by itself."""
    kept = list(pages)
    with open(path, "wb") as file:
        for copy in range(copies):
            for number, (data, charset) in enumerate(kept):
                file.write(pack(response_record(f"{copy}/{number}", data, charset)))


def rows_of(what: str, path: Path, turns: int) -> Iterator[Row]:
    """Ours beside each peer that reads such a file."""
    readers = {"ours": read_ours} | {
        name: read for name, read in PEERS.items() if name == "fastwarc" or path.suffix in (".gz", ".warc")
    }
    best, counts = dict.fromkeys(readers, float("inf")), dict[str, Counts]()
    for _ in range(turns):
        for name, read in readers.items():
            begun = time.process_time()
            counts[name] = read(path)
            best[name] = min(best[name], time.process_time() - begun)
    records, size = counts["ours"]
    for name in list(readers)[1:]:
        if counts[name] != counts["ours"] and name != "datatrove: WarcReader":
            print(f"{what}: {name} counts {counts[name]}, ours {counts['ours']}")
        yield Row(
            what=f"{what}: records", figure=records / best["ours"], unit="records per core-second",
            peer=name, peer_figure=counts[name][0] / best[name],
        )  # fmt: skip
    yield Row(
        what=f"{what}: payload", figure=size / best["ours"] / 1e6, unit="MB/s a core",
        peer="fastwarc", peer_figure=counts["fastwarc"][1] / best["fastwarc"] / 1e6,
    )  # fmt: skip


def main(arguments: list[str]) -> int:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(prog="make bench-warc", description=__doc__)
    add_page_options(parser)
    parser.add_argument("--copies", type=int, default=4)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args(arguments)
    corpora: dict[str, list[tuple[bytes, str | None]]] = {
        options.web.name: [(page.data, page.charset) for page in read_gold_pages(options.web, options.gold)]
    }
    if options.documentation:
        found: list[tuple[bytes, str | None]] = [
            (file.read_bytes(), "utf-8") for file in sorted(options.documentation.rglob("*.html"))[:1000]
        ]
        corpora[f"documentation pages of {sum(len(data) for data, _ in found) / len(found) / 1000:.0f} KB"] = found
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for what, pages in corpora.items():
            for suffix, pack in PACKS.items():
                path = Path(folder) / f"pages{suffix}"
                write(path, pages, options.copies, pack)
                rows += rows_of(f"{what} as {suffix}", path, options.turns)
    publish("warc", rows, packages=("fastwarc", "warcio", "datatrove", "isal", "zstandard"), notes=[
        f"{len(pages)} pages of {what}, {options.copies} times" for what, pages in corpora.items()
    ])  # fmt: skip
    return 0
