"""The repeated-spans job: what of every document stands elsewhere too, and where it is asked for, the texts without it.

Phases over parts and ranges, as `pipelines/dedup/spans` describes them; each output is named by what went into it, so a
killed job goes on where it was, and no task holds more than its range. A corpus that fits the memory asked for is
searched by one task, with the same result to the byte.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from classifiers.rewriting import chain, rewrites_schema
from pipelines.dedup.columns import numbers, string_buffers
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
from pipelines.dedup.spans.cut import cut_stage
from pipelines.dedup.spans.lines import (
    LINES,
    REPEATED_LINES,
    count_lines,
    line_runs,
    read_hosts,
    scatter_lines,
)
from pipelines.dedup.spans.measure import REPEATED, measure_spans
from pipelines.dedup.spans.parameters import SpansConfig, spans_config
from pipelines.dedup.spans.repeats import ARRAY_BYTES, RUNS, find_repeats
from pipelines.dedup.spans.units import Units, unit_function
from pipelines.jobs.driver import PartTask, run_parts
from pipelines.jobs.job import Job
from pipelines.run_folder import RunFolder
from storage.identity import fingerprint
from storage.manifests import MANIFEST, Dataset, Manifest, align, find_manifest, open_dataset, write_manifest
from storage.parts import Part, commit_table, find_part, part_from_json, part_to_json
from storage.schema import DOCUMENTS, IDENTIFIER
from storage.stage import Stage

VERSION = 1
MEGABYTE = 1_000_000
ANCHOR_BYTES = 120
"""Memory for each anchor or line of a range: the row, its sorted copy and the order."""
MEMBER_BYTES = 200
"""Memory for each piece of a group: its place, its rank, and their copies while sorting."""


@dataclass(frozen=True)
class _Search:
    """What all phases share, picklable and small."""

    root: Path
    asked: Mapping[str, str | None]
    base: str
    """Identity of the search: configuration, memory and documents."""

    @property
    def config(self) -> SpansConfig:
        return spans_config(**self.asked)

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


Call = Callable[[list[PartTask], Callable[[dict[str, Any]], dict[str, Any]]], list[dict[str, Any]]]
"""What calls a function for every task, wherever, and gives the results in the tasks' order."""


def run(job: Job) -> dict[str, Any]:
    """Publish `attributes/repeated` and, where they are to be cut, the documents `cut`."""

    def call(tasks: list[PartTask], function: Callable[[dict[str, Any]], dict[str, Any]]) -> list[dict[str, Any]]:
        report = run_parts(job, tasks, function, total=len(tasks), stage="spans")
        report.require_all()
        return [result for result in report.results if result]

    return find_spans(job.run_folder, job.spec["asked"], cut=job.spec["cut"], call=call)


def find_spans(root: Path, asked: Mapping[str, str | None], *, cut: bool, call: Call) -> dict[str, Any]:
    """All phases, each task by `call`."""
    documents = open_dataset(RunFolder(root).uncut)
    config = spans_config(**asked)
    shas = [part.sha256 for part in documents.parts]
    base = fingerprint({"asked": config.identity(), "memory": config.memory, "of": shas})
    search = _Search(root, asked, base)
    sizes = {"parts": len(documents.parts)}
    if search.config.substrings:
        sizes |= _search_substrings(call, search, sizes)
    if search.config.lines:
        sizes |= _search_lines(call, search, sizes)
    return _publish(call, search, sizes, cut)


def _search_substrings(call: Call, search: _Search, sizes: Mapping[str, int]) -> dict[str, int]:
    """The phases up to RUNS by group; how many groups there are."""
    config = search.config.substrings
    assert config is not None
    text = sum(part.facts["text_bytes"] for part in search.documents().parts)
    if text * ARRAY_BYTES * max(1, config.width // 4) <= search.memory:
        _phase(call, search, "array", search_whole, 1, sizes)
        return {"groups": 1, "whole": 1}
    ranges = choose_num_ranges(estimate_anchors(text, config), max(1, search.memory // ANCHOR_BYTES))
    sizes = {**sizes, "ranges": ranges}
    _phase(call, search, "anchors", scatter_part_anchors, sizes["parts"], sizes)
    shared = _phase(call, search, "shared", find_range_shared, ranges, sizes)
    held = sum(result["units"] * config.width * ARRAY_BYTES + result["rows"] * MEMBER_BYTES for result in shared)
    sizes = {**sizes, "groups": 1 + held // search.memory}
    _phase(call, search, "pieces", cut_part_pieces, sizes["parts"], sizes)
    _phase(call, search, "repeats", find_group_repeats, sizes["groups"], sizes)
    return {"groups": sizes["groups"], "whole": 0}


def _search_lines(call: Call, search: _Search, sizes: Mapping[str, int]) -> dict[str, int]:
    """The phases up to REPEATED_LINES by range; how many ranges there are."""
    text = sum(part.facts["text_bytes"] for part in search.documents().parts)
    ranges = choose_num_ranges(text // 40, max(1, search.memory // (2 * ANCHOR_BYTES)))
    sizes = {**sizes, "line_ranges": ranges}
    _phase(call, search, "lines", scatter_part_lines, sizes["parts"], sizes)
    _phase(call, search, "counted", count_range_lines, ranges, sizes)
    return {"line_ranges": ranges}


def _phase(
    call: Call,
    search: _Search,
    phase: str,
    function: Callable[[dict[str, Any]], dict[str, Any]],
    count: int,
    sizes: Mapping[str, int],
) -> list[dict[str, Any]]:
    tasks = [
        PartTask(
            identity=search.name(phase, number), arguments={"search": search, "number": number, "sizes": dict(sizes)}
        )
        for number in range(count)
    ]
    return call(tasks, function)


def _once(
    phase: str,
    schema: pa.Schema,
    make: Callable[[_Search, int, dict[str, int]], Any],
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


def _batches(search: _Search, number: int, *columns: str) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(first row, batch) of a documents part."""
    documents, first_row = search.documents(), 0
    for batch in documents.batches(documents.parts[number], list(columns)):
        yield first_row, batch
        first_row += batch.num_rows


def search_whole(arguments: dict[str, Any]) -> dict[str, Any]:
    """RUNS of a corpus that fits, by one array."""

    def make(search: _Search, number: int, sizes: dict[str, int]) -> pa.Table:
        config = search.config.substrings
        assert config is not None
        encode = unit_function(config)
        pieces = (
            whole_pieces(encode(batch.column("text")), batch.column("doc_id"), part, first_row, config)
            for part in range(sizes["parts"])
            for first_row, batch in _batches(search, part, "doc_id", "text")
        )
        return find_repeats(pieces, config, search.memory)

    return _once("array", RUNS, make, arguments)


def scatter_part_anchors(arguments: dict[str, Any]) -> dict[str, Any]:
    def make(search: _Search, number: int, sizes: dict[str, int]) -> pa.Table:
        config = search.config.substrings
        assert config is not None
        encode = unit_function(config)
        tables = [
            scatter_anchors(encode(batch.column("text")), number, first_row, config, sizes["ranges"])
            for first_row, batch in _batches(search, number, "text")
        ]
        return _by_range([ANCHORS.empty_table(), *tables])

    return _once("anchors", ANCHORS, make, arguments)


def _by_range(tables: list[pa.Table]) -> pa.Table:
    """All rows, sorted by range and otherwise as they come."""
    table = pa.concat_tables(tables).combine_chunks()
    return table.take(pa.array(np.argsort(numbers(table.column("range"), np.uint32), kind="stable")))


def find_range_shared(arguments: dict[str, Any]) -> dict[str, Any]:
    config = arguments["search"].config.substrings

    def make(search: _Search, number: int, sizes: dict[str, int]) -> pa.Table:
        return find_shared(read_range(search.files("anchors", sizes["parts"]), number, ANCHORS))

    return _once("shared", WANTED, make, arguments, lambda wanted: {"units": units_wanted(wanted, config)})


def cut_part_pieces(arguments: dict[str, Any]) -> dict[str, Any]:
    """PIECES of one part, sorted by group: in as many passes over its text as the memory asks for."""

    def make(search: _Search, number: int, sizes: dict[str, int]) -> Iterator[pa.RecordBatch]:
        config = search.config.substrings
        assert config is not None
        wanted = read_range(search.files("shared", sizes["ranges"]), number, WANTED)
        wanted = wanted.sort_by([("place", "ascending"), ("first", "ascending")])
        at_once = max(1, search.memory // 4 // (config.width * 2 * config.length))
        passes = 1 + len(wanted) // at_once
        for turn in range(passes if len(wanted) else 0):
            low, high = (side * sizes["groups"] // passes for side in (turn, turn + 1))
            yield from _cut_groups(search, number, wanted, sizes["groups"], low, high).to_batches()

    return _once("pieces", PIECES, make, arguments)


def _cut_groups(search: _Search, number: int, wanted: pa.Table, groups: int, low: int, high: int) -> pa.Table:
    """PIECES of the groups low..high (exclusive)."""
    config = search.config.substrings
    assert config is not None
    encode, tables = unit_function(config), [PIECES.empty_table()]
    for first_row, batch in _batches(search, number, "doc_id", "text"):
        units, doc_ids = encode(batch.column("text")), batch.column("doc_id")
        tables.append(cut_pieces(units, doc_ids, first_row, wanted, config, groups, low, high))
    return _by_range(tables)


def find_group_repeats(arguments: dict[str, Any]) -> dict[str, Any]:
    def make(search: _Search, number: int, sizes: dict[str, int]) -> pa.Table:
        config = search.config.substrings
        assert config is not None
        pieces = (read_range([file], number, PIECES) for file in search.files("pieces", sizes["parts"]))
        return find_repeats(pieces, config, search.memory)

    return _once("repeats", RUNS, make, arguments)


def scatter_part_lines(arguments: dict[str, Any]) -> dict[str, Any]:
    def make(search: _Search, number: int, sizes: dict[str, int]) -> pa.Table:
        config = search.config.lines
        assert config is not None
        tables = [
            scatter_lines(
                batch.column("text"), batch.column("doc_id"), read_hosts(batch.column("url")), number, first_row,
                config, sizes["line_ranges"],
            )
            for first_row, batch in _batches(search, number, "doc_id", "text", "url")
        ]  # fmt: skip
        return _by_range([LINES.empty_table(), *tables])

    return _once("lines", LINES, make, arguments)


def count_range_lines(arguments: dict[str, Any]) -> dict[str, Any]:
    def make(search: _Search, number: int, sizes: dict[str, int]) -> pa.Table:
        config = search.config.lines
        assert config is not None
        return count_lines(read_range(search.files("lines", sizes["parts"]), number, LINES), config)

    return _once("counted", REPEATED_LINES, make, arguments)


def _publish(call: Call, search: _Search, sizes: Mapping[str, int], cut: bool) -> dict[str, Any]:
    """Measure and, where asked, cut every part; the manifests of both."""
    folder = RunFolder(search.root)
    rewrites = find_manifest(folder.rewrites) if cut else None
    basis = {"of": _listed(search.documents().parts), "rewrites": rewrites.identity if rewrites else None}
    result = fingerprint({"spans": search.config.identity(), "cut": cut, **basis})
    tasks = [
        PartTask(
            identity=fingerprint({"measured": result, "number": number}),
            arguments={"search": search, "number": number, "sizes": dict(sizes), "cut": cut, "result": result},
        )
        for number in range(sizes["parts"])
    ]
    made = call(tasks, measure_part)
    stage = {"name": "spans", "version": VERSION, "asked": dict(search.asked), "cut": cut}
    measured = _manifest(folder.repeated, "repeated", stage, [found["measured"] for found in made])
    documents = search.documents().manifest
    if cut:
        documents = _manifest(folder.cut, "documents", stage, [found["cut"] for found in made])
    else:
        (folder.cut / MANIFEST).unlink(missing_ok=True)
    counts = [part.facts for part in measured.parts]
    return {
        "identity": documents.identity,
        "repeated": measured.identity,
        "documents": measured.rows,
        "cut": cut,
        "found": {name: _total(counts, name) for name in _columns(search.config)},
        "removed_bytes": sum(found["removed_bytes"] for found in counts),
        "changed": sum(found["changed"] for found in counts),
    }


def _total(counts: list[Mapping[str, Any]], name: str) -> dict[str, int]:
    return {key: sum(found[name][key] for found in counts) for key in ("documents", "bytes", "surplus_bytes")}


def _listed(parts: tuple[Part, ...]) -> list[str]:
    return [part.sha256 for part in parts]


def _manifest(folder: Path, kind: str, stage: dict[str, Any], parts: list[dict[str, Any]]) -> Manifest:
    listed = tuple(part_from_json(part) for part in parts)
    identity = fingerprint([part.sha256 for part in listed])
    manifest = Manifest(kind=kind, identity=identity, stage=stage, parts=listed)
    write_manifest(folder, manifest)
    return manifest


def _columns(config: SpansConfig) -> tuple[str, ...]:
    """The names of the attributes that are measured."""
    asked = {"repeated": config.substrings, "repeated_lines": config.lines}
    return tuple(name for name, found in asked.items() if found)


def measure_part(arguments: dict[str, Any]) -> dict[str, Any]:
    """The attributes of one part, and its documents without what can go."""
    search, number = arguments["search"], arguments["number"]
    folder = RunFolder(search.root)
    name = fingerprint({"measured": arguments["result"], "number": number})
    written = find_part(folder.cut, name) if arguments["cut"] else search.documents().parts[number]
    measured = find_part(folder.repeated, name)
    if written is None or measured is None:
        written, measured = _write_part(folder, arguments, name)
    return {"documents": measured.rows, "measured": part_to_json(measured), "cut": part_to_json(written)}


def _write_part(folder: RunFolder, arguments: dict[str, Any], name: str) -> tuple[Part, Part]:
    """Both files of a part in one pass over its texts; the narrow one is held in memory until the texts are written."""
    search, cut = arguments["search"], arguments["cut"]
    part, columns = search.documents().parts[arguments["number"]], _columns(search.config)
    stages = [cut_stage(columns)] if cut else []
    rows: list[pa.RecordBatch] = []
    texts = _texts(search, arguments["number"], arguments["sizes"], stages, rows)
    written = _commit_cut(folder, part, name, texts) if cut else part
    deque(texts, maxlen=0)  # with a cut nothing is left, but where the texts were there and their counts were not
    table = pa.Table.from_batches(rows, schema=_attributes_schema(columns, rewrites_schema(stages)))
    for column in _carried(folder, part) if cut else []:
        table = table.append_column(*column)
    facts = _facts(table, columns, cut)
    return written, commit_table(folder.repeated, name, table, schema=table.schema, of=written.sha256, facts=facts)


def _texts(
    search: _Search, number: int, sizes: Mapping[str, int], stages: list[Stage], rows: list[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """The documents of a part as `stages` leave them; their attributes are added to `rows`."""
    rewrite, columns = chain(stages), _columns(search.config)
    names = tuple(stage.name for stage in stages)
    for batch, found in _measured_batches(search, number, sizes):
        documents, counts = rewrite(_beside(batch, found, columns))
        rows.append(_beside(found, counts, names))
        yield documents.select(DOCUMENTS.names)


def _commit_cut(folder: RunFolder, part: Part, name: str, texts: Iterator[pa.RecordBatch]) -> Part:
    """The part `name` of the cut documents; `from` stays the file of the ingested ones."""
    facts: dict[str, Any] = {**part.facts, "from": part.facts.get("from", part.file), "text_bytes": 0}

    def counted() -> Iterator[pa.RecordBatch]:
        for batch in texts:
            facts["text_bytes"] += pc.sum(pc.binary_length(batch.column("text"))).as_py() or 0
            yield batch

    return commit_table(folder.cut, name, counted(), schema=DOCUMENTS, facts=facts)


def _beside(batch: pa.RecordBatch, other: pa.RecordBatch, names: tuple[str, ...]) -> pa.RecordBatch:
    for name in names:
        batch = batch.append_column(other.schema.field(name), other.column(name))
    return batch


def _attributes_schema(columns: tuple[str, ...], did: pa.Schema) -> pa.Schema:
    measured = [pa.field(name, REPEATED, nullable=False) for name in columns]
    return pa.schema([pa.field("doc_id", IDENTIFIER, nullable=False), *measured, *list(did)[1:]])


def _carried(folder: RunFolder, part: Part) -> list[tuple[pa.Field, pa.ChunkedArray]]:
    """What earlier rewrites did to the part: it must stand beside the cut texts, not beside those before."""
    if find_manifest(folder.rewrites) is None:
        return []
    rewrites = open_dataset(folder.rewrites)
    theirs = {ours.identity: found for ours, found in align(open_dataset(folder.uncut), rewrites)}[part.identity]
    table = rewrites.read(theirs)
    return [(table.schema.field(name), table[name]) for name in table.schema.names[1:]]


def _facts(table: pa.Table, columns: tuple[str, ...], cut: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {name: _counts(table[name].combine_chunks()) for name in columns}
    did = table["remove_repeated_spans"].combine_chunks() if cut and len(table) else None
    facts["removed_bytes"] = pc.sum(did.field("removed_bytes")).as_py() if did is not None else 0
    facts["changed"] = pc.sum(did.field("is_changed")).as_py() if did is not None else 0
    return facts


def _counts(found: pa.StructArray) -> dict[str, int]:
    covered = found.field("bytes")
    return {
        "documents": pc.sum(pc.greater(covered, 0)).as_py() or 0,
        "bytes": pc.sum(covered).as_py() or 0,
        "surplus_bytes": pc.sum(found.field("surplus_bytes")).as_py() or 0,
    }


def _measured_batches(
    search: _Search, number: int, sizes: Mapping[str, int]
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """(documents, their attributes) of a part."""
    measures = [
        *([_substring_measure(search, number, sizes)] if search.config.substrings else []),
        *([_line_measure(search, number, sizes)] if search.config.lines else []),
    ]
    schema = _attributes_schema(_columns(search.config), pa.schema([pa.field("doc_id", IDENTIFIER)]))
    for first_row, batch in _batches(search, number, *DOCUMENTS.names):
        found = [measure(first_row, batch) for measure in measures]
        yield batch, pa.RecordBatch.from_arrays([batch.column("doc_id"), *found], schema=schema)


Measure = Callable[[int, pa.RecordBatch], pa.StructArray]


def _substring_measure(search: _Search, number: int, sizes: Mapping[str, int]) -> Measure:
    config = search.config.substrings
    assert config is not None
    files = search.files("array" if sizes["whole"] else "repeats", sizes["groups"])
    runs = read_range(files, number, RUNS).sort_by([("place", "ascending"), ("first", "ascending")])
    encode = unit_function(config)

    def measure(first_row: int, batch: pa.RecordBatch) -> pa.StructArray:
        texts = batch.column("text")
        return measure_spans(texts, encode(texts), runs, first_row, config.keep)

    return measure


def _line_measure(search: _Search, number: int, sizes: Mapping[str, int]) -> Measure:
    config = search.config.lines
    assert config is not None
    repeated = read_range(search.files("counted", sizes["line_ranges"]), number, REPEATED_LINES)
    repeated = repeated.sort_by([("place", "ascending")])

    def measure(first_row: int, batch: pa.RecordBatch) -> pa.StructArray:
        texts, hosts = batch.column("text"), read_hosts(batch.column("url"))
        runs = line_runs(texts, hosts, number, first_row, repeated, config)
        return measure_spans(texts, Units(*string_buffers(texts), 1), runs, first_row, config.keep)

    return measure
