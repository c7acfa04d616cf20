"""The search for repeated spans and lines: phases over parts and ranges of files, up to the runs of each part.

Each output is named by what went into it, so a search that was killed goes on where it was, and no task holds more than
its range. A corpus that fits the memory asked for is searched by one task, with the same result to the byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.dedup.columns import numbers
from pipelines.dedup.search.run import Run, Task
from pipelines.dedup.shuffle import choose_num_ranges, read_range
from pipelines.dedup.spans.anchors import (
    ANCHORS,
    PIECES,
    WANTED,
    cut_pieces,
    estimate_anchors,
    find_shared,
    scatter_anchors,
    units_wanted,
    whole_pieces,
)
from pipelines.dedup.spans.lines import (
    LINES,
    REPEATED_LINES,
    count_lines,
    read_hosts,
    scatter_lines,
)
from pipelines.dedup.spans.parameters import LinesConfig, SpansConfig, SubstringConfig, spans_config
from pipelines.dedup.spans.repeats import ARRAY_BYTES, RUNS, find_repeats
from pipelines.dedup.spans.units import unit_function
from pipelines.run_folder import RunFolder
from storage.identity import fingerprint
from storage.manifests import Dataset, open_dataset
from storage.parts import commit_table, find_part

VERSION = 1
MEGABYTE = 1_000_000
ANCHOR_BYTES = 120
"""Memory for each anchor or line of a range: the row, its sorted copy and the order."""
MEMBER_BYTES = 200
"""Memory for each piece of a group: its place, its rank, and their copies while sorting."""


@dataclass(frozen=True)
class Search:
    """What all phases share, picklable and small."""

    root: Path
    asked: Mapping[str, str | None]
    base: str
    """Identity of the search: configuration, memory and documents."""

    @property
    def config(self) -> SpansConfig:
        return spans_config(**self.asked)

    @property
    def substrings(self) -> SubstringConfig:
        assert self.config.substrings is not None, "not asked for"
        return self.config.substrings

    @property
    def lines(self) -> LinesConfig:
        assert self.config.lines is not None, "not asked for"
        return self.config.lines

    @property
    def memory(self) -> int:
        return self.config.memory * MEGABYTE

    def folder(self, phase: str) -> Path:
        return RunFolder(self.root).spans / phase

    def name(self, phase: str, number: int) -> str:
        return fingerprint({"spans": self.base, "phase": phase, "number": number, "version": VERSION})

    def files(self, phase: str, count: int) -> list[Path]:
        return [self.folder(phase) / f"{self.name(phase, number)}.parquet" for number in range(count)]

    def documents(self) -> Dataset:
        return open_dataset(RunFolder(self.root).uncut)


def open_search(root: Path, asked: Mapping[str, str | None]) -> Search:
    """A search of the run's documents before any are cut."""
    config = spans_config(**asked)
    checksums = [part.sha256 for part in open_dataset(RunFolder(root).uncut).parts]
    return Search(root, asked, fingerprint({"asked": config.identity(), "memory": config.memory, "of": checksums}))


def find_repeated(search: Search, run: Run) -> dict[str, int]:
    """All phases that are asked for; how many parts, groups and ranges there are, by which their files are found."""
    sizes = {"parts": len(search.documents().parts)}
    if search.config.substrings:
        sizes |= _search_substrings(run, search, sizes)
    if search.config.lines:
        sizes |= _search_lines(run, search, sizes)
    return sizes


def _search_substrings(run: Run, search: Search, sizes: Mapping[str, int]) -> dict[str, int]:
    """The phases up to RUNS by group; how many groups there are."""
    config = search.substrings
    text = sum(part.facts["text_bytes"] for part in search.documents().parts)
    if text * ARRAY_BYTES * max(1, config.width // 4) <= search.memory:
        _each(run, search, search_whole, 1, sizes)
        return {"groups": 1, "whole": 1}
    ranges = choose_num_ranges(estimate_anchors(text, config), max(1, search.memory // ANCHOR_BYTES))
    sizes = {**sizes, "ranges": ranges}
    _each(run, search, scatter_part_anchors, sizes["parts"], sizes)
    shared = _each(run, search, find_range_shared, ranges, sizes)
    held = sum(result["units"] * config.width * ARRAY_BYTES + result["rows"] * MEMBER_BYTES for result in shared)
    sizes = {**sizes, "groups": 1 + held // search.memory}
    _each(run, search, cut_part_pieces, sizes["parts"], sizes)
    _each(run, search, find_group_repeats, sizes["groups"], sizes)
    return {"groups": sizes["groups"], "whole": 0}


def _search_lines(run: Run, search: Search, sizes: Mapping[str, int]) -> dict[str, int]:
    """The phases up to REPEATED_LINES by range; how many ranges there are."""
    text = sum(part.facts["text_bytes"] for part in search.documents().parts)
    ranges = choose_num_ranges(text // 40, max(1, search.memory // (2 * ANCHOR_BYTES)))
    sizes = {**sizes, "line_ranges": ranges}
    _each(run, search, scatter_part_lines, sizes["parts"], sizes)
    _each(run, search, count_range_lines, ranges, sizes)
    return {"line_ranges": ranges}


def _each(run: Run, search: Search, task: Task, count: int, sizes: Mapping[str, int]) -> list[dict[str, Any]]:
    return run(task, [{"search": search, "number": number, "sizes": dict(sizes)} for number in range(count)])


def _once(
    phase: str,
    schema: pa.Schema,
    make: Callable[[Search, int, dict[str, int]], Any],
    arguments: dict[str, Any],
    facts: Callable[[pa.Table], dict[str, Any]] = lambda table: {},
) -> dict[str, Any]:
    """Commit what `make` gives, unless it is there; `facts` are kept with it and returned."""
    search, number = arguments["search"], arguments["number"]
    folder, name = search.folder(phase), search.name(phase, number)
    part = find_part(folder, name)
    if part is None:
        rows = make(search, number, arguments["sizes"])
        found = facts(rows) if isinstance(rows, pa.Table) else {}
        part = commit_table(folder, name, rows, schema=schema, facts=found)
    return {"rows": part.rows, **part.facts}


def part_batches(search: Search, number: int, *columns: str) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(first row, batch) of a documents part."""
    documents, first_row = search.documents(), 0
    for batch in documents.batches(documents.parts[number], list(columns)):
        yield first_row, batch
        first_row += batch.num_rows


def search_whole(arguments: dict[str, Any]) -> dict[str, Any]:
    """RUNS of a corpus that fits, by one array."""

    def make(search: Search, number: int, sizes: dict[str, int]) -> pa.Table:
        config = search.substrings
        encode = unit_function(config)
        pieces = (
            whole_pieces(encode(batch.column("text")), batch.column("doc_id"), part, first_row, config)
            for part in range(sizes["parts"])
            for first_row, batch in part_batches(search, part, "doc_id", "text")
        )
        return find_repeats(pieces, config, search.memory)

    return _once("array", RUNS, make, arguments)


def scatter_part_anchors(arguments: dict[str, Any]) -> dict[str, Any]:
    def make(search: Search, number: int, sizes: dict[str, int]) -> pa.Table:
        config = search.substrings
        encode = unit_function(config)
        tables = [
            scatter_anchors(encode(batch.column("text")), number, first_row, config, sizes["ranges"])
            for first_row, batch in part_batches(search, number, "text")
        ]
        return _by_range([ANCHORS.empty_table(), *tables])

    return _once("anchors", ANCHORS, make, arguments)


def _by_range(tables: list[pa.Table]) -> pa.Table:
    """All rows, sorted by range and otherwise as they come."""
    table = pa.concat_tables(tables).combine_chunks()
    return table.take(pa.array(np.argsort(numbers(table.column("range"), np.uint32), kind="stable")))


def find_range_shared(arguments: dict[str, Any]) -> dict[str, Any]:
    config = arguments["search"].substrings

    def make(search: Search, number: int, sizes: dict[str, int]) -> pa.Table:
        return find_shared(read_range(search.files("anchors", sizes["parts"]), number, ANCHORS))

    return _once("shared", WANTED, make, arguments, lambda wanted: {"units": units_wanted(wanted, config)})


def cut_part_pieces(arguments: dict[str, Any]) -> dict[str, Any]:
    """PIECES of one part, sorted by group: in as many passes over its text as the memory asks for."""

    def make(search: Search, number: int, sizes: dict[str, int]) -> Iterator[pa.RecordBatch]:
        config = search.substrings
        wanted = read_range(search.files("shared", sizes["ranges"]), number, WANTED)
        wanted = wanted.sort_by([("place", "ascending"), ("first", "ascending")])
        at_once = max(1, search.memory // 4 // (config.width * 2 * config.length))
        passes = 1 + len(wanted) // at_once
        for turn in range(passes if len(wanted) else 0):
            low, high = (side * sizes["groups"] // passes for side in (turn, turn + 1))
            yield from _cut_groups(search, number, wanted, sizes["groups"], low, high).to_batches()

    return _once("pieces", PIECES, make, arguments)


def _cut_groups(search: Search, number: int, wanted: pa.Table, groups: int, low: int, high: int) -> pa.Table:
    """PIECES of the groups low..high (exclusive)."""
    config = search.substrings
    encode, tables = unit_function(config), [PIECES.empty_table()]
    for first_row, batch in part_batches(search, number, "doc_id", "text"):
        units, doc_ids = encode(batch.column("text")), batch.column("doc_id")
        tables.append(cut_pieces(units, doc_ids, first_row, wanted, config, groups, low, high))
    return _by_range(tables)


def find_group_repeats(arguments: dict[str, Any]) -> dict[str, Any]:
    def make(search: Search, number: int, sizes: dict[str, int]) -> pa.Table:
        config = search.substrings
        pieces = (read_range([file], number, PIECES) for file in search.files("pieces", sizes["parts"]))
        return find_repeats(pieces, config, search.memory)

    return _once("repeats", RUNS, make, arguments)


def scatter_part_lines(arguments: dict[str, Any]) -> dict[str, Any]:
    def make(search: Search, number: int, sizes: dict[str, int]) -> pa.Table:
        config = search.lines
        tables = [
            scatter_lines(
                batch.column("text"), batch.column("doc_id"), read_hosts(batch.column("url")), number, first_row,
                config, sizes["line_ranges"],
            )
            for first_row, batch in part_batches(search, number, "doc_id", "text", "url")
        ]  # fmt: skip
        return _by_range([LINES.empty_table(), *tables])

    return _once("lines", LINES, make, arguments)


def count_range_lines(arguments: dict[str, Any]) -> dict[str, Any]:
    def make(search: Search, number: int, sizes: dict[str, int]) -> pa.Table:
        config = search.lines
        return count_lines(read_range(search.files("lines", sizes["parts"]), number, LINES), config)

    return _once("counted", REPEATED_LINES, make, arguments)
