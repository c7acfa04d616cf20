"""Hosts: how many documents and bytes of text a run has from each host, and a catalogue that tells it of each document.

Invariant: the counts are of the whole catalogue and of nothing else, in the order of the hosts, whatever the parts and
their order. They lie beside the catalogue's parts and are joined when these are read, so that new documents change the
counts of all and the parts of none. Trade-off: DuckDB counts a million documents a second within 1 GB and spills
beyond; a part whose hosts are asked for reads the whole table, two million hosts a second, and holds its own only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from storage.commit import TEMPORARY_PREFIX
from storage.identity import fingerprint
from storage.manifests import Dataset, Manifest, find_manifest, read_manifest, write_manifest
from storage.parts import ROWS_PER_GROUP, Part, commit_table, regroup

VERSION = 1
HOSTS = pa.schema(
    [
        pa.field("host", pa.string(), nullable=False),
        pa.field("documents", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
    ]
)
"""A row a host, in the byte order of their names."""

STAGE = "hosts"
HOST_COUNTS = (pa.field("documents", pa.int64()), pa.field("bytes", pa.int64()))
"""What a document is told of its host; null without one."""

_URL = "url_facts"
_MEMORY = "1GB"
_ROWS_AT_ONCE = 1 << 17
"""Each look-up hashes the part's hosts anew."""


def hosts_folder(catalogue: Path) -> Path:
    return catalogue / "hosts"


def count_hosts(catalogue: Dataset) -> Manifest:
    """Count and publish HOSTS beside the catalogue; what was counted of this catalogue before is not counted again."""
    folder = hosts_folder(catalogue.folder)
    identity = fingerprint({"hosts": VERSION, "catalogue": catalogue.manifest.identity})
    part = commit_table(folder, identity, _count(catalogue, folder), schema=HOSTS)
    stage = {"name": STAGE, "version": VERSION}
    manifest = Manifest(kind=STAGE, identity=identity, stage=stage, parts=(part,))
    write_manifest(folder, manifest)
    return manifest


def _count(catalogue: Dataset, folder: Path) -> Iterator[pa.RecordBatch]:
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=TEMPORARY_PREFIX) as spill:
        config: dict[str, str | bool | int | float | list[str]] = {
            "threads": 1,
            "memory_limit": _MEMORY,
            "temp_directory": spill,
        }
        with duckdb.connect(config=config) as database:
            found = database.sql(
                f"""
                SELECT {_URL}.host AS host, count(*)::BIGINT AS documents, sum(text_bytes)::BIGINT AS bytes
                FROM read_parquet(?) WHERE {_URL}.host IS NOT NULL GROUP BY ALL ORDER BY host
                """,
                params=[catalogue.paths()],
            )
            for batch in found.to_arrow_reader(ROWS_PER_GROUP):
                yield batch.cast(HOSTS)


@dataclass(frozen=True)
class Catalogue(Dataset):
    """A catalogue with the column `hosts`, the counts of each document's host; null without a host."""

    hosts: Dataset

    def schema(self, part: Part, columns: list[str] | None = None) -> pa.Schema:
        stored = super().schema(part).append(pa.field(STAGE, pa.struct(list(HOST_COUNTS))))
        return stored if columns is None else pa.schema([stored.field(name) for name in columns])

    def read(self, part: Part, columns: list[str] | None = None) -> pa.Table:
        """One part as a table; the hosts are looked up where `columns` name them, or none."""
        schema = self.schema(part, columns)
        names = [name for name in schema.names if name != STAGE]
        needed = sorted({*names, _URL}) if STAGE in schema.names else names
        batches = list(self.batches(part, needed))
        table = pa.Table.from_batches(batches, schema=self.schema(part, needed))
        if STAGE in schema.names:
            table = table.append_column(schema.field(STAGE), self._counts(table[_URL]))
        return table.select(schema.names)

    def read_paths(self, part: Part, paths: list[str]) -> pa.Table:
        """Columns of one part, or fields of structs; where the hosts' counts are asked for, whole columns."""
        columns = sorted({path.partition(".")[0] for path in paths})
        return self.read(part, columns) if STAGE in columns else super().read_paths(part, paths)

    def _counts(self, urls: pa.ChunkedArray) -> pa.StructArray:
        wanted = pc.struct_field(urls.combine_chunks(), "host")
        (part,) = self.hosts.parts
        several = regroup(self.hosts.batches(part), HOSTS, _ROWS_AT_ONCE)
        rows = [table.filter(pc.is_in(table["host"], value_set=wanted)) for table in several]
        known = pa.concat_tables([HOSTS.empty_table(), *rows]).combine_chunks()
        places = pc.index_in(wanted, value_set=known["host"].combine_chunks())
        columns = [known[field.name].combine_chunks().take(places) for field in HOST_COUNTS]
        return pa.StructArray.from_arrays(columns, fields=list(HOST_COUNTS), mask=pc.is_null(places))


def open_catalogue(folder: Path) -> Dataset:
    """A run's catalogue, with its hosts where they were counted. Raises DatasetError."""
    manifest, counted = read_manifest(folder), find_manifest(hosts_folder(folder))
    if counted is None:
        return Dataset(folder, manifest)
    return Catalogue(folder, manifest, Dataset(hosts_folder(folder), counted))
