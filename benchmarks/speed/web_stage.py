"""A WARC to documents, the whole stage: pages a core-second of our reader, `best` and `fast`, and of datatrove's.

Both read the same file from disk, records are parsed, pages decoded, extracted in a process of their own, and come out
as documents. CPU seconds of this process and of the processes it started. The file is the pages several times over,
each time under other addresses and with another comment in every page, so that nothing could be kept by content, and
so that starting (0.9 s for ours, 0.8 s for datatrove's) does not count for more than in a crawl's file.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import logging
import resource
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from benchmarks.table import Row, publish
from benchmarks.web_pages import add_page_options, read_gold_pages
from sources.reading import Extraction, RawInput, ReadConfig
from sources.web.warc import read_warc
from storage.schema import Document

MODES: tuple[Extraction, ...] = ("best", "fast")
PEER = "datatrove: WarcReader, Trafilatura"


def write_warc(path: Path, pages: Iterable[tuple[bytes, str | None]], copies: int) -> int:
    """The pages as response records, a gzip member each, `copies` times; how many records there are."""
    kept = list(pages)
    with open(path, "wb") as file:
        for copy in range(copies):
            for number, (data, charset) in enumerate(kept):
                file.write(gzip.compress(response_record(f"{copy}/{number}", data + b"<!-- %d -->" % copy, charset), 6))
    return copies * len(kept)


def response_record(name: str, data: bytes, charset: str | None) -> bytes:
    kind = f"text/html; charset={charset}" if charset else "text/html"
    block = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:{name}>\r\nWARC-Date: 2026-01-01T00:00:00Z\r\n"
        f"WARC-Target-URI: https://host.example/{name}\r\nContent-Type: application/http; msgtype=response\r\n"
        "WARC-Identified-Payload-Type: text/html\r\n"
        f"Content-Length: {len(block)}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def cpu_seconds() -> float:
    """User and system seconds of this process and of those that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def read_ours(path: Path, mode: Extraction) -> int:
    """Documents that our reader makes of the file."""
    raw = RawInput(source="web", kind="warc", path=str(path), name=path.name, size=path.stat().st_size)
    return sum(isinstance(one, Document) for one in read_warc(raw, ReadConfig(extraction=mode)))


def read_datatrove(path: Path) -> int:
    """Documents that datatrove's reader and extractor make of the file, with their defaults."""
    from datatrove.pipeline.extractors import Trafilatura
    from datatrove.pipeline.readers import WarcReader

    logging.disable(logging.CRITICAL)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        reader = WarcReader(str(path.parent), glob_pattern=path.name, compression="gzip")
        return sum(1 for _ in Trafilatura(timeout=10)(reader()))


def measure(path: Path, read: Callable[[Path], int], turns: int) -> tuple[float, int]:
    """Least CPU seconds of some turns, and how many documents there were."""
    least, count = float("inf"), 0
    for _ in range(turns):
        start = cpu_seconds()
        count = read(path)
        least = min(least, cpu_seconds() - start)
    return least, count


def rows_of(what: str, path: Path, pages: int, turns: int) -> Iterator[Row]:
    """Ours by mode beside datatrove's on one file."""
    peer_seconds, peer_documents = measure(path, read_datatrove, 1)
    for mode in MODES:
        seconds, documents = measure(path, lambda path, mode=mode: read_ours(path, mode), turns)  # type: ignore[misc]
        print(what, mode, documents, "documents; datatrove", peer_documents, "of", pages)
        yield Row(
            what=f"WARC → documents, {what}, `{mode}`",
            figure=pages / seconds,
            unit="pages per core-second",
            peer=PEER,
            peer_figure=pages / peer_seconds,
        )


def main(arguments: list[str]) -> int:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(prog="make bench-web-stage", description=__doc__)
    add_page_options(parser)
    parser.add_argument("--copies", type=int, default=4)
    parser.add_argument("--turns", type=int, default=2)
    options = parser.parse_args(arguments)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pages.warc.gz"
        pages = [(page.data, page.charset) for page in read_gold_pages(options.web, options.gold)]
        rows += rows_of(options.web.name, path, write_warc(path, pages, options.copies), options.turns)
        if options.documentation:
            found = [(file.read_bytes(), "utf-8") for file in sorted(options.documentation.rglob("*.html"))[:1000]]
            size = sum(len(data) for data, _ in found) / len(found) / 1000
            count = write_warc(path, found, max(1, 1000 // len(found)))
            rows += rows_of(f"documentation pages of {size:.0f} KB", path, count, options.turns)
    publish("web_stage", rows, packages=("trafilatura", "datatrove", "fastwarc", "numba"), notes=[
        f"{len(pages)} pages of {options.web.name}, {options.copies} times, each time with another comment in them",
    ])  # fmt: skip
    return 0
