"""Where a search reads texts: all of a part once to sign it, and those rows again that are to be verified."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.dedup.signatures import READS
from storage.errors import DatasetError
from storage.parts import read_batches

Integers = npt.NDArray[np.int64]


class Texts(Protocol):
    """Documents by part number, each row with `doc_id` and `text`; small and picklable."""

    def batches(self, part: int) -> Iterator[pa.RecordBatch]:
        """All rows of a part."""
        ...

    def urls(self, part: int) -> pa.Table:
        """All rows of a part, with `doc_id` and `url`."""
        ...

    def vectors(self, part: int) -> pa.Table:
        """All rows of a part, with `doc_id` and `vector` (halffloat[width], null where there is none)."""
        ...

    def take(self, part: int, rows: Integers) -> pa.Table:
        """Some rows of a part, which ascend."""
        ...


@dataclass(frozen=True)
class PartTexts:
    """Parquet parts in a folder; `listing` is a JSON list of their file names, in the order of their numbers.

    `embedded`: the same of the embeddings beside them, where a search compares those.
    """

    folder: Path
    listing: Path
    embedded: tuple[Path, Path] | None = None

    def batches(self, part: int) -> Iterator[pa.RecordBatch]:
        return read_batches(self._path(part), list(READS))

    def urls(self, part: int) -> pa.Table:
        return _read(self._path(part), ["doc_id", "url"])

    def vectors(self, part: int) -> pa.Table:
        assert self.embedded is not None, "not asked for"
        folder, listing = self.embedded
        table = _read(folder / _file_names(listing)[part], ["doc_id", "embedding"])
        return pa.table({"doc_id": table["doc_id"], "vector": pc.struct_field(table["embedding"], "vector")})

    def take(self, part: int, rows: Integers) -> pa.Table:
        """Only the row groups that hold such rows are read."""
        try:
            with pq.ParquetFile(self._path(part), pre_buffer=False) as file:
                return pa.concat_tables(_take_groups(file, rows))
        except FileNotFoundError as error:
            raise DatasetError("a part is missing", at=str(self._path(part)), hint="run ingest again") from error

    def _path(self, part: int) -> Path:
        return self.folder / _file_names(self.listing)[part]


@lru_cache(maxsize=4)
def _file_names(listing: Path) -> list[str]:
    names: list[str] = json.loads(listing.read_bytes())
    return names


def _read(path: Path, columns: list[str]) -> pa.Table:
    """Those columns of a part, which may have no row and then comes in no batch."""
    batches = list(read_batches(path, columns))
    return pa.Table.from_batches(batches) if batches else pq.read_schema(path).empty_table().select(columns)


def _take_groups(file: pq.ParquetFile, rows: Integers) -> Iterator[pa.Table]:
    yield file.schema_arrow.empty_table().select(list(READS))
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    ends = np.cumsum(sizes, dtype=np.int64)
    groups = np.searchsorted(ends, rows, side="right")
    for group in np.unique(groups).tolist():
        wanted = rows[groups == group] - (ends[group] - sizes[group])
        yield file.read_row_group(group, columns=list(READS), use_threads=False).take(pa.array(wanted))
