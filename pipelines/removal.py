"""Removals: documents that a run must not hold any more, and parts rewritten without them.

The list stays in the run folder, so a document that is read again from its raw record is removed again. A stripped
part has an identity of its own; what was measured on the other parts stays valid.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.run_folder import RunFolder
from storage.commit import write_atomically
from storage.errors import DatasetError
from storage.identity import fingerprint
from storage.manifests import MANIFEST, Dataset, open_dataset, write_manifest
from storage.parts import Part, commit_table, read_batches
from storage.schema import DOCUMENTS, IDENTIFIER

Integers = npt.NDArray[np.int64]

REMOVALS_FILE = "removed.json"


def read_removals(folder: RunFolder) -> frozenset[bytes]:
    """The doc_ids that the run must not hold."""
    path = folder.root / REMOVALS_FILE
    try:
        return frozenset(bytes.fromhex(digits) for digits in json.loads(path.read_bytes())["doc_ids"])
    except FileNotFoundError:
        return frozenset()
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            "the list of removed documents cannot be read",
            at=str(path),
            hint="restore it: it says what must not come back",
        ) from error


def add_removals(folder: RunFolder, doc_ids: Iterable[bytes]) -> None:
    """Add to the list, durably, before anything is rewritten."""
    together = sorted(value.hex() for value in read_removals(folder) | set(doc_ids))
    values = {"format_version": 1, "doc_ids": together}
    write_atomically(folder.root / REMOVALS_FILE, (json.dumps(values, indent=1) + "\n").encode())


def strip_part(documents: Path, part: Part, removals: frozenset[bytes]) -> Part:
    """The part itself when it holds none of them; else a new part without them, with `removed` among its facts."""
    asked = pa.array(sorted(removals), IDENTIFIER)
    present: set[bytes] = set()
    for batch in read_batches(documents / part.file, ["doc_id"]):
        present |= set(batch.column("doc_id").filter(pc.is_in(batch.column("doc_id"), value_set=asked)).to_pylist())
    if not present:
        return part
    identity = fingerprint({"part": part.identity, "without": sorted(present)})
    rows = (
        batch.filter(pc.invert(pc.is_in(batch.column("doc_id"), value_set=asked)))
        for batch in read_batches(documents / part.file)
    )
    facts = {**part.facts, "removed": len(present)}
    return commit_table(documents, identity, rows, schema=DOCUMENTS, facts=facts)


def strip_rows(documents: Path, part: Part, rows: Integers) -> Part:
    """A new part without these rows (int64, ascending), with `repeated` among its facts; the part itself for none."""
    if not len(rows):
        return part
    identity = fingerprint({"part": part.identity, "without_rows": rows.tolist()})
    kept = _without_rows(read_batches(documents / part.file), rows)
    facts = {**part.facts, "repeated": len(rows)}
    return commit_table(documents, identity, kept, schema=DOCUMENTS, facts=facts)


def _without_rows(batches: Iterable[pa.RecordBatch], rows: Integers) -> Iterator[pa.RecordBatch]:
    start = 0
    for batch in batches:
        kept = np.ones(batch.num_rows, np.bool_)
        kept[rows[(rows >= start) & (rows < start + batch.num_rows)] - start] = False
        yield batch.filter(pa.array(kept))
        start += batch.num_rows


def strip_written(folder: RunFolder, removals: frozenset[bytes]) -> int:
    """Take what a language model wrote of these documents out of every dataset of synthesis; returns the texts."""
    removed = 0
    for place in sorted(path.parent for path in (folder.root / "synthesis").rglob(MANIFEST)):
        dataset = open_dataset(place)
        parts = tuple(_strip_children(dataset, part, removals) for part in dataset.parts)
        if parts == dataset.parts:
            continue
        rows = sum(part.rows for part in parts)
        removed += dataset.manifest.rows - rows if dataset.manifest.kind == "documents" else 0
        facts = {**dataset.manifest.facts, **({"documents": rows} if "documents" in dataset.manifest.facts else {})}
        identity = fingerprint({"of": dataset.manifest.identity, "parts": [part.sha256 for part in parts]})
        write_manifest(place, replace(dataset.manifest, identity=identity, parts=parts, facts=facts))
    return removed


def _strip_children(dataset: Dataset, part: Part, removals: frozenset[bytes]) -> Part:
    """The part without rows of which a removed document is a parent (of errors: the document)."""
    schema = dataset.schema(part)
    column = "parents" if "parents" in schema.names else "doc_id"
    gone: set[bytes] = set()
    for batch in dataset.batches(part, [column]):
        gone |= removals & set(_flat(batch.column(0)).to_pylist())
    if not gone:
        return part
    identity = fingerprint({"part": part.identity, "without_children": sorted(gone)})
    kept = (_without_children(batch, column, gone) for batch in dataset.batches(part))
    return commit_table(dataset.folder, identity, kept, schema=schema, facts=part.facts)


def _without_children(batch: pa.RecordBatch, column: str, gone: set[bytes]) -> pa.RecordBatch:
    values = [value if isinstance(value, list) else [value] for value in batch.column(column).to_pylist()]
    return batch.filter(pa.array([gone.isdisjoint(parents) for parents in values], pa.bool_()))


def _flat(column: pa.Array) -> pa.Array:
    return column.flatten() if pa.types.is_list(column.type) else column
