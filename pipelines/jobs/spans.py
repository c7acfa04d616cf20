"""The repeated-spans job: what of every document stands elsewhere too, and where it is asked for, the texts without it.

`pipelines/dedup/spans/search.py` finds it, with its tasks on the cluster; here each part is measured and cut, in one
pass over its texts, and both datasets are published. Outputs are named by what went into them: a killed job goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from classifiers.rewriting import chain, rewrites_schema
from pipelines.dedup.columns import string_buffers
from pipelines.dedup.search.run import Run
from pipelines.dedup.shuffle import read_range
from pipelines.dedup.spans.cut import cut_stage
from pipelines.dedup.spans.lines import REPEATED_LINES, line_runs, read_hosts
from pipelines.dedup.spans.measure import REPEATED, measure_spans
from pipelines.dedup.spans.parameters import SpansConfig
from pipelines.dedup.spans.repeats import RUNS
from pipelines.dedup.spans.search import VERSION, Search, find_repeated, open_search, part_batches
from pipelines.dedup.spans.units import Units, unit_function
from pipelines.jobs.deduplicate import run_on_cluster
from pipelines.jobs.job import Job
from pipelines.run_folder import RunFolder
from storage.identity import fingerprint
from storage.manifests import MANIFEST, Manifest, align, find_manifest, open_dataset, write_manifest
from storage.parts import Part, commit_table, find_part, part_from_json, part_to_json
from storage.schema import DOCUMENTS, IDENTIFIER
from storage.stage import Stage


def run(job: Job) -> dict[str, Any]:
    """Publish `attributes/repeated` and, where they are to be cut, the documents `cut`."""
    return find_spans(job.run_folder, job.spec["asked"], cut=job.spec["cut"], run=run_on_cluster(job, "spans"))


def find_spans(root: Path, asked: Mapping[str, str | None], *, cut: bool, run: Run) -> dict[str, Any]:
    """The search and what comes of it, each task by `run`."""
    search = open_search(root, asked)
    return _publish(run, search, find_repeated(search, run), cut)


def _publish(run: Run, search: Search, sizes: Mapping[str, int], cut: bool) -> dict[str, Any]:
    """Measure and, where asked, cut every part; the manifests of both."""
    folder = RunFolder(search.root)
    rewrites = find_manifest(folder.rewrites) if cut else None
    basis = {"of": _listed(search.documents().parts), "rewrites": rewrites.identity if rewrites else None}
    result = fingerprint({"spans": search.config.identity(), "cut": cut, **basis})
    shared = {"search": search, "sizes": dict(sizes), "cut": cut, "result": result}
    made = run(measure_part, [{**shared, "number": number} for number in range(sizes["parts"])])
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
    search: Search, number: int, sizes: Mapping[str, int], stages: list[Stage], rows: list[pa.RecordBatch]
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
    search: Search, number: int, sizes: Mapping[str, int]
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """(documents, their attributes) of a part."""
    measures = [
        *([_substring_measure(search, number, sizes)] if search.config.substrings else []),
        *([_line_measure(search, number, sizes)] if search.config.lines else []),
    ]
    schema = _attributes_schema(_columns(search.config), pa.schema([pa.field("doc_id", IDENTIFIER)]))
    for first_row, batch in part_batches(search, number, *DOCUMENTS.names):
        found = [measure(first_row, batch) for measure in measures]
        yield batch, pa.RecordBatch.from_arrays([batch.column("doc_id"), *found], schema=schema)


Measure = Callable[[int, pa.RecordBatch], pa.StructArray]


def _substring_measure(search: Search, number: int, sizes: Mapping[str, int]) -> Measure:
    config = search.substrings
    files = search.files("array" if sizes["whole"] else "repeats", sizes["groups"])
    runs = read_range(files, number, RUNS).sort_by([("place", "ascending"), ("first", "ascending")])
    encode = unit_function(config)

    def measure(first_row: int, batch: pa.RecordBatch) -> pa.StructArray:
        texts = batch.column("text")
        return measure_spans(texts, encode(texts), runs, first_row, config.keep)

    return measure


def _line_measure(search: Search, number: int, sizes: Mapping[str, int]) -> Measure:
    config = search.lines
    repeated = read_range(search.files("counted", sizes["line_ranges"]), number, REPEATED_LINES)
    repeated = repeated.sort_by([("place", "ascending")])

    def measure(first_row: int, batch: pa.RecordBatch) -> pa.StructArray:
        texts, hosts = batch.column("text"), read_hosts(batch.column("url"))
        runs = line_runs(texts, hosts, number, first_row, repeated, config)
        return measure_spans(texts, Units(*string_buffers(texts), 1), runs, first_row, config.keep)

    return measure
