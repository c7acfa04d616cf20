"""How rows travel between tasks: tables sorted by their first column, `range`, the number of the task to read them.

Each task writes one file and reads its own range of all files (`range_files.py`). So a shuffle is (files) + (files x
ranges) small reads, without a server and without a file per range.

A document is named in a shuffle by its `place`, int64: its part's number in the manifest << 32 | its row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.dedup.columns import numbers
from storage.errors import DatasetError

RANGE = pa.field("range", pa.uint32(), nullable=False)
PLACE = pa.int64()
_ROW_BITS = 32
_ROW_MASK = (1 << _ROW_BITS) - 1

Integers = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


def shuffled_schema(*fields: tuple[str, pa.DataType]) -> pa.Schema:
    """The schema of a table that travels: `range` and the fields, none of them null."""
    return pa.schema([RANGE, *(pa.field(name, kind, nullable=False) for name, kind in fields)])


def places(part: int, rows: npt.NDArray[np.integer]) -> Integers:
    """int64[n]: the places of rows of a part."""
    return (np.int64(part) << _ROW_BITS) | rows.astype(np.int64)


def parts_of(places: Integers) -> Integers:
    """int64[n]: the numbers of the parts."""
    return places >> _ROW_BITS


def rows_of(places: Integers) -> Integers:
    """int64[n]: the rows in their parts."""
    return places & _ROW_MASK


def ranges_of(hashes: Hashes, num_ranges: int) -> npt.NDArray[np.uint32]:
    """uint32[n] in [0, num_ranges): equal shares of the 64-bit hash space, in its order."""
    return (((hashes >> np.uint64(32)) * np.uint64(num_ranges)) >> np.uint64(32)).astype(np.uint32)


def groups_of(places: Integers, num_groups: int) -> npt.NDArray[np.uint32]:
    """uint32[n] in [0, num_groups): a scattered group for each place."""
    return ranges_of(places.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15), num_groups)


def choose_num_ranges(num_rows: int, rows_per_range: int = 4_000_000) -> int:
    """How many ranges so many rows ask for; from the corpus alone, so that any number of workers cuts it alike.

    4 million band rows (24 bytes each, and as much again while they are sorted) keep a task near 300 MB.
    """
    return max(1, -(-num_rows // rows_per_range))


def with_ranges(table: pa.Table, ranges: npt.NDArray[np.uint32]) -> pa.Table:
    """The table sorted by these ranges, which stand in its first column; rows of one range keep their order."""
    content = table.drop_columns(["range"]) if "range" in table.column_names else table
    order = np.argsort(ranges, kind="stable")
    return content.take(pa.array(order)).add_column(0, RANGE, pa.array(ranges[order]))


def select_range(table: pa.Table, number: int) -> pa.Table:
    """The rows of one range of a table that is sorted by `range`."""
    ranges = numbers(table.column("range"), np.uint32)
    first, last = np.searchsorted(ranges, [number, number + 1])
    return table.slice(first, last - first)


def gather_range(tables: Iterable[pa.Table], number: int, schema: pa.Schema) -> pa.Table:
    """The rows of one range of all tables, in their order."""
    return pa.concat_tables([schema.empty_table(), *(select_range(table, number) for table in tables)])


def read_range(files: Sequence[str | Path], number: int, schema: pa.Schema) -> pa.Table:
    """The rows of one range of Parquet files (of repeated spans), in their order. DatasetError where one is missing."""
    return pa.concat_tables([schema.empty_table(), *(_read_file_range(Path(file), number, schema) for file in files)])


def _read_file_range(path: Path, number: int, schema: pa.Schema) -> pa.Table:
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            groups = [i for i in range(file.num_row_groups) if _may_hold(file.metadata.row_group(i), number)]
            table = file.read_row_groups(groups, columns=schema.names, use_threads=False)
    except FileNotFoundError as error:
        raise DatasetError("a shuffled file is missing", at=str(path), hint="run deduplication again") from error
    except pa.ArrowInvalid as error:
        raise DatasetError(f"a shuffled file cannot be read: {error}", at=str(path), hint="remove it") from error
    return table.filter(pc.equal(table.column("range"), number)).cast(schema)


def _may_hold(group: pq.RowGroupMetaData, number: int) -> bool:
    statistics = group.column(0).statistics
    return statistics is None or not statistics.has_min_max or statistics.min <= number <= statistics.max
