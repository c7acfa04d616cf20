"""Where labelled texts come from: a run's catalogue with verdicts and annotations, or JSONL and Parquet files.

Invariant: `tables` and `texts` walk the same rows in the same numbering, so a row that was chosen from the narrow
columns is the row whose text is read. Texts of files are hashed as a run hashes them, so copies are known across both.
Trade-off: files are parsed twice (180 MB/s of JSON a core), and only what was chosen is ever held.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from mixtures.conditions import DECISION_NAMES, with_decisions
from mixtures.hosts import open_catalogue
from mixtures.names import Names, names_of
from storage.errors import DatasetError, InputError
from storage.identity import content_hash
from storage.manifests import open_dataset
from storage.parts import read_batches
from storage.schema import IDENTIFIER

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
BLOCK_BYTES = 1 << 25
"""Of JSON in memory at a time; no line may be longer."""
ANNOTATION = "annotation"
RATED = ("score", "argmax", "said", "mass")
HASH, GROUP = "_hash", "_group"
Rows = npt.NDArray[np.int64]


class Origin(Protocol):
    """Texts that SQL can choose from; a part is a number of its own choosing."""

    def tables(self) -> Iterator[tuple[int, pa.Table]]:
        """Parts by number: the narrow columns, HASH (the content hash) and GROUP (that of near-duplicates)."""
        ...

    def names(self, schema: pa.Schema) -> Names:
        """What SQL may call the columns."""
        ...

    def texts(self, rows: Mapping[int, Rows]) -> Iterator[tuple[int, pa.Array]]:
        """The texts of these rows, ascending in each part, part by part in the order of `tables`."""
        ...


@dataclass(frozen=True, kw_only=True)
class RunOrigin:
    """A run's documents. `annotations` is a folder of labels, None for documents with or without one."""

    documents: Path
    catalogue: Path
    decisions: Path
    annotations: Path | None = None
    kept_only: bool = True

    def tables(self) -> Iterator[tuple[int, pa.Table]]:
        catalogue, verdicts = open_catalogue(self.catalogue), open_dataset(self.decisions / "verdicts")
        by_documents = {part.of: part for part in verdicts.parts}
        ratings = _ratings(self.annotations) if self.annotations else None
        for number, part in enumerate(catalogue.parts):
            if part.of not in by_documents:
                raise DatasetError(
                    "the catalogue is newer than the decisions", at=str(self.decisions), hint="run again"
                )
            judged = verdicts.read(by_documents[part.of])
            table = with_decisions(catalogue.read(part), judged)
            table = table.append_column(HASH, table["content_hash"]).append_column(GROUP, judged["cluster_id"])
            table = table.append_column("_row", pa.array(np.arange(table.num_rows)))
            yield number, self._offered(table if ratings is None else _with_ratings(table, ratings))

    def names(self, schema: pa.Schema) -> Names:
        return names_of(schema, DECISION_NAMES)

    def texts(self, rows: Mapping[int, Rows]) -> Iterator[tuple[int, pa.Array]]:
        documents = open_dataset(self.documents)
        by_checksum = {part.sha256: part for part in documents.parts}
        for number, part in enumerate(open_catalogue(self.catalogue).parts):
            if number not in rows:
                continue
            if (source := by_checksum.get(part.of or "")) is None:
                raise DatasetError(
                    "the documents are newer than the catalogue", at=str(self.documents), hint="run again"
                )
            yield number, _taken((batch["text"] for batch in documents.batches(source, ["text"])), rows[number])

    def _offered(self, table: pa.Table) -> pa.Table:
        return table.filter(pc.equal(table["verdict"], "kept")) if self.kept_only else table


@dataclass(frozen=True, kw_only=True)
class FileOrigin:
    """JSONL and Parquet files, each one part; `text` is the column of the text."""

    files: tuple[Path, ...]
    text: str = "text"

    def tables(self) -> Iterator[tuple[int, pa.Table]]:
        for number, file in enumerate(self.files):
            start = 0
            for table in self._read(file):
                hashes = pa.array([content_hash(text.encode()) for text in table[self.text].to_pylist()], IDENTIFIER)
                rows = pa.array(np.arange(start, start + table.num_rows))
                start += table.num_rows
                table = table.append_column(HASH, hashes).append_column(GROUP, hashes)
                yield number, table.append_column("_row", rows)

    def names(self, schema: pa.Schema) -> Names:
        ours = (HASH, GROUP, "_row")
        plain = tuple(column.name for column in schema if not pa.types.is_struct(column.type))
        return names_of(schema, tuple(name for name in plain if name not in ours))

    def texts(self, rows: Mapping[int, Rows]) -> Iterator[tuple[int, pa.Array]]:
        for number, file in enumerate(self.files):
            if number in rows:
                columns = (table[self.text].combine_chunks() for table in self._read(file))
                yield number, _taken(columns, rows[number])

    def _read(self, file: Path) -> Iterator[pa.Table]:
        """The file's rows, those without a text left out of neither numbering: their text is empty."""
        with _readable(file):
            for table in _parquet(file) if file.suffix == ".parquet" else _json(file):
                if self.text not in table.column_names:
                    held = ", ".join(f"`{name}`" for name in table.column_names[:12])
                    raise InputError(f"there is no column `{self.text}`; there are {held}", at=str(file), hint=_HINT)
                place = table.column_names.index(self.text)
                yield table.set_column(place, self.text, pc.fill_null(table[self.text].cast(pa.string()), ""))


_HINT = "name the column of the text with `text:`, in files of one JSON object a line, or Parquet"


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        what = str(error).partition("\n")[0][:300]
        raise InputError(f"the file cannot be read: {what}", at=str(file), hint=_HINT) from error


def _json(file: Path) -> Iterator[pa.Table]:
    """Tables of one schema, that of the file's first 32 MB."""
    options = pj.ReadOptions(use_threads=False, block_size=BLOCK_BYTES)
    with pa.input_stream(str(file), compression=COMPRESSIONS.get(file.suffix)) as stream:
        with pj.open_json(stream, read_options=options) as reader:
            yield from (pa.Table.from_batches([batch]) for batch in reader)


def _parquet(file: Path) -> Iterator[pa.Table]:
    yield from (pa.Table.from_batches([batch]) for batch in read_batches(file))


def _taken(columns: Iterator[pa.Array], rows: Rows) -> pa.Array:
    """Those of the rows, ascending, of a column that comes in pieces."""
    start, found = 0, []
    for column in columns:
        first, last = np.searchsorted(rows, (start, start + len(column)))
        found.append(column.take(pa.array(rows[first:last] - start)))
        start += len(column)
    return pa.concat_arrays([pa.array([], pa.large_string()), *(piece.cast(pa.large_string()) for piece in found)])


def _ratings(folder: Path) -> pa.Table:
    dataset = open_dataset(folder)
    columns = ["doc_id", "content_hash", *RATED]
    return pa.concat_tables([dataset.read(part, columns) for part in dataset.parts]).combine_chunks()


def _with_ratings(table: pa.Table, ratings: pa.Table) -> pa.Table:
    """The rows that were rated with their present text, with the struct ANNOTATION."""
    place = pc.index_in(table["doc_id"].combine_chunks(), value_set=ratings["doc_id"].combine_chunks())
    table, rated = table.filter(place.is_valid()), ratings.take(place.drop_null())
    same = pc.equal(table["content_hash"].combine_chunks(), rated["content_hash"].combine_chunks())
    table, rated = table.filter(same), rated.filter(same)
    columns = [rated[name].combine_chunks() for name in RATED]
    return table.append_column(ANNOTATION, pa.StructArray.from_arrays(columns, names=list(RATED)))
