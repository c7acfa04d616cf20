"""The way back from a token of a shard: to the selection's row, to the token store, to the document that it was in.

Plain reading of files, for whoever holds a mixture: a mixture's `.bin` leads through its link to the store, and the
store stands in the run that has the documents. Only single rows are read on the way, whatever the size of the run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from storage.errors import DatasetError
from storage.manifests import MANIFEST, Dataset, find_manifest, open_dataset
from storage.megatron import IndexedReader, bin_path
from storage.parts import Part, read_row

SELECTION = "selection.parquet"
PIECES = ".pieces.parquet"
DOCUMENTS = ("cut", "rewritten", "documents")
"""Folders of a run that may hold the documents as they were tokenized, the last made first."""
LEVELS = 4
"""How many folders above a `.bin` its store is looked for."""

Row = dict[str, Any]


def pieces_path(prefix: Path) -> Path:
    """What says where the documents of a packed shard stand."""
    return prefix.with_name(prefix.name + PIECES)


def find_piece(prefix: Path, sequence: int, offset: int) -> dict[str, int] | None:
    """The piece that stands at a token of a packed shard, or None in padding."""
    within = [("sequence", "=", sequence), ("offset", "<=", offset)]
    rows = pq.read_table(pieces_path(prefix), filters=within).to_pylist()
    last: dict[str, int] | None = rows[-1] if rows else None
    return last if last and offset < last["offset"] + last["tokens"] else None


def find_selected(home: Path, name: str, reader: IndexedReader, sequence: int, token: int) -> Row | None:
    """The selection's row of the document at a token of the shard `name` of the mixture `home`; None in padding.

    A repeat stands behind all first passes and points to the same bytes.
    """
    start, count = rows_of_shard(home, name)
    first = int(np.argmax(reader.pointers == reader.pointers[sequence]))
    if pieces_path(reader.prefix).exists():
        piece = find_piece(reader.prefix, first, token)
        return read_row(home / SELECTION, start + piece["document"]) if piece else None
    if first >= count:
        raise DatasetError(
            f"sequence {sequence} points to a document that the selection does not list",
            at=str(home / SELECTION),
            hint="the index and the selection belong to different mixtures: write it again",
        )
    return read_row(home / SELECTION, start + first)


def rows_of_shard(home: Path, name: str) -> tuple[int, int]:
    """(first, number) of the selection's rows of this shard; a row group is of one shard."""
    start = first = count = 0
    with pq.ParquetFile(home / SELECTION) as file:
        column = file.schema_arrow.get_field_index("prefix")
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group)
            if rows.column(column).statistics.min == name:
                first, count = (first if count else start), count + rows.num_rows
            start += rows.num_rows
    return first, count


def pair_of(part: Part) -> tuple[str, int]:
    """(name, first sequence) of the pair in a token store that holds a part."""
    place = part.facts.get("place")
    return (place["bin"], place["first_sequence"]) if place else (part.identity, 0)


def find_stored(store: Dataset, bin: str, sequence: int) -> Row:
    """The store's map row of a sequence of the pair `bin`. Raises DatasetError when it is of no part any more."""
    for part in store.parts:
        name, first = pair_of(part)
        if name == bin and first <= sequence < first + part.rows:
            return store.row(part, sequence - first)
    raise DatasetError(
        f"the token store does not name the pair {bin} any more",
        at=str(store.folder),
        hint="the run has changed since this shard was written: `gristmill run` makes its mixture again",
    )


def trace_token(home: Path, name: str, reader: IndexedReader, sequence: int, token: int) -> Row:
    """What can be found of the document at a token: `doc_id`, `source`, and in a run `title`, `url` and `record`.

    Empty where no map leads back (an adopted shard, padding); never an error for what has been moved or removed.
    """
    if not (home / SELECTION).exists():
        return {}
    try:
        selected = find_selected(home, name, reader, sequence, token)
        if selected is None:
            return {}
        known = {"doc_id": selected["doc_id"].hex(), "source": selected["source"]}
        return {**known, **(_find_document(reader, selected) or {})}
    except (DatasetError, OSError, IndexError, KeyError):
        return {}


def _find_document(reader: IndexedReader, selected: Row) -> Row | None:
    store = _store_behind(reader.prefix)
    if store is None or "bin_sequence" not in selected:
        return None
    stored = find_stored(store, selected["bin"], selected["bin_sequence"])
    for folder in (store.folder.parent.parent / name for name in DOCUMENTS):
        if not (folder / MANIFEST).exists():
            continue
        documents = open_dataset(folder)
        for part in documents.parts:
            if part.identity == stored["part"]:
                row = documents.row(part, stored["row"], ["doc_id", "title", "url", "record"])
                return {k: v for k, v in row.items() if k != "doc_id"} if row["doc_id"] == stored["doc_id"] else None
    return None


def _store_behind(prefix: Path) -> Dataset | None:
    """The token store into which the shard's `.bin` is a link."""
    place = bin_path(prefix)
    if not place.is_symlink():
        return None
    for folder in place.resolve().parents[:LEVELS]:
        manifest = find_manifest(folder)
        if manifest is not None and manifest.kind == "tokens":
            return Dataset(folder, manifest)
    return None
