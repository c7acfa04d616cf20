"""The catalogue: the narrow columns of documents and measurements side by side, which is all that queries read.

Row for row the documents, in their order, without the text: ids, origin, length in bytes, and one struct a stage (lists
and bytes inside a struct stay behind). A measurement of other bytes is refused, never aligned. Writing it reads the
text once, for its length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mixtures.licences import CLASS, METADATA_ONLY, classify
from mixtures.names import column_of
from storage.errors import DatasetError
from storage.identity import fingerprint
from storage.manifests import Dataset, Manifest, align, write_manifest
from storage.parts import Part, commit_table
from storage.schema import DOCUMENTS, IDENTIFIER, OF_PAGES

VERSION = 3
SIZE = "text_bytes"


def _without_zone(kind: pa.DataType) -> pa.DataType:
    """Times are UTC without saying so: DuckDB reads time zones through an extension that is not always there."""
    return pa.timestamp(kind.unit) if pa.types.is_timestamp(kind) else kind


DOCUMENT_FIELDS = [
    pa.field("doc_id", IDENTIFIER, nullable=False),
    pa.field("content_hash", IDENTIFIER, nullable=False),
    pa.field("source", pa.string(), nullable=False),
    pa.field("url", pa.string()),
    pa.field("title", pa.string()),
    pa.field("licence", pa.string()),
    pa.field("collected_at", _without_zone(DOCUMENTS.field("collected_at").type)),
    pa.field(SIZE, pa.int64(), nullable=False),
    *(pa.field(name, _without_zone(DOCUMENTS.field(name).type)) for name in (*OF_PAGES, METADATA_ONLY)),
    pa.field(CLASS, pa.string()),
]
_COPIED = [field for field in DOCUMENT_FIELDS if field.name not in (SIZE, CLASS)]
DOCUMENT_COLUMNS = [*(field.name for field in _COPIED), "text"]


def catalogue_part(documents: Dataset, part: Part, attributes: Sequence[Dataset]) -> pa.Table:
    """The catalogue's rows of one documents part, in memory (a gate asks before there is a catalogue)."""
    sides = _sides(documents, part, attributes)
    return pa.Table.from_batches(_zip(documents, part, sides), schema=_schema(sides))


def write_catalogue_part(folder: Path, documents: Dataset, part: Part, attributes: Sequence[Dataset]) -> Part:
    """Commit the catalogue's part for one documents part; `of` is the documents part's checksum.

    Raises DatasetError when an attribute dataset lacks the part, measured other bytes, or repeats a stage.
    """
    sides = _sides(documents, part, attributes)
    measured = [[dataset.manifest.kind, side.sha256] for dataset, side in sides]
    identity = fingerprint({"catalogue": VERSION, "documents": part.sha256, "attributes": measured})
    return commit_table(
        folder,
        identity,
        _zip(documents, part, sides),
        schema=_schema(sides),
        of=part.sha256,
        facts={"part": part.identity},
        narrow=True,
    )


def publish_catalogue(folder: Path, attributes: Sequence[Dataset], parts: Sequence[Part]) -> Manifest:
    """Write the manifest; its facts bind each stage's name to the dataset that measured it, and to its stage.

    A stage of several parts (`scores`, a struct a scorer) is described part by part under `scores.NAME` too.
    """
    bindings = {
        stage: dataset.manifest.identity
        for dataset in attributes
        if dataset.parts
        for stage in _stages(dataset.schema(dataset.parts[0]))
    }
    stages = {
        stage: fingerprint(described)
        for dataset in attributes
        if dataset.parts
        for stage, described in _described(dataset)
    }
    manifest = Manifest(
        kind="catalogue",
        identity=fingerprint({"catalogue": VERSION, "parts": [part.identity for part in parts]}),
        stage={"name": "catalogue", "version": VERSION},
        parts=tuple(parts),
        facts={"bindings": bindings, "stages": stages},
    )
    write_manifest(folder, manifest)
    return manifest


def _sides(documents: Dataset, part: Part, attributes: Sequence[Dataset]) -> list[tuple[Dataset, Part]]:
    sides = []
    for dataset in attributes:
        of_part = {ours.identity: theirs for ours, theirs in align(documents, dataset)}
        sides.append((dataset, of_part[part.identity]))
    stages = [stage for dataset, side in sides for stage in _stages(dataset.schema(side))]
    if twice := sorted({stage for stage in stages if stages.count(stage) > 1}):
        raise DatasetError(
            f"the stage {', '.join(twice)} was measured in two datasets",
            at=", ".join(str(dataset.folder) for dataset, _ in sides),
            hint="name only one of them",
        )
    return sides


def _stages(schema: pa.Schema) -> list[str]:
    return [column.name for column in schema if pa.types.is_struct(column.type)]


def _described(dataset: Dataset) -> Iterator[tuple[str, Any]]:
    """The names of a dataset's stages and of their parts, with what made each."""
    schema = dataset.schema(dataset.parts[0])
    for stage in _stages(schema):
        yield stage, dataset.manifest.stage
        for child in schema.field(stage).type:
            if pa.types.is_struct(child.type):
                yield f"{stage}.{child.name}", dataset.manifest.stage.get(child.name, dataset.manifest.stage)


def _schema(sides: Sequence[tuple[Dataset, Part]]) -> pa.Schema:
    fields = list(DOCUMENT_FIELDS)
    for dataset, side in sides:
        schema = dataset.schema(side)
        fields += [pa.field(column_of(stage), _narrow(schema.field(stage).type)) for stage in _stages(schema)]
    return pa.schema(fields)


def _narrow(kind: pa.DataType) -> pa.DataType:
    """A struct type without its lists, maps and bytes."""
    fields = []
    for child in kind:
        if pa.types.is_struct(child.type):
            fields.append(pa.field(child.name, _narrow(child.type)))
        elif not (pa.types.is_nested(child.type) or _is_bytes(child.type)):
            fields.append(pa.field(child.name, child.type))
    return pa.struct(fields)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _zip(documents: Dataset, part: Part, sides: Sequence[tuple[Dataset, Part]]) -> Iterator[pa.RecordBatch]:
    schema = _schema(sides)
    streams = [dataset.batches(side) for dataset, side in sides]
    for batch in documents.batches(part, DOCUMENT_COLUMNS):
        columns = _document_columns(batch)
        for (dataset, side), stream in zip(sides, streams, strict=True):
            measured = next(stream, None)
            if measured is None or not measured.column("doc_id").equals(batch.column("doc_id")):
                raise DatasetError(
                    f"part {side.identity} does not hold the rows of documents part {part.identity} in their order",
                    at=str(dataset.path(side)),
                    hint="remove the file and the marker beside it, then run the stage again",
                )
            for stage in _stages(measured.schema):
                kind = schema.field(column_of(stage)).type
                columns[column_of(stage)] = _project(measured.column(stage), kind)
        yield pa.record_batch([columns[name] for name in schema.names], schema=schema)


def _document_columns(batch: pa.RecordBatch) -> dict[str, pa.Array]:
    columns = {field.name: batch.column(field.name).cast(field.type) for field in _COPIED}
    size = pc.binary_length(batch.column("text")).cast(pa.int64())
    return {**columns, SIZE: size, CLASS: classify(batch.column("licence"))}


def _project(array: pa.StructArray, kind: pa.StructType) -> pa.StructArray:
    """The struct with the fields of `kind` only; null structs stay null."""
    children = [
        _project(child, field.type) if pa.types.is_struct(field.type) else child
        for field in kind
        for child in [pc.struct_field(array, field.name)]
    ]
    return pa.StructArray.from_arrays(children, fields=list(kind), mask=array.is_null())
