"""Manifests: a dataset is a folder of parts and the `manifest.json` that lists them, written last.

Readers follow manifests, never folder listings; a folder may hold parts of other configurations beside those that the
manifest names, and they are what a later run reuses. Above 10,000 parts the list moves to a Parquet table beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.commit import write_atomically
from storage.errors import DatasetError
from storage.parts import ROWS_PER_GROUP, Part, check_part, part_from_json, read_batches, read_narrow, read_row

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
PARTS_IN_JSON = 10_000
ROWS_AT_ONCE = 1 << 17
"""Of narrow columns; a batch costs about 20 µs."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a dataset is: its kind, the identity of what made it, the stage's description, and its parts in order."""

    kind: str
    identity: str
    stage: Mapping[str, Any]
    parts: tuple[Part, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Publish a dataset; its parts must be committed already."""
    values = asdict(manifest)
    if len(manifest.parts) > PARTS_IN_JSON:
        table_name = f"parts-{manifest.identity}.parquet"
        rows = [{**part, "facts": json.dumps(part["facts"], sort_keys=True)} for part in values["parts"]]
        write_atomically(folder / table_name, lambda file: pq.write_table(pa.Table.from_pylist(rows), file))
        values["parts"] = {"table": table_name}
    write_atomically(folder / MANIFEST, (json.dumps(values, indent=1, sort_keys=True) + "\n").encode())


def find_manifest(folder: Path) -> Manifest | None:
    """The folder's manifest, or None where there is none."""
    return read_manifest(folder) if (folder / MANIFEST).exists() else None


def read_manifest(folder: Path) -> Manifest:
    """Raises DatasetError when there is none, or when it cannot be read or is of another format."""
    path = folder / MANIFEST
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DatasetError("there is no dataset here", at=str(folder), hint="run the stage that writes it") from error
    except ValueError as error:
        raise DatasetError(
            "the manifest is not JSON", at=str(path), hint="remove it and run the stage again"
        ) from error
    version = values.get("format_version")
    if version != FORMAT_VERSION:
        raise DatasetError(
            f"the manifest has format_version {version}; this Gristmill reads {FORMAT_VERSION}",
            at=str(path),
            hint="use the Gristmill version that wrote it, or write the dataset anew",
        )
    values["parts"] = tuple(part_from_json(part) for part in _part_rows(folder, values["parts"]))
    return Manifest(**values)


def _part_rows(folder: Path, parts: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(parts, list):
        yield from parts
        return
    for row in pq.read_table(folder / parts["table"]).to_pylist():
        yield {**row, "facts": json.loads(row["facts"])}


@dataclass(frozen=True)
class Dataset:
    """A folder of parts, read through its manifest."""

    folder: Path
    manifest: Manifest

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.manifest.parts

    def path(self, part: Part) -> Path:
        return self.folder / part.file

    def paths(self) -> list[str]:
        return [str(self.path(part)) for part in self.parts]

    def batches(
        self, part: Part, columns: list[str] | None = None, rows: int = ROWS_PER_GROUP
    ) -> Iterator[pa.RecordBatch]:
        """Stream one part in batches of at most `rows` rows."""
        return read_batches(self.path(part), columns, rows)

    def read(self, part: Part, columns: list[str] | None = None) -> pa.Table:
        """One part as a table (for narrow columns; stream text with `batches`)."""
        batches = list(self.batches(part, columns, ROWS_AT_ONCE))
        schema = batches[0].schema if batches else self.schema(part, columns)
        return pa.Table.from_batches(batches, schema=schema)

    def row(self, part: Part, row: int, columns: list[str] | None = None) -> dict[str, Any]:
        """One row of a part as a dictionary; only the row group that holds it is read. Raises IndexError beyond it."""
        return read_row(self.path(part), row, columns)

    def read_paths(self, part: Part, paths: list[str]) -> pa.Table:
        """Columns of one part, or fields of structs (`language.label`), quickly: strings come as dictionaries."""
        return read_narrow(self.path(part), paths)

    def schema(self, part: Part, columns: list[str] | None = None) -> pa.Schema:
        schema = pq.read_schema(self.path(part))
        return schema if columns is None else pa.schema([schema.field(name) for name in columns])

    def check(self) -> None:
        """Compare every part with its checksum. Raises DatasetError at the first that differs."""
        for part in self.parts:
            check_part(self.folder, part)


def open_dataset(folder: Path) -> Dataset:
    """Raises DatasetError where there is no readable manifest."""
    return Dataset(folder, read_manifest(folder))


def align(documents: Dataset, attributes: Dataset) -> list[tuple[Part, Part]]:
    """Pair every documents part with its attributes part.

    Raises DatasetError when one is missing or was measured on other bytes: a mismatch is refused, never aligned.
    """
    by_checksum = {part.of: part for part in attributes.parts}
    missing = [part for part in documents.parts if part.sha256 not in by_checksum]
    if missing:
        raise DatasetError(
            f"{len(missing)} of {len(documents.parts)} parts have no attributes measured on their present bytes",
            at=str(attributes.folder),
            hint="run the stage again: it measures only those",
        )
    return [(part, by_checksum[part.sha256]) for part in documents.parts]
