"""The kept documents of a run as Parquet files, with what scorers and the policy's ensemble say of each.

Invariant: the files hold exactly the documents that the policy kept, each once, however they are divided.
Trade-off: a division by value (hive's folders, `ensemble_bucket=19/`) holds one part's kept text in memory, 256 MB by
default; without one the text is streamed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

from mixtures.corpus import ensemble_of
from mixtures.ensemble import SCORES, STAGE, Ensemble, evaluate_ensemble, evaluate_expression
from mixtures.hosts import open_catalogue
from pipelines.run_folder import RunFolder
from storage.errors import InputError
from storage.manifests import Dataset, align, open_dataset
from storage.parts import Part, commit_table
from storage.schema import DOCUMENTS, OF_PAGES

EXPORTED = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("title", pa.string()),
        ("source", pa.string()),
        ("url", pa.string()),
        ("collected_at", pa.timestamp("us", tz="UTC")),
        ("licence", pa.string()),
        *(DOCUMENTS.field(name) for name in OF_PAGES),
    ]
)
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
"""Hive's name for null."""
MAX_FOLDERS = 1000


def export_documents(folder: RunFolder, policy: str, target: Path, partition: str | None = None) -> Counter[str]:
    """One Parquet file a documents part, or one a part and value of `partition`; returns documents by source.

    Raises SqlError for a partition that is no name or expression over the catalogue.
    """
    documents, catalogue = open_dataset(folder.documents), open_catalogue(folder.catalogue)
    verdicts = open_dataset(folder.decisions(policy) / "verdicts")
    measured = {part.of: part for part in catalogue.parts}
    counts: Counter[str] = Counter()
    for number, (ours, theirs) in enumerate(align(documents, verdicts)):
        kept = pc.equal(verdicts.read(theirs, ["verdict"])["verdict"], "kept").combine_chunks()
        table = catalogue.read(measured[ours.sha256])
        told = _told(table, ensemble_of(verdicts))
        rows = _kept_rows(documents, ours, kept, told, counts)
        name, schema = f"part-{number:05d}", pa.schema([*EXPORTED, *told.schema])
        if partition is None:
            _write(target, name, rows, schema)
            continue
        values = evaluate_expression(table, partition, ensemble_of(verdicts), at="--partition-by").filter(kept)
        _write_divided(target, name, pa.Table.from_batches(rows, schema), values, partition)
    return counts


def _told(table: pa.Table, ensemble: Ensemble | None) -> pa.Table:
    """The columns `scores` and `ensemble` of a catalogue part; none where no scorer ran."""
    told = table.select([SCORES] if SCORES in table.column_names else [])
    together = evaluate_ensemble(table, ensemble)
    if not together.num_columns:
        return told
    struct = pa.StructArray.from_arrays(
        [column.combine_chunks() for column in together.columns], fields=list(together.schema)
    )
    return told.append_column(STAGE, struct)


def _kept_rows(
    documents: Dataset, part: Part, kept: pa.Array, told: pa.Table, counts: Counter[str]
) -> Iterator[pa.RecordBatch]:
    start = 0
    for batch in documents.batches(part):
        mask = kept.slice(start, batch.num_rows)
        rows, scored = batch.filter(mask), told.slice(start, batch.num_rows).combine_chunks()
        start += batch.num_rows
        counts.update(rows.column("source").to_pylist())
        columns = {name: rows.column(name) for name in EXPORTED.names if name != "id"}
        columns["id"] = pa.array([value.hex() for value in rows.column("doc_id").to_pylist()], pa.string())
        columns |= {name: _whole(scored[name]).filter(mask) for name in told.column_names}
        yield pa.record_batch({name: columns[name] for name in [*EXPORTED.names, *told.column_names]})


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _write_divided(target: Path, name: str, rows: pa.Table, values: pa.ChunkedArray, partition: str) -> None:
    """A file for every value, in a folder that says it. Raises InputError for too many values."""
    texts = values.cast(pa.string()).fill_null(NO_VALUE)
    found = sorted(texts.unique().to_pylist())
    if len(found) > MAX_FOLDERS:
        raise InputError(
            f"`--partition-by {partition}` would make {len(found):,} folders; {MAX_FOLDERS:,} are allowed",
            hint="divide by something with fewer values, such as `ensemble.bucket` or `language.label`",
        )
    key = partition.replace(".", "_") if partition.replace(".", "").replace("_", "").isalnum() else "partition"
    for value in found:
        _write(target / f"{key}={quote(value, safe='')}", name, rows.filter(pc.equal(texts, value)), rows.schema)


def _write(target: Path, name: str, rows: pa.Table | Iterable[pa.RecordBatch], schema: pa.Schema) -> None:
    commit_table(target, name, rows, schema=schema)
    (target / f"{name}.json").unlink()
