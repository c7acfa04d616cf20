"""A worker's memory while it reads a WARC of 2 GB, and a page of 200 MB: the reader, its parts, and the pages' process.

The archive is made on the spot of real pages, again and again under other ids, and deleted; nothing of it is known by
content. What is read goes through the whole stage, so the documents of an open part (64 MB of text) are within the
figures. Memory is resident memory, of this process and of the one that it starts for its pages, at its highest.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from benchmarks.speed.web_stage import response_record
from benchmarks.table import Row, publish
from benchmarks.web_pages import WCXB, read_gold_pages
from sources.ingest import IngestConfig, ingest, read
from sources.reading import RawInput, ReadConfig, Reading
from storage.schema import Document, Failure

PAUSE_SECONDS = 0.05
LARGE_PAGE = 200_000_000


class Watch:
    """The highest sum of both processes' resident memory, in MB, looked at 20 times a second in a thread."""

    def __init__(self) -> None:
        self.highest = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(PAUSE_SECONDS):
            self.highest = max(self.highest, resident())


def resident() -> float:
    """Resident memory of this process and of its children, in MB."""
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    children = [int(number) for path in tasks for number in path.read_text().split()]
    return sum(map(_resident, [os.getpid(), *children]))


def _resident(process: int) -> float:
    try:
        found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    except OSError:
        return 0.0
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def main(arguments: list[str]) -> int:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(prog="make bench-reading-memory", description=__doc__)
    parser.add_argument("--web", type=Path, default=WCXB[0], metavar="WARC")
    parser.add_argument("--gold", type=Path, default=WCXB[1], metavar="JSONL", help="the pages of the WARC to read")
    parser.add_argument("--gigabytes", type=float, default=2.0)
    options = parser.parse_args(arguments)
    pages = [(page.data, page.charset) for page in read_gold_pages(options.web, options.gold)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pages.warc"
        rows = [*_archive(path, pages, options.gigabytes), *_large_page(path, pages)]
    notes = [f"{len(pages)} pages of {options.web.name}, again and again; `fast`"]
    publish("reading_memory", rows, packages=("pyarrow", "numba", "isal"), notes=notes)
    return 0


def _archive(path: Path, pages: list[tuple[bytes, str | None]], gigabytes: float) -> Iterator[Row]:
    _write(path, pages, int(gigabytes * 1e9))
    seen = documents = 0
    levels: list[float] = []
    with Watch() as watch:
        for batch in ingest(_raw(path), IngestConfig(extraction="fast", part_bytes=64_000_000)):
            seen, documents = seen + batch.records_seen, documents + batch.documents.num_rows
            levels.append(resident())
    yield Row(what=f"a WARC of {gigabytes:g} GB: records", figure=seen, unit="records")
    yield Row(what=f"a WARC of {gigabytes:g} GB: documents", figure=documents, unit="documents")
    yield Row(what="memory after the first part", figure=levels[0], unit="MB")
    yield Row(what="memory after the last part", figure=levels[-1], unit="MB")
    yield Row(what="highest memory of the worker", figure=watch.highest, unit="MB")


def _write(path: Path, pages: list[tuple[bytes, str | None]], size: int) -> None:
    copy = 0
    with path.open("wb") as file:
        while file.tell() < size:
            for number, (data, charset) in enumerate(pages):
                file.write(response_record(f"{copy}/{number}", data + b"<!-- %d -->" % copy, charset))
            copy += 1


def _large_page(path: Path, pages: list[tuple[bytes, str | None]]) -> Iterator[Row]:
    """A page whose content is real pages' content, one behind the other."""
    body, number = bytearray(b"<html><head><title>All of it</title></head><body>"), 0
    while len(body) < LARGE_PAGE:
        body += pages[number % len(pages)][0]
        number += 1
    path.write_bytes(response_record("large", bytes(body), "utf-8") + response_record("last", pages[0][0], None))
    del body
    larger = ReadConfig(extraction="fast", max_page_bytes=1 << 28, page_cpu_seconds=600)
    for what, config in (
        ("by default", ReadConfig(extraction="fast")),
        ("read whole (max_page_bytes 256 MiB)", larger),
    ):
        with Watch() as watch:
            found = [_kind(one) for one in read(_raw(path), config)]
        print(what, found)
        yield Row(what=f"a page of 200 MB, {what}: highest memory", figure=watch.highest, unit="MB")
        yield Row(what=f"a page of 200 MB, {what}: documents", figure=found.count("document"), unit="of 2")


def _kind(reading: Reading) -> str:
    if isinstance(reading, Failure):
        return reading.reason
    return "document" if isinstance(reading, Document) else reading.reason


def _raw(path: Path) -> RawInput:
    return RawInput(source="web", kind="warc", path=str(path), name=path.name, size=path.stat().st_size)
